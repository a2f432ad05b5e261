"""A user's recordings are resampled, cut into clips, and divided among folds."""

from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from rich.console import Console
from support.recorded import fill, noise

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio.files import resampled
from gammavae_jax.data.features import log_mel, mel_filterbank
from gammavae_jax.data.recordings.clips import (
    cut,
    load_all,
    load_recordings,
    parts_held_together,
)
from gammavae_jax.data.recordings.sources import find_recordings
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log

FEATURES = FeatureConfig()
BANK = mel_filterbank(FEATURES)


@pytest.mark.parametrize(
    ("names", "given", "word"),
    [
        (["fan/id_00/normal/0.wav", "fan/id_00/abnormal/0.wav"], "fan", "abnormal"),
        (["Faulty/0.wav"], "Faulty/.", "faulty"),
        (["rec/pump_broken.wav"], "rec", "broken"),
        (["anomaly/0.wav"], "anomaly/0.wav", "anomaly"),
        (["broken hill/pump/no_anomaly/0.wav"], "broken hill/pump", None),
        (["anomaly_detection/normal/0.wav"], "anomaly_detection", None),
    ],
)
def test_recordings_named_not_normal_are_refused_for_training_only(
    tmp_path, names, given, word
):
    fill(tmp_path, *names)
    for name in names:
        soundfile.write(tmp_path / name, noise(1), 16000)
    recordings = {
        "pump": tmp_path / given if "." not in given else f"{tmp_path}/{given}"
    }
    options = (None, BANK, FEATURES, None, Log(Console(quiet=True)))
    assert len(load_all(recordings, *options)["pump"].names) == len(names)
    if word is None:
        load_all(recordings, *options, for_training=True)
        return
    with pytest.raises(InputError, match=f"contains {word!r}, but models learn"):
        load_all(recordings, *options, for_training=True)


def test_a_short_recording_is_a_single_clip(tmp_path):
    soundfile.write(tmp_path / "b.wav", noise(1), 16000)
    (source,) = find_recordings(tmp_path)
    loaded = load_recordings([source], BANK, FEATURES, 10.0)
    expected = log_mel(source.read(0).waveform, BANK, FEATURES)
    np.testing.assert_array_equal(loaded.clips.log_mels[0], expected)
    assert loaded.clips.formats == {(16000, 1)}


def test_long_recordings_are_cut_into_equal_clips_without_loss():
    sources = find_recordings([noise(2), noise(7.6), noise(1)], 16000)
    loaded = load_recordings(sources, BANK, FEATURES, 2.0)
    assert loaded.recording.tolist() == [0, 1, 1, 1, 1, 2]
    lengths = {len(m) for m in loaded.clips.log_mels[1:5]}
    assert max(lengths) - min(lengths) <= 1
    pieces = cut(noise(7.6), 32000)
    np.testing.assert_array_equal(np.concatenate(pieces), noise(7.6))


def test_other_sample_rates_are_resampled_like_librosa_does():
    waveform = noise(1, 44100)
    loaded = load_recordings(find_recordings(waveform, 44100), BANK, FEATURES, 10.0)
    assert loaded.clips.formats == {(44100, 0)}
    like_librosa = partial(librosa.resample, res_type="soxr_hq")
    expected = like_librosa(waveform, orig_sr=44100, target_sr=16000)
    actual = resampled(waveform, 44100, 16000)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    expected = log_mel(actual, BANK, FEATURES)
    np.testing.assert_array_equal(loaded.clips.log_mels[0], expected)


def test_a_recording_too_short_for_a_window_is_refused_by_name():
    sources = find_recordings(noise(1000 / 16000), 16000)
    with pytest.raises(
        InputError,
        match=r"array 0: too short: 1000 samples \(0.0625 s\), but one window needs",
    ):
        load_recordings(sources, BANK, FEATURES, 1.0)


IN_A_ROW = np.repeat(np.arange(6), [1, 4, 2, 1, 1, 3])
MIXED = [7, 2, 7, 7, 2, 7, 2, 2]


@pytest.mark.parametrize(
    ("recording", "n_folds", "expected"),
    [
        (IN_A_ROW, 5, IN_A_ROW),
        ([0] * 20, 5, np.repeat(np.arange(5), 4)),
        ([0, 1, 1, 1, 1], 5, [0, 1, 1, 2, 3]),
        (MIXED, 2, [1, 0, 1, 1, 0, 1, 0, 0]),
        (MIXED, 4, [2, 0, 2, 3, 0, 3, 1, 1]),
    ],
)
def test_recordings_are_divided_into_parts_only_if_there_are_fewer_than_folds(
    recording, n_folds, expected
):
    parts = parts_held_together(np.array(recording), n_folds)
    np.testing.assert_array_equal(parts, expected)


def test_bad_recordings_are_skipped_and_reported_if_requested(tmp_path):
    for name in ("a.wav", "c.wav"):
        soundfile.write(tmp_path / name, noise(1), 16000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    errors = []
    sources = find_recordings([tmp_path, noise(0.01)], 16000)
    with pytest.raises(InputError, match=r"bad\.wav"):
        load_recordings(sources, BANK, FEATURES, None)
    loaded = load_recordings(sources, BANK, FEATURES, None, on_bad_file=errors.append)
    assert [Path(name).name for name in loaded.names] == ["a.wav", "c.wav"]
    assert loaded.recording.tolist() == [0, 1]
    assert [str(error).split(":")[0][-7:] for error in errors] == ["bad.wav", "array 1"]
    with pytest.raises(InputError, match="none of the recordings"):
        load_recordings(sources[-1:], BANK, FEATURES, None, on_bad_file=errors.append)


def test_recordings_stay_whole_without_a_clip_length():
    loaded = load_recordings(find_recordings(noise(30), 16000), BANK, FEATURES, None)
    assert loaded.recording.tolist() == [0]
