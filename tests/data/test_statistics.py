"""Clip statistics agree with NumPy and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma, logsumexp

from gammavae_jax.config import MODEL_FREE_STATISTICS, STATISTICS
from gammavae_jax.data import statistics

N_MELS, N_CONTEXT = 6, 5
DECIBELS = 10 / np.log(10)


@pytest.fixture
def frames():
    """Return the frames of a clip in dB, with different variances in its bands."""
    rng = np.random.default_rng(0)
    return -60 + 8 * rng.standard_normal((41, N_MELS)) * np.linspace(0.5, 2, N_MELS)


def ones(values):
    return jnp.ones(len(values))


def moments(frames):
    change = np.diff(frames, axis=0)
    return np.concatenate([frames.mean(0), frames.std(0), change.std(0)])


def padded(values, n=9, padding=77.0):
    """Return the values followed by padding, and the weights that mark the padding."""
    more = np.full((n, values.shape[1]), padding)
    weight = np.concatenate([np.ones(len(values)), np.zeros(n)])
    return jnp.float32(np.concatenate([values, more])), jnp.float32(weight)


def test_a_spectrum_is_the_moments_of_the_centred_log_mel(frames):
    actual = statistics.spectrum(jnp.float32(frames), ones(frames))
    expected = moments(frames - frames.mean())
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_residual_statistic_is_moments_and_upper_quantile(frames):
    actual = statistics.residual(jnp.float32(frames), ones(frames))
    upper = np.quantile(frames, statistics.UPPER_QUANTILE, axis=0)
    expected = np.concatenate([moments(frames), upper])
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 20, 21, 41])
def test_the_upper_quantile_matches_numpy_for_any_number_of_frames(frames, n):
    values, weight = padded(frames[:n])
    actual = statistics.residual(values, weight)[3 * N_MELS :]
    expected = np.quantile(frames[:n], statistics.UPPER_QUANTILE, axis=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_peak_is_the_level_of_the_mean_power(frames):
    actual = statistics.peak(jnp.float32(frames), ones(frames))
    power = logsumexp(frames / DECIBELS, axis=0, b=1 / len(frames))
    np.testing.assert_allclose(actual, DECIBELS * power, rtol=1e-5)
    level = 10 * np.log10((10 ** (frames / 10)).mean(0))
    np.testing.assert_allclose(actual, level, rtol=1e-5)


def test_one_loud_frame_raises_the_peak_but_hardly_the_mean(frames):
    loud = frames.copy()
    loud[7] += 60.0
    peaks, residuals = (
        [rule(jnp.float32(x), ones(x))[:N_MELS] for x in (frames, loud)]
        for rule in (statistics.peak, statistics.residual)
    )
    assert (peaks[1] - peaks[0]).min() > 15.0
    assert (residuals[1] - residuals[0]).max() < 2.0


def test_a_latent_statistic_is_mean_and_deviation_over_windows(frames):
    actual = statistics.latent(jnp.float32(frames), ones(frames))
    expected = np.concatenate([frames.mean(0), frames.std(0)])
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_a_gamma_statistic_is_the_level_of_the_mean_power_and_its_gap_to_the_mean_level(
    frames,
):
    actual = statistics.gamma(jnp.float32(frames), ones(frames))
    level = 10 * np.log10((10 ** (frames / 10)).mean(0))
    expected = np.concatenate([level - frames.mean(), level - frames.mean(0)])
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [0.5, 1.0, 4.0])
def test_the_gap_of_gamma_distributed_power_is_that_of_its_shape(shape):
    """The maximum-likelihood equation of the shape k is log(k) - digamma(k) = gap."""
    power = np.random.default_rng(0).gamma(shape, 7.0, (40_000, N_MELS))
    log_mel = 10 * np.log10(power)
    actual = statistics.gamma(jnp.float32(log_mel), ones(log_mel))[N_MELS:]
    expected = DECIBELS * (np.log(shape) - digamma(shape))
    np.testing.assert_allclose(actual, expected, rtol=0.05)


def test_a_maximum_is_the_loudest_frame_of_each_band(frames):
    actual = statistics.maximum(jnp.float32(frames), ones(frames))
    expected = frames.max(0) - frames.max(0).mean()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_salience_is_a_power_of_the_relative_distance_to_the_mean_frame(frames):
    actual = statistics.salience(jnp.float32(frames), ones(frames))
    distance = np.linalg.norm(frames - frames.mean(0), axis=1)
    weights = (1 + distance / distance.max()) ** statistics.SALIENCE
    np.testing.assert_allclose(actual, weights / weights.sum(), rtol=1e-3)
    weighted = np.average(frames, axis=0, weights=weights)
    ours = statistics.salient(jnp.float32(frames), ones(frames))
    np.testing.assert_allclose(ours, weighted - weighted.mean(), rtol=1e-3, atol=1e-3)


def test_the_salient_spectrum_is_close_to_that_of_a_single_odd_frame(frames):
    odd = frames.copy()
    odd[7] = -20.0 + 10 * np.arange(N_MELS)
    assert statistics.salience(jnp.float32(odd), ones(odd)).argmax() == 7
    expected = odd[7] - odd[7].mean()
    rules = statistics.salient, statistics.maximum
    salient, maximum = (np.asarray(r(jnp.float32(odd), ones(odd))) for r in rules)
    mean = odd.mean(0) - odd.mean()
    assert abs(salient - expected).max() < 0.2 * abs(mean - expected).max()
    np.testing.assert_allclose(maximum, expected, atol=5.0)


def test_frames_that_are_all_equal_are_equally_salient():
    """Like those of digital silence, here beside longer clips."""
    equal, weight = padded(np.full((8, N_MELS), -156.5), padding=0.0)
    np.testing.assert_allclose(statistics.salience(equal, weight), weight / 8)
    np.testing.assert_allclose(statistics.salient(equal, weight), 0.0, atol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_the_salience_of_padding_is_zero_however_odd_it_is(frames, n):
    salience = np.asarray(statistics.salience(*padded(frames[:n], padding=300.0)))
    assert (salience[n:] == 0).all()
    np.testing.assert_allclose(salience.sum(), float(n > 0), rtol=1e-5)


@pytest.mark.parametrize("gain", [-40.0, 6.0, 100.0])
@pytest.mark.parametrize("name", MODEL_FREE_STATISTICS)
def test_gain_changes_no_statistic_of_log_mels(frames, name, gain):
    rule = getattr(statistics, name)
    expected = rule(jnp.float32(frames), ones(frames))
    actual = rule(jnp.float32(frames + gain), ones(frames))
    np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("padding", [77.0, -300.0])
def test_padding_changes_no_statistic(frames, name, padding):
    rule = getattr(statistics, name)
    expected = rule(jnp.float32(frames), ones(frames))
    actual = rule(*padded(frames, padding=padding))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("name", STATISTICS)
def test_one_frame_gives_finite_statistics(frames, name):
    actual = getattr(statistics, name)(*padded(frames[:1]))
    assert np.isfinite(actual).all()


@pytest.mark.parametrize("n_padding", [0, 3])
@pytest.mark.parametrize(("n_rows", "first"), [(N_CONTEXT, 0), (1, 2)])
def test_a_frame_residual_is_the_mean_over_the_windows_that_contain_it(
    n_rows, first, n_padding
):
    """For whole windows, and if only the middle frame of each is predicted."""
    rng = np.random.default_rng(1)
    n_windows = 12
    rows = rng.standard_normal((n_windows + n_padding, n_rows, N_MELS))
    weight = np.arange(n_windows + n_padding) < n_windows
    actual, covered = statistics.frame_residual(
        jnp.float32(rows.reshape(len(rows), -1)), jnp.float32(weight), N_MELS, N_CONTEXT
    )
    n_frames = n_windows + n_padding + N_CONTEXT - 1
    assert actual.shape == (n_frames, N_MELS)
    for frame in range(n_frames):
        values = [
            rows[window, row]
            for window in range(n_windows)
            for row in range(n_rows)
            if window + first + row == frame
        ]
        assert covered[frame] == bool(values)
        expected = np.mean(values, axis=0) if values else np.zeros(N_MELS)
        np.testing.assert_allclose(actual[frame], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_context", [2, 3, 4, 5, 6])
def test_a_middle_frame_keeps_the_residual_of_its_own_prediction(n_context):
    """The middle is the frame that the model predicts, also if the context is even."""
    frames = jnp.float32(np.arange(20.0))
    windows = frames[jnp.arange(20 - n_context + 1)[:, None] + jnp.arange(n_context)]
    middle = windows[:, n_context // 2][:, None]
    weight = jnp.ones(len(middle))
    actual, covered = statistics.frame_residual(middle, weight, 1, n_context)
    np.testing.assert_array_equal(actual[covered > 0, 0], frames[covered > 0])


@pytest.mark.parametrize(
    ("n_frames", "n_edge", "whole"),
    [
        (1, 1, [0]),
        (2, 1, [0, 1]),
        (3, 1, [1]),
        (6, 1, [1, 2, 3, 4]),
        (6, 2, [2, 3]),
        (4, 2, [0, 1, 2, 3]),
    ],
)
def test_the_frames_that_extend_beyond_a_clip_do_not_count(n_frames, n_edge, whole):
    weight = statistics.whole_frames(8, jnp.array(n_frames), n_edge)
    np.testing.assert_array_equal(np.flatnonzero(weight), whole)
