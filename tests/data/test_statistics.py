"""Statistics of clips, against NumPy and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from support.probes import noise

from gammavae_jax.data import statistics as statistics

N_MELS, N_CONTEXT = 6, 5
DECIBELS = 10 / np.log(10)


@pytest.fixture
def frames():
    """Frames of a clip in dB, of different bands."""
    rng = np.random.default_rng(0)
    return -60 + 8 * rng.standard_normal((41, N_MELS)) * np.linspace(0.5, 2, N_MELS)


def ones(values):
    return jnp.ones(len(values))


def moments(frames):
    change = np.diff(frames, axis=0)
    return np.concatenate([frames.mean(0), frames.std(0), change.std(0)])


def padded(values, n=9, padding=77.0):
    """With frames of padding behind, and the weights that tell of them."""
    more = np.full((n, values.shape[1]), padding)
    weight = np.concatenate([np.ones(len(values)), np.zeros(n)])
    return jnp.float32(np.concatenate([values, more])), jnp.float32(weight)


def test_a_spectrum_is_moments_of_the_log_mel_less_its_mean(frames):
    ours = statistics.spectrum(jnp.float32(frames), ones(frames))
    expected = moments(frames - frames.mean())
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gain", [-40.0, 6.0, 100.0])
def test_gain_does_not_change_a_spectrum(frames, gain):
    ours = statistics.spectrum(jnp.float32(frames + gain), ones(frames))
    expected = statistics.spectrum(jnp.float32(frames), ones(frames))
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_residual_is_its_moments_and_upper_quantile(frames):
    ours = statistics.residual(jnp.float32(frames), ones(frames))
    upper = np.quantile(frames, statistics.UPPER_QUANTILE, axis=0)
    expected = np.concatenate([moments(frames), upper])
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 20, 21, 41])
def test_the_upper_quantile_is_numpys_for_any_number_of_frames(frames, n):
    values, weight = padded(frames[:n])
    ours = statistics.residual(values, weight)[3 * N_MELS :]
    expected = np.quantile(frames[:n], statistics.UPPER_QUANTILE, axis=0)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_peak_is_the_level_of_the_mean_power(frames):
    ours = statistics.peak(jnp.float32(frames), ones(frames))
    power = logsumexp(frames / DECIBELS, axis=0, b=1 / len(frames))
    np.testing.assert_allclose(ours, DECIBELS * power, rtol=1e-5)
    np.testing.assert_allclose(ours, 10 * np.log10((10 ** (frames / 10)).mean(0)), 1e-5)


def test_a_peak_follows_one_loud_frame_that_the_mean_hardly_hears(frames):
    loud = frames.copy()
    loud[7] += 60.0
    peaks, residuals = (
        [rule(jnp.float32(x), ones(x))[:N_MELS] for x in (frames, loud)]
        for rule in (statistics.peak, statistics.residual)
    )
    assert (peaks[1] - peaks[0]).min() > 15.0
    assert (residuals[1] - residuals[0]).max() < 2.0


def test_a_latent_is_mean_and_deviation_over_windows(frames):
    ours = statistics.latent(jnp.float32(frames), ones(frames))
    expected = np.concatenate([frames.mean(0), frames.std(0)])
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["spectrum", "residual", "peak", "latent"])
@pytest.mark.parametrize("padding", [77.0, -300.0])
def test_padding_changes_no_statistic(frames, name, padding):
    rule = getattr(statistics, name)
    expected = rule(jnp.float32(frames), ones(frames))
    ours = rule(*padded(frames, padding=padding))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["spectrum", "residual", "peak", "latent"])
def test_one_frame_gives_finite_statistics(frames, name):
    ours = getattr(statistics, name)(*padded(frames[:1]))
    assert np.isfinite(ours).all()


def test_a_statistic_tells_one_steady_machine_from_another():
    one, other = noise(np.random.default_rng(0), 2)
    spectra = [statistics.spectrum(jnp.float32(x), ones(x)) for x in (one, other)]
    band = -60 + 10 * np.sin(np.arange(128) / 7)
    for spectrum in spectra:
        np.testing.assert_allclose(spectrum[:128], band - band.mean(), atol=3.0)


@pytest.mark.parametrize("n_padding", [0, 3])
@pytest.mark.parametrize(("n_rows", "first"), [(N_CONTEXT, 0), (1, 2)])
def test_a_frames_residual_is_the_mean_over_the_windows_that_tell_of_it(
    n_rows, first, n_padding
):
    """Of whole windows, and where only the middle frame of each is predicted."""
    rng = np.random.default_rng(1)
    n_windows = 12
    rows = rng.standard_normal((n_windows + n_padding, n_rows, N_MELS))
    weight = np.arange(n_windows + n_padding) < n_windows
    ours, is_told = statistics.frame_residual(
        jnp.float32(rows.reshape(len(rows), -1)), jnp.float32(weight), N_MELS, N_CONTEXT
    )
    n_frames = n_windows + n_padding + N_CONTEXT - 1
    assert ours.shape == (n_frames, N_MELS)
    for frame in range(n_frames):
        told = [
            rows[window, row]
            for window in range(n_windows)
            for row in range(n_rows)
            if window + first + row == frame
        ]
        assert is_told[frame] == bool(told)
        expected = np.mean(told, axis=0) if told else np.zeros(N_MELS)
        np.testing.assert_allclose(ours[frame], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_context", [2, 3, 4, 5, 6])
def test_a_middle_frame_has_the_residual_of_its_own_prediction(n_context):
    """The middle that the model predicts, also of an even number of frames."""
    frames = jnp.float32(np.arange(20.0))
    windows = frames[jnp.arange(20 - n_context + 1)[:, None] + jnp.arange(n_context)]
    middle = windows[:, n_context // 2][:, None]
    ours, is_told = statistics.frame_residual(
        middle, jnp.ones(len(middle)), 1, n_context
    )
    np.testing.assert_array_equal(ours[is_told > 0, 0], frames[is_told > 0])
