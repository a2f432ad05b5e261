"""The summary of how a machine's training clips sound."""

from pathlib import Path

import numpy as np
import pytest

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio.samples import Signal
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.usual_sound import part_spectra, swing_of, usual_sound

CONFIG = FeatureConfig(n_mels=20)
N_FRAMES, PART = 64, 16  # two seconds; half a second


def clips(levels, recording=None, signals=()):
    """Return clips whose bands all have the same constant level."""
    files = (clip_file(Path("a.wav")),) * len(levels)
    mels = tuple(np.full((N_FRAMES, 20), level, np.float32) for level in levels)
    return Clips(files, mels, recording, signals=signals)


def test_parts_last_half_a_second_and_cover_the_clip():
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(N_FRAMES, 20)).astype(np.float32)
    expected = [mel[k : k + PART].mean(0) for k in range(0, N_FRAMES, PART)]
    np.testing.assert_allclose(part_spectra(mel, CONFIG), expected, atol=1e-6)
    for n_frames in (1, 5, 16, 47, 309):
        parts = part_spectra(np.ones((n_frames, 20), np.float32), CONFIG)
        assert len(parts) == max(1, round(n_frames / PART))
        np.testing.assert_array_equal(parts, 1)


def test_ranges_contain_the_training_clips_and_are_wider_for_few_recordings():
    levels = np.linspace(-50, -30, 11)
    sound = usual_sound(clips(levels), CONFIG)
    assert sound.spectrum == (-40.0,) * 20
    assert (sound.quietest, sound.quietest_part) == (-10, -10)
    wider = 5 / 11 * 20  # of a range of 20 dB
    assert sound.loudest == pytest.approx(10 + wider, abs=0.01)
    assert sound.softest == pytest.approx(-10 - wider, abs=0.01)
    assert sound.lowest == (round(-10 * (1 + 5 / 11), 1),) * 20
    # Clips of one recording count as one.
    one = usual_sound(clips(levels, np.zeros(11, int)), CONFIG)
    assert one.loudest == pytest.approx(10 + 5 * 20, abs=0.01)


def test_the_quietest_part_may_be_in_any_clip():
    mel = np.full((N_FRAMES, 20), -40, np.float32)
    with_pause = mel.copy()
    with_pause[PART : 2 * PART] -= 30
    files = (clip_file(Path("a.wav")),) * 3
    sound = usual_sound(Clips(files, (mel, with_pause, mel)), CONFIG)
    # The median over the parts ignores the pause.
    assert (sound.quietest, sound.quietest_part) == (0, -30)


def test_a_gain_changes_neither_the_spread_nor_the_swing():
    rng = np.random.default_rng(0)
    mels = [rng.normal(-40, 3, size=(N_FRAMES, 20)).astype(np.float32) for _ in "abc"]
    files = (clip_file(Path("a.wav")),) * 3
    sound, louder = (
        usual_sound(Clips(files, tuple(m + gain for m in mels)), CONFIG)
        for gain in (0, 12)
    )
    assert louder.spread == pytest.approx(sound.spread, abs=0.02)
    assert louder.swing == pytest.approx(sound.swing, abs=0.02)
    assert swing_of(mels[0]) == pytest.approx(3, rel=0.1)


def test_shares_of_samples_are_the_largest_ones_if_known():
    signals = (Signal(0.1, 0.02), Signal(0.3, 0.0))
    sound = usual_sound(clips([-40, -39], signals=signals), CONFIG)
    assert (sound.silent, sound.clipped) == (0.3, 0.02)
    unknown = usual_sound(clips([-40, -39]), CONFIG)
    assert (unknown.silent, unknown.clipped) == (0.99, 1)
