"""Names that say that a recording is not of a normal machine."""

import pytest

from gammavae_jax.data.normal_names import fault_word, require_normal_names
from gammavae_jax.errors import InputError


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
    with pytest.raises(InputError) as error:
        require_normal_names(clips, "leave it out")
    assert str(error.value) == (
        f"fan/{test}/1/section_00_0000.wav: the folder '{test}' is beside "
        f"'{normal.lower()}', and test clips may be anomalous: pass the folder "
        f"'{normal.lower()}' only"
    )


def test_a_folder_test_that_is_not_beside_training_clips_counts_for_nothing():
    require_normal_names(
        named("fan/test/0.wav", "fan/monday/1.wav", "pump/train/2.wav", "train/3.wav",
              "test/4.wav", "fan/train.wav", "rig/train/test/5.wav",
              "mix/normal/6.wav", "mix/latest/7.wav", "mix/contest/8.wav",
              "mix/test_bench/9.wav", "mix/TestStand/9.wav"),
        "leave it out",
    )  # fmt: skip


def test_the_first_recording_is_named_and_all_are_counted():
    named = [("a.wav", ["rec", "a.wav"]), *(("b\n.wav", ["faulty", "b"]),) * 2]
    with pytest.raises(InputError) as error:
        require_normal_names(named, "leave it out")
    assert str(error.value) == (
        "b\\n.wav: the name or folder of this training clip contains 'faulty', but "
        "models learn from normal sounds only: leave it out "
        "(2 recordings have such names)"
    )


def test_the_message_says_what_the_recordings_are_and_why_they_must_be_normal():
    with pytest.raises(InputError) as error:
        require_normal_names(
            [("a.wav", ["broken"])], "leave it out", "recording", "it is a reference"
        )
    assert str(error.value) == (
        "a.wav: the name or folder of this recording contains 'broken', but it is a "
        "reference: leave it out"
    )
