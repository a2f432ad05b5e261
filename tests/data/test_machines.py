"""Machine folders: which recordings are found, and what is refused."""

import re

import pytest
from support.recorded import fill

from gammavae_jax.data.machines import (
    find_clips,
    find_machines,
    is_supplemental,
    machine_root,
)
from gammavae_jax.errors import InputError

TRAIN = "section_00_source_train_normal_0000.wav"
TEST = "section_00_source_test_anomaly_0000.wav"


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path, f"fan/train/{TRAIN}", f"fan/test/{TEST}")


def names(files):
    return [file.path.name for file in files]


def test_a_machine_is_a_folder_with_a_train_or_test_folder(root):
    fill(root, f"ToyCar/train/{TRAIN}", f"pump/test/{TEST}", "notes/a.txt", "train.csv")
    assert find_machines(root) == ["ToyCar", "fan", "pump"]


def test_the_raw_folder_of_a_data_root_is_searched(tmp_path):
    fill(tmp_path, f"raw/fan/train/{TRAIN}", f"raw/fan/test/{TEST}")
    fill(tmp_path, f"features/train/{TRAIN}")
    assert machine_root(tmp_path) == tmp_path / "raw"
    assert find_machines(tmp_path) == find_machines(tmp_path / "raw") == ["fan"]
    (files,) = find_clips(tmp_path, "fan")
    assert files.train[0].path == tmp_path / "raw/fan/train" / TRAIN


def test_a_file_named_raw_is_ignored(root):
    fill(root, "raw")
    assert find_machines(root) == ["fan"]


def test_clips_in_subfolders_and_linked_folders_belong_to_the_split(root):
    fill(root, "disk/section_00_0001.wav", "fan/test/friday/section_00_0002.wave")
    fill(root, "fan/train/a/section_00_0003.wav", "fan/train/b/section_00_0003.wav")
    (root / "fan/train/linked").symlink_to(root / "disk")
    fill(root, "fan/supplemental/old/section_00_0004.wav")
    (files,) = find_clips(root, "fan")
    numbers = sorted(name[-8:] for name in names(files.train))
    assert numbers == ["0000.wav", "0001.wav", "0003.wav", "0003.wav"]
    assert names(files.test) == ["section_00_0002.wave", TEST]
    assert [is_supplemental(file) for file in files.supplemental] == [True]
    fill(root, "fan/test/monday/section_00_0002.wav")
    with pytest.raises(
        InputError, match="have the same base name: rename or remove one"
    ):
        find_clips(root, "fan")


def test_a_machine_may_be_named_in_any_unicode_form(root):
    fill(root, f"Lu\u0308fter/train/{TRAIN}", f"Lu\u0308fter/test/{TEST}")
    assert find_machines(root) == ["L\u00fcfter", "fan"]
    for name in ("Lu\u0308fter", "L\u00fcfter"):
        (files,) = find_clips(root, name)
        assert files.machine == "L\u00fcfter"
    fill(root, f"L\u00fcfter/train/{TRAIN}", f"L\u00fcfter/test/{TEST}")
    with pytest.raises(InputError, match="have equivalent Unicode names: merge them"):
        find_clips(root, "L\u00fcfter")


def test_system_folders_are_not_machines(root):
    fill(
        root, f"@eaDir/train/{TRAIN}", f"#recycle/train/{TRAIN}", f".old/train/{TRAIN}"
    )
    assert find_machines(root) == ["fan"]


@pytest.mark.parametrize("missing", ["train", "test"])
@pytest.mark.parametrize("exists", [True, False], ids=["empty", "absent"])
def test_a_machine_without_clips_of_a_split_is_refused(tmp_path, missing, exists):
    other = {"train": f"test/{TEST}", "test": f"train/{TRAIN}"}[missing]
    fill(tmp_path, f"fan/{other}")
    if exists:
        fill(tmp_path, f"fan/{missing}/readme.txt")
    with pytest.raises(InputError, match=rf"no recordings in '.*fan/{missing}'"):
        find_clips(tmp_path, "fan")


@pytest.mark.parametrize("folder", ["test", "target_test", "test_rename", "train"])
def test_a_section_in_only_one_of_the_folders_is_refused(tmp_path, folder):
    """Additional training data, published before the evaluation set, has such gaps."""
    missing, other = ("train", "test") if folder == "train" else ("test", "train")
    clips = (f"{other}/section_0{i}_0000.wav" for i in range(2))
    fill(tmp_path / "fan", *clips, f"{folder}/section_00_0001.wav")
    message = rf"section 01 of fan has no {missing} clips: add some to '.*fan/{folder}'"
    with pytest.raises(InputError, match=message):
        find_clips(tmp_path, "fan")


def test_an_unknown_machine_is_refused_with_the_available_ones(root):
    fill(root, f"ToyCar/train/{TRAIN}")
    message = r"'fam' in .*: did you mean 'fan'\? Available: ToyCar"
    with pytest.raises(InputError, match=message):
        find_clips(root, "fam")


@pytest.mark.parametrize("name", ["fan/", "../data/fan", ".", ""])
def test_a_path_is_not_accepted_as_a_machine_name(tmp_path, name):
    """The name becomes part of file names."""
    root = fill(tmp_path / "data", f"fan/train/{TRAIN}", f"fan/test/{TEST}")
    fill(root, f"train/{TRAIN}", f"test/{TEST}")
    with pytest.raises(InputError, match="no machine"):
        find_clips(root, name)


@pytest.mark.parametrize("name", ["nowhere", "fan/train/" + TRAIN])
def test_a_data_root_that_is_not_a_folder_is_refused(root, name):
    for find in (find_machines, lambda root: find_clips(root, "fan")):
        with pytest.raises(InputError, match=r"is not a folder: check the path"):
            find(root / name)


def test_a_mistyped_data_root_is_refused_with_the_similar_name(root):
    message = f"is not a folder: did you mean '{root}'"
    with pytest.raises(InputError, match=re.escape(message)):
        find_machines(root.with_name(root.name + "s"))


def test_a_data_root_without_machines_is_refused(root):
    message = r"no machine found in '.*fan': it must contain"
    with pytest.raises(InputError, match=message):
        find_machines(root / "fan")


@pytest.mark.parametrize("unused", ["test_rename", "test"])
def test_an_empty_folder_is_ignored(tmp_path, unused):
    """The baseline's tools create both folders before copying anything."""
    other = {"test_rename": "test", "test": "source_test"}[unused]
    fill(tmp_path / "fan", "train/section_00_0000.wav", f"{other}/section_00_0001.wav")
    (tmp_path / "fan" / unused).mkdir()
    (files,) = find_clips(tmp_path, "fan")
    assert [clip.path.parent.name for clip in files.test] == [other]


@pytest.mark.parametrize("folder", ["source_test", "test_rename"])
def test_a_machine_may_have_only_this_folder(tmp_path, folder):
    fill(tmp_path / "fan", f"{folder}/section_00_0001.wav")
    assert find_machines(tmp_path) == ["fan"]
    (files,) = find_clips(tmp_path, "fan", ["test"])
    assert (len(files.train), len(files.test)) == (0, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("source_test/section_00_0001.wav", "target_test/section_00_0001.wav"),
        ("test/section_00_0001.flac", "test/section_00_0001.wav"),
        ("train/section_00_0001.flac", "train/section_00_0001.wav"),
    ],
)
def test_two_clips_with_the_same_name_are_refused(tmp_path, one, other):
    clips = ("train/section_00_0000.wav", "test/section_00_0000.wav")
    fill(tmp_path / "fan", *clips, one, other)
    message = rf"{one}' and '.*{other}' have the same base name"
    with pytest.raises(InputError, match=message):
        find_clips(tmp_path, "fan")
