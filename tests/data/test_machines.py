from pathlib import Path

import pytest

from gammavae_jax.data.machines import find_clips, find_machines, machine_root
from gammavae_jax.errors import InputError

TRAIN = "section_00_source_train_normal_0000.wav"
TEST = "section_00_source_test_anomaly_0000.wav"


def fill(root: Path, *paths: str) -> Path:
    """Empty files below a folder: nothing here opens a recording."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path, f"fan/train/{TRAIN}", f"fan/test/{TEST}")


def names(files):
    return [file.path.name for file in files]


def test_machines_are_the_folders_that_hold_train_or_test(root):
    fill(root, f"ToyCar/train/{TRAIN}", f"pump/test/{TEST}", "notes/a.txt", "train.csv")
    assert find_machines(root) == ["ToyCar", "fan", "pump"]


def test_a_dataset_root_is_read_through_its_raw_folder(tmp_path):
    fill(tmp_path, f"raw/fan/train/{TRAIN}", f"raw/fan/test/{TEST}")
    fill(tmp_path, f"features/train/{TRAIN}")
    assert machine_root(tmp_path) == tmp_path / "raw"
    assert find_machines(tmp_path) == find_machines(tmp_path / "raw") == ["fan"]
    (found,) = find_clips(tmp_path, "fan")
    assert found.train[0].path == tmp_path / "raw/fan/train" / TRAIN


def test_a_file_called_raw_is_no_dataset_folder(root):
    fill(root, "raw")
    assert find_machines(root) == ["fan"]


def test_each_section_is_a_machine_of_its_own(root):
    fill(root, "fan/train/section_02_0001.wav", "fan/train/section_02_0000.wav")
    fill(root, "fan/test/section_02_0000.wav")
    first, second = find_clips(root, "fan")
    assert (first.name, second.name) == ("fan_section_00", "fan_section_02")
    assert names(first.train) == [TRAIN]
    assert names(second.train) == ["section_02_0000.wav", "section_02_0001.wav"]


def test_clips_know_what_their_names_say(root):
    (found,) = find_clips(root, "fan")
    assert found.test[0].name.label == "anomaly"
    assert found.train[0].name.domain == "source"


def test_flac_and_upper_case_suffixes_are_recordings_and_nothing_else_is(root):
    recordings = ["section_00_0001.flac", "section_00_0002.FLAC", "section_00_0003.WAV"]
    others = ["section_00_0004.mp3", "section_00.csv", ".wav", "wav"]
    fill(root, *(f"fan/train/{name}" for name in recordings + others))
    (found,) = find_clips(root, "fan")
    assert names(found.train) == [*recordings, TRAIN]


@pytest.mark.parametrize("missing", ["train", "test"])
@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "absent"])
def test_a_machine_without_one_of_its_folders_is_refused(tmp_path, missing, is_there):
    other = {"train": f"test/{TEST}", "test": f"train/{TRAIN}"}[missing]
    fill(tmp_path, f"fan/{other}")
    if is_there:
        fill(tmp_path, f"fan/{missing}/readme.txt")
    with pytest.raises(InputError, match=rf"no recordings in '.*fan/{missing}'"):
        find_clips(tmp_path, "fan")


@pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
def test_a_section_in_one_of_the_folders_only_is_refused(root, there, missing):
    fill(root, f"fan/{there}/section_01_0000.wav")
    message = rf"section 01 of fan has no {missing} clips: .*fan/{missing}'"
    with pytest.raises(InputError, match=message):
        find_clips(root, "fan")


def test_an_unknown_machine_is_refused_with_the_known_ones(root):
    fill(root, f"ToyCar/train/{TRAIN}")
    with pytest.raises(
        InputError, match=r"'fam' in .*: did you mean 'fan'\? There are ToyCar"
    ):
        find_clips(root, "fam")


@pytest.mark.parametrize("name", ["fan/", "../data/fan", ".", ""])
def test_a_machine_is_named_and_not_a_path(tmp_path, name):
    """The name becomes a part of file names."""
    root = fill(tmp_path / "data", f"fan/train/{TRAIN}", f"fan/test/{TEST}")
    fill(root, f"train/{TRAIN}", f"test/{TEST}")
    with pytest.raises(InputError, match="no machine"):
        find_clips(root, name)


@pytest.mark.parametrize("name", ["nowhere", "fan/train/" + TRAIN])
def test_a_data_root_that_is_no_folder_is_refused(root, name):
    with pytest.raises(InputError, match=r"is not a folder: check the path"):
        find_machines(root / name)
    with pytest.raises(InputError, match=r"is not a folder: check the path"):
        find_clips(root / name, "fan")


def test_a_data_root_without_machines_is_refused(root):
    with pytest.raises(InputError, match=r"no machine found in '.*fan': it must hold"):
        find_machines(root / "fan")
