"""The shares of silent and of clipped samples."""

import numpy as np
import pytest

from gammavae_jax.data.signals import Signal, signal_of

N = 16000
NOISE = np.random.default_rng(0).standard_normal(N).astype(np.float32)
LSB = np.random.default_rng(1).integers(-1, 2, N)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(N), np.full(N, 0.3), LSB / 32768, (LSB + 5) / 32768, LSB, [0.0], [1, -1]],
    ids=str,
)
def test_a_constant_and_noise_of_one_bit_are_silent(samples):
    assert signal_of(np.array(samples, np.float32)) == Signal(1.0, 0.0)


def test_the_silent_share_is_that_of_zeros():
    half = np.where(np.arange(N) < N / 4, 0, NOISE)
    assert signal_of(half) == Signal(0.25, 0.0)
    assert signal_of(NOISE) == Signal(0.0, 0.0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_flat_tops_are_counted_at_any_scale(scale):
    tone = np.sin(2 * np.pi * np.arange(N) / 100).astype(np.float32) * np.float32(scale)
    assert signal_of(tone).clipped == 0
    top, bottom = np.array([0.5 * scale, -0.8 * scale], np.float32)
    clipped = np.clip(tone, bottom, top)
    expected = np.mean((tone >= top) | (tone <= bottom))
    assert 0.5 < expected < 0.6
    assert signal_of(clipped).clipped == pytest.approx(expected)


def test_two_equal_samples_are_no_flat_top():
    """A peak of a sound may have two equal samples; three are clipped."""
    for n_equal, share in ((2, 0), (3, 3 / N), (4, 4 / N)):
        samples = NOISE.copy()
        samples[-n_equal:] = 9  # at the end
        assert signal_of(samples).clipped == pytest.approx(share)
        assert signal_of(-samples[::-1]).clipped == pytest.approx(share)
