"""Finding and loading the recordings of a run."""

import re
import shutil

import pytest
from support.logs import quiet_log, refusal
from support.recorded import write_machine

from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.loading import Source, find_all, load_split
from gammavae_jax.errors import InputError
from gammavae_jax.presets import preset

CONFIG = preset("default")


@pytest.fixture
def root(tmp_path):
    """Return two machines, each with three training clips and one test clip."""
    for machine in ("fan", "pump"):
        write_machine(tmp_path / machine, train=[4000] * 3, test=[4000])
    return tmp_path


def load_files(files, skip_bad_files=False):
    log = quiet_log()
    bank = mel_filterbank(CONFIG.features)
    return load_split(files, "train", bank, CONFIG, log, skip_bad_files), log


def load(root, skip_bad_files=False):
    return load_files(find_all(Source(root, ("fan", "pump"))), skip_bad_files)


def spoil(root, *names):
    for name in names:
        path = next(root.glob(f"{name.split('/')[0]}/train/*_{name[-4:]}.wav"))
        path.write_bytes(b"no sound")


def test_every_machine_is_loaded(root):
    loaded, _ = load(root)
    assert [(name, len(clips.files)) for name, clips in loaded] == [
        ("fan_section_00", 3),
        ("pump_section_00", 3),
    ]


def test_recordings_that_vanish_after_the_search_are_named(root):
    files = find_all(Source(root, ("fan", "pump")))
    gone = files[0].train[1].path
    gone.unlink()
    with pytest.raises(InputError, match=gone.name):
        load_files(files)
    loaded, log = load_files(files, skip_bad_files=True)
    assert [len(clips.files) for _, clips in loaded] == [2, 3]
    assert gone.name in log.notes[-1]
    shutil.rmtree(root)
    with pytest.raises(InputError, match=r"\(6 training recordings cannot be used"):
        load_files(files)
    with pytest.raises(InputError, match=root.name):
        find_all(Source(root, ("fan",)))


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["fan/0001"], None),
        (["fan/0001", "pump/0000"], 2),
        (["fan/0000", "fan/0001", "fan/0002", "pump/0002"], 4),
    ],
)
def test_several_bad_files_are_counted_before_the_run_ends(root, names, count):
    spoil(root, *names)
    text = refusal(load, root)
    assert re.search(rf"/fan/train/section_00_.*_{names[0][-4:]}\.wav: ", text)
    several = f" ({count} training recordings cannot be used; --skip-bad-files"
    assert several in text if count else "cannot be used" not in text


def test_bad_files_are_skipped_and_named_if_requested(root):
    spoil(root, "fan/0001", "pump/0000")
    loaded, log = load(root, skip_bad_files=True)
    assert [len(clips.files) for _, clips in loaded] == [2, 2]
    assert sum(note.startswith("skipped: ") for note in log.notes) == 2


def test_a_machine_with_only_bad_files_cannot_be_skipped(root):
    spoil(root, "fan/0000", "fan/0001", "fan/0002")
    with pytest.raises(InputError, match="no usable recordings in"):
        load(root, skip_bad_files=True)


@pytest.mark.parametrize(
    ("n_moved", "message"),
    [(2, "has only one training clip"), (3, "has only supplemental training clips")],
)
def test_supplemental_clips_cannot_replace_two_training_clips(root, n_moved, message):
    extra = root / "fan/supplemental"
    extra.mkdir()
    clips = sorted((root / "fan/train").iterdir())
    for k, clip in enumerate(clips[:n_moved]):
        shutil.move(clip, extra / f"section_00_machine_{k:04}_.wav")
    if n_moved == 3:  # a split needs a file, even an unusable one
        (root / "fan/train" / clips[0].name).write_bytes(b"no sound")
    files = find_all(Source(root, ("fan",), with_supplemental=True))
    with pytest.raises(InputError, match=f"fan_section_00 {message}"):
        load_files(files, skip_bad_files=True)


def test_a_training_clip_labelled_anomaly_is_refused(root):
    path = root / "fan" / "train" / "section_00_source_train_normal_0001.wav"
    path.rename(path.with_name("section_00_source_train_anomaly_0001.wav"))
    with pytest.raises(InputError, match=r"_anomaly_0001\.wav.*move it to the test"):
        find_all(Source(root, ("pump", "fan")))


@pytest.mark.parametrize("folder", ["abnormal", "Broken bearing/monday"])
def test_a_training_folder_that_says_not_normal_is_refused(root, folder):
    moved = root / "fan" / "train" / folder
    moved.mkdir(parents=True)
    path = root / "fan" / "train" / "section_00_source_train_normal_0001.wav"
    path.rename(moved / "01.wav")
    problem = r"01\.wav: the name or folder of this training clip contains"
    with pytest.raises(InputError, match=problem):
        find_all(Source(root, ("fan",)))
    find_all(Source(root, ("fan",)), ["test"])


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[2J", "\udcff", "\x9b2J", "a\u2028b", "a\x85b"]
)
def test_a_test_clip_name_unfit_for_score_files_is_refused_before_any_work(root, name):
    (clip,) = (root / "fan" / "test").iterdir()
    clip.rename(clip.with_name(f"section_00_{name}.wav"))
    with pytest.raises(InputError, match="cannot be written to a score"):
        load(root)


@pytest.mark.parametrize("name", ["fan\x1b", "\udcff", "a\nb", "DCASE2024T2x"])
def test_a_machine_name_unfit_for_score_files_is_refused_before_any_work(root, name):
    (root / "fan").rename(root / name)
    with pytest.raises(InputError, match="cannot be part of a score file's name"):
        find_all(Source(root, (name, "pump")))
