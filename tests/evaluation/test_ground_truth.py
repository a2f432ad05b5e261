"""Ground truth in files and names, and values matched to it."""

import pytest
from support.challenge_files import IS_ANOMALY, IS_TARGET, NAMES, write_truth

from gammavae_jax.data.names import machine_and_section
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.ground_truth import truth_from_files, truth_from_names
from gammavae_jax.evaluation.name_value_files import (
    flags_by_clip,
    read_rows,
    values_by_clip,
)

FILE = "anomaly_score_fan_section_00_test.csv"
TRUTH = "ground_truth_fan_section_00_test.csv"


def read_values(path, data):
    return values_by_clip(path, read_rows(path), truth_from_files(data).clip_of)


def test_ground_truth_files_give_labels_domains_and_later_names(tmp_path):
    truth = truth_from_files(write_truth(tmp_path))
    clips = [f"section_00_{k:04}" for k in range(12)]
    assert truth.is_anomaly == dict(zip(clips, IS_ANOMALY, strict=True))
    assert truth.is_target == dict(zip(clips, IS_TARGET, strict=True))
    assert truth.clip_of[NAMES[7].removesuffix(".wav")] == "section_00_0007"
    assert truth.clip_of["section_00_0007"] == "section_00_0007"


def test_the_domain_file_overrides_names(tmp_path):
    data = write_truth(tmp_path)
    lines = [f"section_00_{k:04}.wav,{int(k < 2)}\n" for k in range(12)]
    (tmp_path / "ground_truth_domain" / TRUTH).write_text("".join(lines))
    assert sum(truth_from_files(data).is_target.values()) == 2


def test_values_are_matched_by_either_name_in_any_order(tmp_path):
    names = [f"section_00_{k:04}.wav" if k % 2 else NAMES[k] for k in range(12)]
    lines = [f"{name},{k}\n" for k, name in enumerate(names)]
    (tmp_path / FILE).write_text("".join(reversed(lines)))
    values = read_values(tmp_path / FILE, write_truth(tmp_path))
    assert values == {f"section_00_{k:04}": k for k in range(12)}


def test_without_a_domain_file_domains_come_from_names(tmp_path):
    data = write_truth(tmp_path)
    (tmp_path / "ground_truth_domain" / TRUTH).unlink()
    found = truth_from_files(data).is_target
    assert [found[f"section_00_{k:04}"] for k in range(12)] == IS_TARGET
    assert list(truth_from_names(tmp_path, NAMES).is_target.values()) == IS_TARGET
    (tmp_path / "ground_truth_attributes" / TRUTH).unlink()
    with pytest.raises(InputError, match="'section_00_0011' has no domain"):
        truth_from_files(data)


def test_clips_without_a_domain_are_source(tmp_path):
    names = [f"{label}_{k}" for label in ("normal", "anomaly") for k in "12"]
    truth = truth_from_names(tmp_path, names)
    assert list(truth.is_anomaly.values()) == [False, False, True, True]
    assert not any(truth.is_target.values())


def test_anonymous_clips_need_the_ground_truth(tmp_path):
    problem = "'section_00_0000' has no label in the challenge's format"
    with pytest.raises(InputError, match=problem):
        truth_from_names(tmp_path, ["section_00_0000"])


def test_windows_line_endings_byte_order_marks_and_blank_lines_are_accepted(tmp_path):
    path = tmp_path / FILE
    path.write_text("".join(f"{name},{k}\n" for k, name in enumerate(NAMES)))
    expected = read_rows(path)
    text = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text + b"\r\n")
    assert read_rows(path) == expected
    assert len(expected) == len(NAMES)


BROKEN = {
    "missing": (lambda lines: lines[1:], "clip 'section_00_0000' is missing"),
    "doubled": (lambda lines: [*lines, lines[3]], "anomaly_0000.* is listed 2 times"),
    "unknown": (
        lambda lines: [*lines, "pump_normal.wav,1"],
        "'pump_normal' is unknown",
    ),
    "both names": (
        lambda lines: [*lines, "section_00_0000.wav,1"],
        "'section_00_0000' is listed 2 times",
    ),
    "words": (lambda lines: ["name,value", *lines], "'name' is 'value'"),
    "nan": (lambda lines: [lines[0] + ",nan", *lines[1:]], "finite number"),
    "infinite": (lambda lines: [NAMES[0] + ",inf", *lines[1:]], "is 'inf'"),
    "decimal comma": (lambda lines: [NAMES[0] + ",0,5", *lines[1:]], "is '0,5'"),
    "no value": (lambda lines: [NAMES[0], *lines[1:]], "has no value"),
    "underscore": (lambda lines: [NAMES[0] + ",1_0", *lines[1:]], "is '1_0'"),
    "other digits": (lambda lines: [NAMES[0] + ",\uff11", *lines[1:]], "finite number"),
    "hexadecimal": (lambda lines: [NAMES[0] + ",0x1", *lines[1:]], "is '0x1'"),
    "blank value": (lambda lines: [NAMES[0] + ",", *lines[1:]], "is ''"),
    "quote": (lambda lines: ['"' + lines[0], *lines[1:]], "is not CSV text"),
    "empty": (lambda lines: [], "is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_score_rows_are_refused(tmp_path, case):
    breaking, message = BROKEN[case]
    lines = [f"{name},{k}.5" for k, name in enumerate(NAMES)]
    (tmp_path / FILE).write_text("\n".join(breaking(lines)))
    data = write_truth(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read_values(tmp_path / FILE, data)
    assert FILE in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", b"\x80\x81", b"a.wav,\x00"])
def test_binary_files_are_refused(tmp_path, content):
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(InputError, match=FILE):
        values_by_clip(path, read_rows(path), {"a": "a"})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{FILE} cannot be read: No such file"):
        read_rows(tmp_path / FILE)


def test_flags_are_0_and_1(tmp_path):
    clip_of = {"a": "a", "b": "b"}
    rows = {"b": ["1"], "a": ["0.0"]}
    assert flags_by_clip(tmp_path, rows, clip_of) == {"a": False, "b": True}
    with pytest.raises(InputError, match=r"'b' is 2\.0: write 0 or 1"):
        flags_by_clip(tmp_path, rows | {"b": ["2"]}, clip_of)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("anomaly_score_fan_section_00_test.csv", ("fan", "00")),
        ("ground_truth_ToyCar_section_03_test.csv", ("ToyCar", "03")),
        (
            "decision_result_DCASE2024T23DPrinter_section_00_test_seed13711_Eval.csv",
            ("3DPrinter", "00"),
        ),
        ("anomaly_score_fan_id_02.csv", ("fan", "02")),
        ("anomaly_score_fan.csv", None),
        ("roc_fan_section_00_test.csv", None),
    ],
)
def test_file_names_give_machine_and_section(name, expected):
    assert machine_and_section(name) == expected
