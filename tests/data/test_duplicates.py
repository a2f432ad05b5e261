"""Recordings that are in two sets."""

import shutil

import numpy as np
import soundfile

from gammavae_jax.data.duplicates import find_duplicates
from gammavae_jax.data.recordings import find_recordings


def noise(seed):
    return np.random.default_rng(seed).normal(0, 0.1, (8000,)).astype(np.float32)


def test_the_same_sound_is_found_whatever_its_name_and_format(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    samples = np.round(noise(0) * 32767).astype(np.int16)
    soundfile.write(first / "a.wav", samples, 16000)
    soundfile.write(first / "b.wav", noise(1), 16000)
    soundfile.write(first / "c.wav", noise(2), 16000)
    soundfile.write(second / "other.flac", samples, 16000)
    shutil.copy(first / "b.wav", second / "copy.wav")
    soundfile.write(second / "c.wav", noise(3), 16000)  # only the name is the same
    soundfile.write(second / "rate.wav", noise(2), 8000)
    (second / "empty.wav").touch()
    (first / "empty.wav").touch()
    sets = find_recordings(first), find_recordings(second)
    found = find_duplicates(*sets, 0)
    assert found == [("b.wav", "copy.wav"), ("a.wav", "other.flac")]
    assert find_duplicates(sets[0][2:3], sets[1], 0) == []
