"""What a user gives, cut to clips."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio import resampled
from gammavae_jax.data.features import log_mel, mel_filterbank
from gammavae_jax.data.recording_clips import cut, load_recordings, parts_held_together
from gammavae_jax.data.recordings import find_recordings, of_known_machines
from gammavae_jax.errors import InputError

FEATURES = FeatureConfig()
BANK = mel_filterbank(FEATURES)


def noise(seconds, rate=16000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (round(seconds * rate),)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Three recordings, one in a subfolder, and what is none."""
    (tmp_path / "day2").mkdir()
    for name in ("b.wav", "a.flac", "day2/c.WAV"):
        soundfile.write(tmp_path / name, noise(1), 16000, format=name[-4:].strip("."))
    (tmp_path / ".hidden.wav").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def test_a_folder_is_its_recordings_and_those_of_its_subfolders_by_name(folder):
    names = [source.name for source in find_recordings(folder)]
    assert names == ["a.flac", "b.wav", str(Path("day2/c.WAV"))]


def test_paths_and_arrays_may_be_mixed(folder):
    found = find_recordings([str(folder / "b.wav"), noise(1), folder], 8000)
    assert [s.name for s in found][1:3] == ["array 1", str(Path(folder.name, "a.flac"))]
    assert len(found) == 5
    assert found[1].read(0).sample_rate == 8000


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_whole_numbers_are_scaled_as_those_of_a_file_are(dtype, tmp_path):
    samples = np.multiply(noise(1), np.iinfo(dtype).max).astype(dtype)
    path = tmp_path / "x.wav"
    kind = "PCM_16" if dtype == np.int16 else "PCM_32"
    soundfile.write(path, samples, 16000, kind)
    (of_array,), (of_file,) = find_recordings(samples, 16000), find_recordings(path)
    np.testing.assert_allclose(
        of_array.read(0).waveform, of_file.read(0).waveform, atol=1e-7
    )


@pytest.mark.parametrize(
    ("recordings", "sample_rate", "said"),
    [
        ([], None, "the list is empty"),
        (noise(1), None, "give sample_rate"),
        (noise(1), -1, "sample_rate is -1"),
        (np.zeros((2, 16000)), 16000, r"\(2, 16000\)"),
        (np.array(["a"]), 16000, "one-dimensional arrays"),
        (np.full(16000, np.nan), 16000, "sample 0 is nan"),
        (3, None, "type int"),
        ("no such folder", None, "No such file"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(recordings, sample_rate, said):
    with pytest.raises(InputError, match=said) as error:
        find_recordings(recordings, sample_rate)[0].read(0)
    assert "\n" not in str(error.value)


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold"):
        find_recordings(tmp_path)


def test_a_short_recording_is_one_clip_equal_to_the_run_s(folder):
    (found,) = [s for s in find_recordings(folder) if s.name == "b.wav"]
    loaded = load_recordings([found], BANK, FEATURES, 10.0)
    expected = log_mel(found.read(0).waveform, BANK, FEATURES)
    np.testing.assert_array_equal(loaded.clips.log_mels[0], expected)
    assert not loaded.resampled_from


def test_long_recordings_are_cut_into_clips_of_equal_length_and_none_is_lost():
    loaded = load_recordings(
        find_recordings([noise(2), noise(7.6), noise(1)], 16000), BANK, FEATURES, 2.0
    )
    assert loaded.recording.tolist() == [0, 1, 1, 1, 1, 2]
    lengths = {len(m) for m in loaded.clips.log_mels[1:5]}
    assert max(lengths) - min(lengths) <= 1
    pieces = cut(noise(7.6), 32000)
    np.testing.assert_array_equal(np.concatenate(pieces), noise(7.6))


def test_another_rate_is_resampled_as_librosa_does():
    waveform = noise(1, 44100)
    loaded = load_recordings(find_recordings(waveform, 44100), BANK, FEATURES, 10.0)
    assert loaded.resampled_from == {44100}
    expected = librosa.resample(
        waveform, orig_sr=44100, target_sr=16000, res_type="soxr_hq"
    )
    np.testing.assert_allclose(resampled(waveform, 44100, 16000), expected, atol=1e-6)
    np.testing.assert_array_equal(
        loaded.clips.log_mels[0],
        log_mel(resampled(waveform, 44100, 16000), BANK, FEATURES),
    )


def test_a_recording_too_short_for_a_window_is_refused_by_name():
    with pytest.raises(InputError, match="array 0: 1000 samples"):
        load_recordings(
            find_recordings(noise(1000 / 16000), 16000), BANK, FEATURES, 1.0
        )


def test_clips_of_a_recording_are_held_together():
    recording = np.repeat(np.arange(6), [1, 4, 2, 1, 1, 3])
    np.testing.assert_array_equal(parts_held_together(recording, 5), recording)


def test_with_fewer_recordings_than_folds_successive_clips_are_held_together():
    parts = parts_held_together(np.zeros(20, int), 5)
    np.testing.assert_array_equal(parts, np.repeat(np.arange(5), 4))
    two = parts_held_together(np.array([0, 1, 1, 1, 1]), 5)
    assert two.tolist() == [0, 1, 1, 2, 3]


def test_bad_recordings_are_left_out_by_name_if_that_is_wanted(folder):
    (folder / "bad.wav").write_bytes(b"RIFF")
    said = []
    sources = find_recordings([folder, noise(0.01)], 16000)
    with pytest.raises(InputError, match=r"bad\.wav"):
        load_recordings(sources, BANK, FEATURES, None)
    loaded = load_recordings(sources, BANK, FEATURES, None, on_bad_file=said.append)
    assert [Path(name).name for name in loaded.names] == ["a.flac", "b.wav", "c.WAV"]
    assert loaded.recording.tolist() == [0, 1, 2]
    assert [str(error).split(":")[0][-7:] for error in said] == ["bad.wav", "array 1"]
    with pytest.raises(InputError, match="none of the recordings"):
        load_recordings(sources[-1:], BANK, FEATURES, None, on_bad_file=said.append)


def test_without_a_length_recordings_stay_whole():
    loaded = load_recordings(find_recordings(noise(30), 16000), BANK, FEATURES, None)
    assert loaded.recording.tolist() == [0]


def test_machines_are_the_known_ones_or_the_only_one():
    assert of_known_machines("x", None, ("pump",)) == {"pump": "x"}
    assert of_known_machines({"a": "x"}, None, ("a", "b")) == {"a": "x"}
    for given, machine, said in (
        ("x", None, "a, b: say whose"),
        ("x", "c", "unknown machine 'c'"),
        ({"a": "x"}, "a", "given beside a dict"),
        ({}, None, "the dict is empty"),
    ):
        with pytest.raises(InputError, match=said):
            of_known_machines(given, machine, ("a", "b"))
