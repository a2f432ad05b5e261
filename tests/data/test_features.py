"""Log-mels and mel bands agree with librosa and the official code."""

import librosa
import numpy as np
import pytest
import soundfile

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import (
    band_corners,
    log_mel,
    mel_filterbank,
    n_frames,
    windows,
)

TOLERANCE = 1e-3  # dB
FLOOR_DB = 10 * np.log10(np.finfo(float).eps)


def reference(waveform, config):
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        **{k: getattr(config, k) for k in ("n_fft", "hop_length", "n_mels", "power")},
    )
    return (20 / config.power * np.log10(np.maximum(mel, np.finfo(float).eps))).T


@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")
@pytest.mark.parametrize("n_samples", [1, 511, 512, 2048, 12345, 300_000])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_log_mel_matches_librosa(n_samples, power):
    config = FeatureConfig(power=power)
    rng = np.random.default_rng(n_samples)
    waveform = (rng.standard_normal(n_samples) * 0.1).astype(np.float32)
    spectrogram = log_mel(waveform, mel_filterbank(config), config)
    assert len(spectrogram) == n_frames(n_samples, config)
    expected = reference(waveform, config)
    np.testing.assert_allclose(spectrogram, expected, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize(
    ("config", "is_any_empty"),
    [
        (FeatureConfig(8000, n_fft=512, hop_length=200, n_mels=40), False),
        (FeatureConfig(n_fft=256, hop_length=128, n_mels=250), True),
    ],
)
def test_log_mel_matches_librosa_with_other_settings(config, is_any_empty):
    bank = mel_filterbank(config)
    assert bank.any(axis=0).all() == (not is_any_empty)
    waveform = np.random.default_rng(1).standard_normal(4000).astype(np.float32)
    spectrogram = log_mel(waveform, bank, config)
    expected = reference(waveform, config)
    np.testing.assert_allclose(spectrogram, expected, atol=TOLERANCE)


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


def test_windows_are_successive_frames_joined_together():
    spectrogram = np.arange(12.0).reshape(6, 2)
    expected = [spectrogram[w : w + 5].ravel() for w in range(2)]
    np.testing.assert_array_equal(windows(spectrogram, 5), expected)


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
