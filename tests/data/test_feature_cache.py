"""Cached log-mels equal computed ones, whatever happens to the files."""

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from support.logs import quiet_log
from support.packing import pack_machines
from support.recorded import write_machine

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data import feature_cache
from gammavae_jax.data.clips import clip_spectrogram, load_clips
from gammavae_jax.data.feature_cache import FeatureCache
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.machines import find_clips
from gammavae_jax.errors import InputError

CONFIG = FeatureConfig()
BANK = mel_filterbank(CONFIG)


@pytest.fixture
def root(tmp_path):
    """Return a machine with three training clips of different lengths."""
    write_machine(tmp_path / "data/fan", train=(4000, 6000, 5000), test=(4000,))
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def computed(monkeypatch):
    """Return the paths of the clips computed so far."""
    paths = []

    def counted(path, *rest):
        paths.append(path)
        return clip_spectrogram(path, *rest)

    monkeypatch.setattr("gammavae_jax.data.clips.clip_spectrogram", counted)
    return paths


def files_of(root):
    (files,) = find_clips(root, "fan")
    return files.train


def load(root, folder, config=CONFIG, **options):
    log = quiet_log()
    cache = FeatureCache(folder, log)
    bank = mel_filterbank(config)
    return cache.load_clips(files_of(root), bank, config, **options), log.notes


def assert_right(clips, root, config=CONFIG):
    bank = mel_filterbank(config)
    expected = load_clips(files_of(root), bank, config)
    assert clips.files == expected.files
    for log_mel, other in zip(clips.log_mels, expected.log_mels, strict=True):
        assert log_mel.dtype == np.float32
        np.testing.assert_array_equal(log_mel, other)


def the_file(folder, suffix):
    (path,) = folder.glob(f"*.{suffix}")
    return path


def test_cached_log_mels_equal_computed_ones_and_are_memory_mapped(
    root, folder, computed
):
    first, notes = load(root, folder)
    assert len(computed) == 3
    again, more_notes = load(root, folder)
    assert len(computed) == 3
    assert notes == more_notes == []
    assert_right(first, root)
    assert_right(again, root)
    for log_mel in again.log_mels:
        base = log_mel
        while base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert base is not None
        assert not log_mel.flags.writeable
    steps = []
    load(root, folder, on_clip=lambda: steps.append(1))
    assert len(steps) == 3


def change_sound(root):
    path = files_of(root)[1].path
    samples, rate = soundfile.read(path)
    samples[100] += 0.01
    soundfile.write(path, samples, rate)


def rename(root):
    path = files_of(root)[2].path
    path.rename(path.with_name("section_00_source_train_normal_0007.wav"))


def remove(root):
    files_of(root)[0].path.unlink()


@pytest.mark.parametrize("change", [change_sound, rename, remove])
def test_changed_recordings_are_computed_again(root, folder, computed, change):
    load(root, folder)
    change(root)
    n_before = len(computed)
    clips, notes = load(root, folder)
    assert len(computed) > n_before
    assert notes == []
    assert_right(clips, root)


@pytest.mark.parametrize(
    "other", [{"power": 1.0}, {"hop_length": 256}, {"n_mels": 64}, {"n_context": 3}]
)
def test_changed_settings_are_computed_again(root, folder, computed, other):
    load(root, folder)
    config = replace(CONFIG, **other)
    clips, _ = load(root, folder, config)
    assert len(computed) == 6
    assert_right(clips, root, config)


def test_the_levels_that_a_reference_channel_explains_are_cached(
    tmp_path, folder, computed
):
    write_machine(tmp_path / "two/fan", train=[(5000, 2), (4000, 2)], test=[(4000, 2)])
    root = tmp_path / "two"
    configs = [
        CONFIG,
        replace(CONFIG, reference_channel=1),
        replace(CONFIG, channel=1, reference_channel=0),
    ]
    first = [load(root, folder, config)[0] for config in configs]
    assert len(computed) == 6
    again = [load(root, folder, config)[0] for config in configs]
    assert len(computed) == 6
    for config, before, after in zip(configs, first, again, strict=True):
        assert_right(after, root, config)
        assert after.explained == before.explained
        assert len(after.explained) == (0 if config == CONFIG else 2)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(first[0].log_mels[0], first[1].log_mels[0])


def test_entries_of_another_version_of_the_features_are_ignored(
    root, folder, computed, monkeypatch
):
    load(root, folder)
    monkeypatch.setattr(feature_cache, "FEATURES_VERSION", -1)
    load(root, folder)
    assert len(computed) == 6


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def swap_lengths(path):
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "frames": about["frames"][::-1]}))


DAMAGES = {
    "a truncated array": ("npy", lambda p: os.truncate(p, p.stat().st_size // 2)),
    "an empty array": ("npy", lambda p: p.write_bytes(b"")),
    "a flipped bit": ("npy", flip_a_bit),
    "no array": ("npy", lambda p: p.unlink()),
    "an array of objects": ("npy", lambda p: np.save(p, np.array([{}], object))),
    "swapped lengths": ("json", swap_lengths),
    "wrong types": ("json", lambda p: p.write_text('{"array": [1], "frames": "x"}')),
    "half a description": ("json", lambda p: p.write_text('{"arr')),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_detected_reported_and_repaired(root, folder, computed, damage):
    load(root, folder)
    suffix, change = DAMAGES[damage]
    change(the_file(folder, suffix))
    clips, notes = load(root, folder)
    assert_right(clips, root)
    assert len(notes) == 1
    assert "are corrupt: recomputing them" in notes[0]
    n_before = len(computed)
    repaired, notes = load(root, folder)
    assert len(computed) == n_before
    assert notes == []
    assert_right(repaired, root)


def test_simultaneous_writers_leave_one_complete_array(root, folder):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: load(root, folder), range(8)))
    for loaded, notes in results:
        assert notes == []
        assert_right(loaded, root)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npy"]


def test_a_full_disk_only_disables_the_cache(root, folder, monkeypatch):
    def full(file, array):
        file.write(bytes(100))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    clips, notes = load(root, folder)
    assert_right(clips, root)
    assert len(notes) == 1
    assert "No space left on device" in notes[0]
    assert list(folder.iterdir()) == []


def test_a_recording_that_is_replaced_meanwhile_is_not_cached(
    root, folder, monkeypatch
):
    def replace_then_load(*arguments):
        change_sound(root)
        return load_clips(*arguments)

    monkeypatch.setattr(feature_cache, "load_clips", replace_then_load)
    load(root, folder)
    monkeypatch.undo()
    assert list(folder.iterdir()) == []


def test_a_machine_with_a_bad_recording_is_not_cached(root, folder):
    files_of(root)[1].path.write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"_0001\.wav: .*cannot be read as audio"):
        load(root, folder)
    bad = []
    clips, _ = load(root, folder, on_bad_file=bad.append)
    assert len(bad) == 1
    assert len(clips.files) == 2
    assert list(folder.iterdir()) == []


def test_a_pipe_among_the_recordings_is_refused_without_waiting(root, folder):
    path = files_of(root)[1].path
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"_0001\.wav: not a regular file"):
        load(root, folder)


def test_an_unusable_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose another folder for --feature-cache"):
        FeatureCache(tmp_path / "file", quiet_log())


def test_only_unfinished_files_of_killed_runs_are_removed(root, folder):
    load(root, folder)
    abandoned = folder / f".{'0' * 40}.npy-{'0' * 32}"
    recent = folder / f".{'1' * 40}.npy-{'0' * 32}"
    unrelated = folder / ".bashrc"
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in (abandoned, unrelated):
        path.touch()
        os.utime(path, (two_days_ago, two_days_ago))
    recent.touch()
    before = set(folder.iterdir())
    load(root, folder)
    assert set(folder.iterdir()) == before - {abandoned}


def test_archived_recordings_are_identified_by_their_bytes(
    root, folder, tmp_path, computed
):
    packed = pack_machines(root, tmp_path / "packed")
    first, _ = load(packed, folder)
    n_before = len(computed)
    again, _ = load(packed, folder)
    assert len(computed) == n_before
    for log_mel, other in zip(first.log_mels, again.log_mels, strict=True):
        np.testing.assert_array_equal(log_mel, other)
    # The same bytes under the same names have the same key in a folder.
    load(root, folder)
    assert len(computed) == n_before
