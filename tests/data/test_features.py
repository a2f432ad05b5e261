"""Log-mels and mel bands agree with librosa and the official code."""

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
from support.windows import windows

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import band_corners, log_mel, mel_filterbank, n_frames

TOLERANCE = 1e-3  # dB
CONFIGS = [
    FeatureConfig(power=1.0),
    FeatureConfig(power=2.0),
    FeatureConfig(8000, n_fft=512, hop_length=200, n_mels=40),
    FeatureConfig(n_fft=256, hop_length=128, n_mels=250),  # some filters are empty
]
FLOOR_DB = 10 * np.log10(np.finfo(float).eps)


def reference(waveform, config):
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        **{k: getattr(config, k) for k in ("n_fft", "hop_length", "n_mels", "power")},
    )
    return (20 / config.power * np.log10(np.maximum(mel, np.finfo(float).eps))).T


@pytest.mark.filterwarnings("ignore:(n_fft=|Empty filters)")
@pytest.mark.parametrize("n_samples", [1, 511, 512, 2048, 12345, 300_000])
@pytest.mark.parametrize("config", CONFIGS)
def test_log_mel_matches_librosa(n_samples, config):
    rng = np.random.default_rng(n_samples)
    waveform = (rng.standard_normal(n_samples) * 0.1).astype(np.float32)
    bank = mel_filterbank(config)
    assert bank.any(axis=0).all() == (config.n_mels < 250)
    spectrogram = log_mel(waveform, bank, config)
    assert len(spectrogram) == n_frames(n_samples, config)
    expected = reference(waveform, config)
    np.testing.assert_allclose(spectrogram, expected, atol=TOLERANCE)


SECOND = np.arange(16000) / 16000
HISS = np.random.default_rng(0).standard_normal(16000)
HOSTILE = {
    "a tone in room noise at -80 dBFS": 0.5 * np.sin(2000 * np.pi * SECOND)
    + 1e-4 * HISS,
    "a 16-bit tone": np.round(32000 * np.sin(1994 * np.pi * SECOND)) / 32768,
    "a 24-bit tone": np.round(8e6 * np.sin(1994 * np.pi * SECOND)) / 2**23,
    "a float tone": 0.9 * np.sin(1994 * np.pi * SECOND),
    "rumble at 15 Hz": 0.9 * np.sin(30 * np.pi * SECOND) + 1e-4 * HISS,
    "a constant offset": 0.5 + 1e-8 * HISS,
    "only a constant offset": np.full(16000, 0.9),
    "a float tone that fills one bin": 0.9 * np.sin(2000 * np.pi * SECOND + 1),
    "half the sample rate": 0.9 * np.cos(16000 * np.pi * SECOND),
    "amplitudes of 100": 100 * np.sin(1994 * np.pi * SECOND),
    "a click": np.eye(1, 16000, 8000)[0],
    "a square wave": np.sign(np.sin(100 * np.pi * SECOND)),
    "amplitudes of 1e8": 1e8 * np.sin(1994 * np.pi * SECOND) + HISS,
    "amplitudes of 1e-30": 1e-30 * HISS,
}


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("sound", HOSTILE)
def test_log_mel_matches_float64_also_in_quiet_bands_beside_loud_ones(sound, power):
    config = FeatureConfig(power=power)
    bank, waveform = mel_filterbank(config), HOSTILE[sound].astype(np.float32)
    padded = np.pad(np.float64(waveform), config.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)
    window = scipy.signal.get_window("hann", config.n_fft)
    spectrum = np.fft.rfft(frames[:: config.hop_length] * window)
    mel = np.abs(spectrum) ** power @ np.float64(bank)
    exact = 20 / power * np.log10(np.maximum(mel, np.finfo(float).eps))
    # Even in float64, rounding fills the bands that are 300 dB quieter than others.
    is_exact = exact >= exact.max() - 250
    actual = log_mel(waveform, bank, config)
    np.testing.assert_allclose(actual[is_exact], exact[is_exact], atol=1e-4)


def test_windows_match_the_official_code(golden):
    config = FeatureConfig()
    expected = np.load(golden / "features.npz")
    for name in expected.files:
        waveform, rate = soundfile.read(golden / f"{name}.wav", dtype="float32")
        assert rate == config.sample_rate
        spectrogram = log_mel(waveform, mel_filterbank(config), config)
        actual = windows(spectrogram, config.n_context)
        np.testing.assert_allclose(actual, expected[name], atol=TOLERANCE)


@pytest.mark.parametrize("is_silent", [True, False], ids=["silence", "zero filters"])
def test_silence_and_filters_of_zeros_give_the_official_floor(is_silent):
    config = FeatureConfig()
    bank = mel_filterbank(config) * np.float32(is_silent)
    waveform = np.full(4096, not is_silent, np.float32)
    spectrogram = log_mel(waveform, bank, config)
    np.testing.assert_allclose(spectrogram, FLOOR_DB, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [FeatureConfig(), FeatureConfig(sample_rate=48000, n_mels=64, n_fft=2048),
     FeatureConfig(sample_rate=1600, n_mels=16)],
)  # fmt: skip
def test_band_corners_match_librosa(config):
    expected = librosa.mel_frequencies(config.n_mels + 2, fmax=config.sample_rate / 2)
    np.testing.assert_allclose(band_corners(config), expected, atol=1e-6)


def test_a_filter_is_zero_outside_its_band_corners():
    config = FeatureConfig()
    corners, filters = band_corners(config), mel_filterbank(config)
    hertz = np.arange(len(filters)) * config.sample_rate / config.n_fft
    for band in range(config.n_mels):
        inside = hertz[filters[:, band] > 0]
        assert (inside > corners[band]).all()
        assert (inside < corners[band + 2]).all()


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("n_fft", [255, 1024, 2048])
@pytest.mark.parametrize(
    ("sample_rate", "n_mels"), [(16000, 128), (8000, 40), (44100, 256), (96000, 64)]
)
def test_the_mel_filters_have_the_bits_of_librosas(sample_rate, n_mels, n_fft):
    config = FeatureConfig(sample_rate=sample_rate, n_mels=n_mels, n_fft=n_fft)
    expected = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels).T
    np.testing.assert_array_equal(mel_filterbank(config), expected, strict=True)
