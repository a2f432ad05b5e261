"""Clip names of every challenge year, and names that say "not normal"."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.logs import refusal

from gammavae_jax.data.names import (
    DOMAINS,
    LABELS,
    SPLITS,
    clip_stem,
    fault_word,
    is_labelled,
    parse_clip_name,
    require_normal_names,
)

BY_YEAR = {
    "normal_id_01_00000000.wav": "01|source||normal|00000000|",
    "anomaly_id_06_00000356.wav": "06|source||anomaly|00000356|",
    "id_05_00000000.wav": "05|source|||00000000|",
    "section_00_source_train_normal_0000_strength_1_ambient.wav": (
        "00|source|train|normal|0000|strength_1_ambient"
    ),
    "section_03_source_test_0017.wav": "03|source|test||0017|",
    "section_03_target_test_anomaly_0049_vel_1.5.wav": (
        "03|target|test|anomaly|0049|vel_1.5"
    ),
    "section_00_0000.wav": "00||||0000|",
    "section_00_test_0000.wav": "00||test||0000|",
    "section_00_source_train_normal_0010_noAttribute.wav": (
        "00|source|train|normal|0010|noAttribute"
    ),
    "section_00_source_normal_0035_weight15_BckgF": (
        "00|source||normal|0035|weight15_BckgF"
    ),
    "section_00_target_test_normal_0022_id_C1_spd_6_mic_2.wav": (
        "00|target|test|normal|0022|id_C1_spd_6_mic_2"
    ),
    "section_00_machine_0001_.wav": "00||||0001|",
}


@pytest.mark.parametrize("name", BY_YEAR)
def test_names_of_every_year_are_parsed_whatever_their_suffix_and_folders(name):
    stem = name.removesuffix(".wav")
    folder = "fan/normal_test"
    for same in (name, stem, f"{stem}.flac", f"{stem}.WAV", f"{folder}/{stem}.wav"):
        assert "|".join(parse_clip_name(same)) == BY_YEAR[name]
        assert clip_stem(same) == stem


@pytest.mark.parametrize("name", BY_YEAR)
def test_a_name_is_labelled_if_it_gives_a_label(name):
    assert is_labelled(name) == (parse_clip_name(name).label != "")


def test_attribute_values_are_not_mistaken_for_labels():
    name = parse_clip_name("section_02_0007_anomaly_target_train_section_05.wav")
    assert name[:5] == ("02", "", "", "", "0007")
    assert name.attributes == "anomaly_target_train_section_05"


@pytest.mark.parametrize("name", ["pump_monday.wav", "", ".wav", "section", "id_x"])
def test_a_name_without_any_parts_gives_empty_fields(name):
    assert parse_clip_name(name) == ("00", "", "", "", "", "")


@pytest.mark.parametrize(
    "name",
    [
        *("not_normal_3.wav", "pump_anomaly.wav", "abnormal_pump.wav", "normal.wav"),
        *("normal_anomaly_id_00_01.wav", "section_00_not_normal_0001.wav"),
        *("section_00_source_test_Anomaly_0001.wav", "no_anomaly_0001.wav"),
    ],
)
def test_a_name_that_only_contains_the_word_of_a_label_has_no_label(name):
    assert parse_clip_name(name).label == ""


@given(
    section=st.text(string.digits, min_size=1, max_size=3),
    words=st.tuples(*(st.sampled_from(["", *w]) for w in (DOMAINS, SPLITS, LABELS))),
    index=st.text(string.digits, min_size=1, max_size=8),
    attributes=st.text(string.ascii_letters + string.digits + "_", max_size=20),
)
def test_the_parts_of_a_generated_name_are_parsed(section, words, index, attributes):
    tokens = ["section", section, *filter(None, words), index, attributes]
    expected = (section, *words, index, attributes)
    assert parse_clip_name("_".join(tokens) + ".wav") == expected


@pytest.mark.parametrize(
    "name",
    [
        *("abnormal", "ABNORMAL", "Abnormal data", "pump_abnormal_01.wav", "anomaly"),
        *("anomalous-2024", "fan.broken.flac", "pumpBroken.wav", "faulty", "anomaly01"),
        *("section_00_source_train_anomaly_0001.wav", "anomaly_id_02_00000001.wav"),
        *("normal_and_abnormal", "not normal, broken", "ABNORMAL-2"),
        *("AbNormal", "ABnormal", "ab-normal", "not_normal", "Non Normal", "NonNormal"),
        *("pump_NotNormal_3.wav", "section_00_not_normal_0001.wav", "un-normal"),
        *("defect", "Defects 2024", "damaged", "bearing_failure", "abnormalities"),
        *(
            "NG_001.wav",
            "line NG",
            "pump NOK 3.flac",
            "malfunction",
            "Breakdown-2024-05",
        ),
    ],
)
def test_a_whole_word_that_says_not_normal_is_found(name):
    assert fault_word(name) is not None


@pytest.mark.parametrize(
    "name",
    [
        *("normal", "pump", "unbroken", "brokenwood", "default", "paranormal", ""),
        *("no_anomaly", "non-faulty", "fault-free", "NoAnomaly", "without fault"),
        *("anomaly_detection", "not broken.wav", "AnomalyDetector", "faultless"),
        *(
            "fault-diagnosis",
            "no_defects",
            "DefectFree",
            "normal, not broken",
            "Normal",
        ),
        *("cannot_normalise", "knot normal", "abnorm", "fail-safe", "undamaged"),
        *(
            "running",
            "engine",
            "long",
            "Ngoc",
            "Ng Wei",
            "ng",
            "sensor-ng-2.wav",
            "no malfunction",
            "OK_001.wav",
        ),
        "section_00_source_train_normal_0001_belt_broken.wav",
        "normal_id_00_00000001_faulty.wav",
    ],
)
def test_parts_of_words_negations_and_attributes_do_not_count(name):
    assert fault_word(name) is None


def named(*paths):
    return [(path, path.split("/")) for path in paths]


@pytest.mark.parametrize(
    ("normal", "test"),
    [("train", "test"), ("Train", "source_test"), ("normal", "Test")]
    + [("normal", n) for n in ("test_results", "2024-Tests", "testData", "testing")],
)
def test_the_test_clips_beside_the_training_clips_are_refused(normal, test):
    clips = named(f"fan/{normal}/0.wav", f"fan/{test}/1/section_00_0000.wav")
    assert refusal(require_normal_names, clips, "leave it out") == (
        f"fan/{test}/1/section_00_0000.wav: the folder '{test}' is beside "
        f"'{normal.lower()}', and test clips may be anomalous: pass the folder "
        f"'{normal.lower()}' only"
    )


def test_a_folder_test_that_is_not_beside_training_clips_is_ignored():
    require_normal_names(
        named("fan/test/0.wav", "fan/monday/1.wav", "pump/train/2.wav", "train/3.wav",
              "test/4.wav", "fan/train.wav", "rig/train/test/5.wav",
              "mix/normal/6.wav", "mix/latest/7.wav", "mix/contest/8.wav",
              "mix/test_bench/9.wav", "mix/TestStand/9.wav"),
        "leave it out",
    )  # fmt: skip


def test_the_first_recording_is_named_and_all_are_counted():
    named = [("a.wav", ["rec", "a.wav"]), *(("b\n.wav", ["faulty", "b"]),) * 2]
    assert refusal(require_normal_names, named, "leave it out") == (
        "b\\n.wav: the name or folder of this training clip contains 'faulty', but "
        "models learn from normal sounds only: leave it out "
        "(2 recordings have such names)"
    )


def test_the_message_says_what_the_recordings_are_and_why_they_must_be_normal():
    clips, words = [("a.wav", ["broken"])], ("recording", "it is a reference")
    assert refusal(require_normal_names, clips, "leave it out", *words) == (
        "a.wav: the name or folder of this recording contains 'broken', but it is a "
        "reference: leave it out"
    )
