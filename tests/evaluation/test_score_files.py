"""The challenge's score files: written, read and evaluated."""

import csv
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from support.challenge_files import NAMES, evaluate_directory, write_truth

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import DOMAINS
from gammavae_jax.evaluation.name_value_files import (
    find_files,
    left_out_files,
    values_by_clip,
)
from gammavae_jax.evaluation.official import (
    arithmetic_mean,
    harmonic_mean,
    official_score,
)
from gammavae_jax.evaluation.score_files import (
    read_score_files,
    summarise,
    write_decisions,
    write_scores,
)

TOLERANCE = 1e-12
SHARED_DIR = os.environ.get("GAMMAVAE_RECORDINGS_DIR", "")
EVALUATOR_DIR = Path(
    os.environ.get("GAMMAVAE_EVALUATOR_DIR") or Path(SHARED_DIR, "evaluator2024")
)
REAL_SCORES_DIR = Path(SHARED_DIR, "real_scores")
PUBLISHED = {
    "dcase2026_dev_mse": 0.5719418133424542,
    "dcase2026_dev_mahala": 0.5720483897712285,
}
SCORES = np.array([1, 3, 2, 4, 2.5, 6, 3, 1, 2, 2, 5, 3], np.float32)
FILE = "anomaly_score_fan_section_00_test.csv"
official_evaluator = pytest.mark.skipif(
    not (EVALUATOR_DIR / "expected_result.csv").exists(),
    reason="the official evaluator's case is missing: set GAMMAVAE_EVALUATOR_DIR",
)


def write_machine(folder, machine="fan"):
    write_scores(folder, machine, "00", NAMES, SCORES)
    write_decisions(folder, machine, "00", NAMES, SCORES > 2)


def test_names_in_another_case_or_unicode_form_are_the_same_clips(tmp_path):
    (tmp_path / "plain").mkdir()
    write_machine(tmp_path / "plain", "Lüfter")
    expected = read_score_files(tmp_path / "plain")
    write_truth(tmp_path, "Lüfter")
    for path in (tmp_path / "plain").iterdir():
        text = unicodedata.normalize("NFD", path.read_text().upper())
        name = unicodedata.normalize("NFD", path.name).replace(".csv", ".CSV")
        path.unlink()
        path.with_name(name.replace("a", "A", 1)).write_text(text)
    found = read_score_files(tmp_path / "plain", tmp_path)
    for one, other in zip(found, expected, strict=True):
        assert (one.machine, one.section) == (other.machine, other.section)
        np.testing.assert_array_equal(np.sort(one.scores), np.sort(other.scores))


def test_two_clips_that_differ_by_case_only_stay_two():
    clip_of = {"A": "A", "a": "a", "b": "b"}
    rows = {"A": ["1"], "a": ["2"], "B": ["3"]}
    assert values_by_clip("x.csv", rows, clip_of) == {"A": 1, "a": 2, "b": 3}
    with pytest.raises(InputError, match="'b' is listed 2 times"):
        values_by_clip("x.csv", {**rows, "b": ["4"]}, clip_of)
    with pytest.raises(InputError, match="'Ⓐ' is unknown"):
        values_by_clip("x.csv", {"Ⓐ": ["1"]}, clip_of)


def test_a_broken_link_to_a_score_file_is_refused(tmp_path):
    write_machine(tmp_path)
    (tmp_path / FILE.replace("fan", "pump")).symlink_to("nowhere.csv")
    (tmp_path / FILE.replace("anomaly_score_fan", "decision_result_pump")).touch()
    with pytest.raises(InputError, match=r"pump_section_00_test\.csv cannot be read"):
        read_score_files(tmp_path)


def test_files_named_like_score_files_that_are_not_read_are_known(tmp_path):
    write_machine(tmp_path)
    assert left_out_files(tmp_path) == []
    (tmp_path / "seed1").mkdir()
    names = ["Anomaly_score_pump_section_00_test.txt", f"seed1/{FILE}"]
    for name in names:
        (tmp_path / name).touch()
    assert left_out_files(tmp_path) == names


def lines_of(path):
    return path.read_text().splitlines()


def expected_blocks(path):
    """Return the blocks of the official result, which blank lines separate."""
    blocks = [[]]
    with path.open(newline="") as file:
        for row in csv.reader(file):
            blocks[-1].append(row) if row else blocks.append([])
    return [block for block in blocks if block]


def section_values(row):
    """Return a row's values, keyed by the official result's column names."""
    values = {"AUC (all)": row.auc, "pAUC": row.pauc}
    for domain in ("source", "target"):
        values |= {
            f"AUC ({domain})": getattr(row, f"auc_{domain}"),
            f"precision ({domain})": getattr(row, f"precision_{domain}"),
            f"recall ({domain})": getattr(row, f"recall_{domain}"),
            f"F1 score ({domain})": getattr(row, f"f1_{domain}"),
        }
    return values


def official_means(rows):
    """Return the four lines of means that the official evaluators print."""
    stems = {"AUC": "auc", "precision": "precision", "recall": "recall"}

    def line(mean, domains):
        return {"pAUC": mean(row.pauc for row in rows)} | {
            name: mean(getattr(row, f"{stem}_{d}") for row in rows for d in domains)
            for name, stem in (stems | {"F1 score": "f1"}).items()
        }

    return {
        "arithmetic mean": line(arithmetic_mean, DOMAINS),
        "harmonic mean": line(harmonic_mean, DOMAINS),
        "source harmonic mean": line(harmonic_mean, ("source",)),
        "target harmonic mean": line(harmonic_mean, ("target",)),
    }


def compare_block(block, sections, means):
    """Compare a block's lines with ours, and return how many numbers were compared."""
    header, compared = [], 0
    for line in block:
        if line[0] == "section" or line[:2] == ["", ""]:
            header = line
            continue
        found = sections.get(line[0]) or means[line[0].split(" over ")[0]]
        for name, text in zip(header[1:], line[1:], strict=True):
            if text:
                assert found[name] == pytest.approx(float(text), abs=TOLERANCE), line
                compared += 1
    return compared


@official_evaluator
def test_the_official_result_of_2024_is_reproduced():
    rows = evaluate_directory(EVALUATOR_DIR / "scores", EVALUATOR_DIR)
    *machines, overall, last = expected_blocks(EVALUATOR_DIR / "expected_result.csv")
    by_machine = {machine: [] for (machine,), *_ in machines}
    for row in rows:
        by_machine[row.machine].append(row)
    compared = compare_block(overall, {}, official_means(rows))
    for (machine,), *block in machines:
        ours = by_machine[machine]
        sections = {row.section: section_values(row) for row in ours}
        compared += compare_block(block, sections, official_means(ours))
    assert compared == 20 + len(rows) * 10 + len(machines) * 20
    # The confidence line pools the scores of all machines; we do not compute it.
    assert last[0][:2] == ["official score", ""]
    assert official_score(rows) == pytest.approx(float(last[0][2]), abs=TOLERANCE)


@official_evaluator
def test_renamed_clips_give_the_official_result(tmp_path):
    for path in (EVALUATOR_DIR / "scores").glob("*.csv"):
        machine = path.name.split("_section_")[0].split("_", 2)[2]
        section = path.name.split("_section_")[1][:2]
        stem = f"ground_truth_{machine}_section_{section}_test.csv"
        with (EVALUATOR_DIR / "ground_truth_attributes" / stem).open() as file:
            renamed = {line[0]: line[1] for line in csv.reader(file)}
        pairs = [line.rsplit(",", 1) for line in lines_of(path)]
        text = "".join(f"{renamed[name]}.wav,{value}\n" for name, value in pairs)
        (tmp_path / path.name).write_text(text)
    expected = evaluate_directory(EVALUATOR_DIR / "scores", EVALUATOR_DIR)
    found = evaluate_directory(tmp_path, EVALUATOR_DIR)
    assert [r._replace(threshold=0) for r in found] == [
        r._replace(threshold=0) for r in expected
    ]


@pytest.mark.parametrize("folder", PUBLISHED)
def test_real_scores_give_the_published_official_score(folder):
    if not (REAL_SCORES_DIR / folder).is_dir():
        pytest.skip("the real scores are missing: set GAMMAVAE_RECORDINGS_DIR")
    rows = evaluate_directory(REAL_SCORES_DIR / folder)
    assert official_score(rows) == pytest.approx(PUBLISHED[folder], abs=TOLERANCE)


def test_files_are_written_in_the_format_of_the_challenge(tmp_path):
    names = ["section_00_0001.wav", "section_00_0000.wav"]
    folder = tmp_path / "mse" / "seed0"
    scores = write_scores(folder, "ToyCar", "01", names, np.array([0.1, 3]))
    decisions = write_decisions(folder, "ToyCar", "01", names, np.array([False, True]))
    assert scores == folder / "anomaly_score_ToyCar_section_01_test.csv"
    assert scores.read_bytes() == b"section_00_0001.wav,0.1\nsection_00_0000.wav,3.0\n"
    assert decisions == folder / "decision_result_ToyCar_section_01_test.csv"
    assert decisions.read_bytes() == b"section_00_0001.wav,0\nsection_00_0000.wav,1\n"
    assert sorted(folder.iterdir()) == [scores, decisions]


def test_names_with_commas_and_quotes_survive(tmp_path):
    names = [
        f'{label}_0_, "{k}" é.wav' for label in ("normal", "anomaly") for k in "ab"
    ]
    write_scores(tmp_path, "fan", "00", names, np.arange(4.0))
    write_decisions(tmp_path, "fan", "00", names, np.arange(4) > 1)
    (section,) = read_score_files(tmp_path)
    assert section.is_anomaly.tolist() == [False, False, True, True]
    assert section.scores.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({"names": [name]}, "cannot be written to a score")
            for name in ("a\nb.wav", "a\rb.wav", "a\0.wav", "\udc80.wav", "")
        ),
        ({"names": ["a.wav"] * 2, "scores": [1.0, 2.0]}, "'a' is listed 2 times"),
        *(
            ({"scores": [score]}, r"score of 'a\.wav'")
            for score in (np.nan, np.inf, 1e39)
        ),
        *(({"machine": name}, "cannot be part") for name in ("../fan", "", "a\nb")),
        ({"section": "x"}, "cannot be part"),
    ],
)
def test_a_name_or_score_that_a_file_cannot_hold_is_not_written(
    tmp_path, changes, message
):
    usual = {"machine": "fan", "section": "00", "names": ["a.wav"], "scores": [1.0]}
    machine, section, names, scores = (usual | changes).values()
    with pytest.raises(InputError, match=message):
        write_scores(tmp_path, machine, section, names, np.array(scores))
    assert not list(tmp_path.iterdir())


def test_the_file_names_of_the_baseline_are_read(tmp_path):
    write_machine(tmp_path)
    tail = "_section_00_test_seed13711_id(0_)_Eval.csv"
    for kind in ("anomaly_score", "decision_result"):
        path = tmp_path / f"{kind}_fan_section_00_test.csv"
        path.rename(tmp_path / f"{kind}_DCASE2024T23DPrinter{tail}")
    (section,) = read_score_files(tmp_path)
    assert section[:2] == ("3DPrinter", "00")
    assert section.decisions is not None


def test_files_of_2020_are_read_by_id(tmp_path):
    names = [
        f"{label}_id_02_{k:08}.wav" for label in ("normal", "anomaly") for k in (0, 1)
    ]
    text = "".join(f"{name},{k}\n" for k, name in enumerate(names))
    (tmp_path / "anomaly_score_fan_id_02.csv").write_text(text)
    (row,) = evaluate_directory(tmp_path, year=2020)
    assert (row.machine, row.section, row.auc) == ("fan", "02", 1)


def test_other_files_and_folders_are_ignored(tmp_path):
    write_machine(tmp_path)
    expected = json.dumps(evaluate_directory(tmp_path))
    (tmp_path / ".DS_Store").write_bytes(b"\x00\x01")
    (tmp_path / f"._{FILE}").write_bytes(b"\xff\x00")
    (tmp_path / "result_fan_roc.csv").write_text("section,AUC\n")
    (tmp_path / "anomaly_score_pump_section_00_test.csv").mkdir()
    write_machine(tmp_path / "seed1", "pump")
    assert json.dumps(evaluate_directory(tmp_path)) == expected


@pytest.mark.parametrize("with_truth", [False, True])
def test_the_order_of_rows_does_not_matter(tmp_path, with_truth):
    truth = tmp_path / "truth" if with_truth else None
    write_machine(tmp_path)
    write_truth(tmp_path / "truth")
    expected = json.dumps(evaluate_directory(tmp_path))
    path = tmp_path / FILE
    path.write_text("\n".join(sorted(lines_of(path), key=len)))
    np.testing.assert_allclose(
        evaluate_directory(tmp_path, truth)[0][4:],
        json.loads(expected)[0][4:],
        rtol=0,
        atol=TOLERANCE,
    )


def test_the_summary_is_valid_json(tmp_path):
    write_machine(tmp_path)
    (tmp_path / "decision_result_fan_section_00_test.csv").unlink()
    rows = evaluate_directory(tmp_path)
    summary = json.loads(json.dumps(summarise(rows), allow_nan=False))
    assert summary["official_score"] == official_score(rows)
    machine = summary["machines"]["fan_section_00"]
    assert machine["auc_source"] == rows[0].auc_source
    assert machine["precision_source"] is None
    assert summary["harmonic_means"]["pauc"] == pytest.approx(rows[0].pauc)
    assert summary["arithmetic_means"]["auc"] == rows[0].auc


def test_missing_files_are_refused(tmp_path):
    write_machine(tmp_path, "fan")
    write_machine(tmp_path, "pump")
    write_truth(tmp_path / "truth", "fan")
    with pytest.raises(InputError, match="does not cover pump section 00: remove"):
        evaluate_directory(tmp_path, tmp_path / "truth")
    write_truth(tmp_path / "truth", "pump")
    assert len(evaluate_directory(tmp_path, tmp_path / "truth")) == 2
    decisions = tmp_path / "decision_result_pump_section_00_test.csv"
    scores = tmp_path / "anomaly_score_pump_section_00_test.csv"
    text = decisions.read_text()
    decisions.unlink()
    with pytest.raises(InputError, match=f"no {decisions.name}"):
        evaluate_directory(tmp_path)
    scores.unlink()
    with pytest.raises(InputError, match=f"no {scores.name}"):
        evaluate_directory(tmp_path, tmp_path / "truth")
    decisions.write_text(text)
    with pytest.raises(InputError, match=f"no {scores.name}"):
        evaluate_directory(tmp_path)


def test_two_files_for_one_section_are_refused(tmp_path):
    write_machine(tmp_path)
    (tmp_path / "anomaly_score_fan_section_00_test_seed1.csv").write_text("a.wav,1\n")
    with pytest.raises(InputError, match="for the same section: keep only one"):
        evaluate_directory(tmp_path)


def test_a_file_of_a_whole_section_and_one_of_a_domain_are_refused(tmp_path):
    for tail in ("", "_source"):  # in the order in which they are read
        (tmp_path / f"anomaly_score_fan_section_00{tail}.csv").touch()
    with pytest.raises(InputError, match="for the same section: keep only one"):
        find_files(tmp_path, "anomaly_score")


def test_a_score_file_without_machine_and_section_is_refused(tmp_path):
    (tmp_path / "anomaly_score_fan.csv").write_text("a.wav,1\n")
    problem = r"score_fan\.csv must contain a machine and a section"
    with pytest.raises(InputError, match=problem):
        evaluate_directory(tmp_path)


def test_folders_without_scores_are_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        evaluate_directory(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no anomaly_score_\*"):
        evaluate_directory(tmp_path)
    write_machine(tmp_path)
    with pytest.raises(InputError, match="has no ground truth: pass a folder with"):
        evaluate_directory(tmp_path, tmp_path)


@pytest.mark.parametrize("label", ["normal", "anomaly"])
def test_a_section_of_one_class_is_refused(tmp_path, label):
    (tmp_path / FILE).write_text(f"section_00_source_test_{label}_0000.wav,1\n")
    with pytest.raises(InputError, match=f"{FILE}: all 1 clips are"):
        evaluate_directory(tmp_path)


SPREADSHEETS = {
    "semicolons": "{}.wav;0,{:g}",
    "tabs": "{}.wav\t0,{:g}",
    "spaces": "{}.wav 0,{:g}",
    "names without a suffix": "{};0,{:g}",
    "no digit before the comma": "{}.wav;,{:g}",
    "negative numbers": "{}.flac;-0,{:g}",
    "thousands": "{}.wav;1.234,{:g}",
    "semicolons and points": "{}.wav;0.{:g}",
    "commas twice": "{}.wav,0,{:g}",
    "quotes": '{}.wav,"0,{:g}"',
    "spaces in numbers": "{}.wav,1 {:g}",
}


@pytest.mark.parametrize("with_truth", [False, True])
@pytest.mark.parametrize("form", SPREADSHEETS)
def test_a_score_file_of_a_spreadsheet_is_refused_in_one_line(
    tmp_path, form, with_truth
):
    write_truth(tmp_path / "truth")
    lines = [
        SPREADSHEETS[form].format(name.removesuffix(".wav"), value)
        for name, value in zip(NAMES, SCORES, strict=True)
    ]
    (tmp_path / FILE).write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"decimal|has no value: write") as error:
        evaluate_directory(tmp_path, tmp_path / "truth" if with_truth else None)
    assert "\n" not in str(error.value)


def test_a_decimal_comma_in_a_decision_is_refused(tmp_path):
    write_machine(tmp_path)
    text = "".join(f"{name};{k % 2},0\n" for k, name in enumerate(NAMES))
    (tmp_path / FILE.replace("anomaly_score", "decision_result")).write_text(text)
    with pytest.raises(InputError, match=r"decision_result.*has a decimal comma"):
        evaluate_directory(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "not_normal_0001.wav",
        "normal_but_anomaly_0001.wav",
        "abnormal_0001.wav",
        "section_00_source_test_normal_0001.wav.bak",
        "normal.wav",
        "normal_pump_monday.wav",
    ],
)
def test_a_name_that_only_contains_a_label_is_refused(tmp_path, name):
    good = "section_00_source_test_anomaly_0000.wav,2\n"
    (tmp_path / FILE).write_text(f"{good}{name},1\n")
    with pytest.raises(InputError, match="has no label in the challenge's format"):
        evaluate_directory(tmp_path)
