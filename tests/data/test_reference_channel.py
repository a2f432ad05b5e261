"""Subtracting the reference channel removes the noise and leaves the machine."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.signal

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import log_mel, mel_filterbank
from gammavae_jax.data.recordings.clips import load_recordings
from gammavae_jax.data.recordings.sources import find_recordings
from gammavae_jax.data.reference_channel import fit_reference_channel, spectrogram

RATE = 16000
CONFIG = FeatureConfig(reference_channel=1)
BANK = mel_filterbank(CONFIG)
CONFIGS = [
    CONFIG,
    replace(CONFIG, power=1.0),
    FeatureConfig(8000, reference_channel=1, n_fft=512, hop_length=200, n_mels=40),
    replace(CONFIG, n_fft=1023, hop_length=300),
]


def noise(seed, seconds=10.0):
    """Return noise that is louder at low frequencies."""
    white = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return np.asarray(scipy.signal.lfilter([0.05], [1.0, -0.7], white))


def explained_by(waveform):
    """Return by how many dB subtracting the reference channel lowers the power."""
    explained = spectrogram(waveform, BANK, CONFIG).explained
    assert explained is not None
    return explained


def pair(near, reference):
    return np.stack([near, reference], 1).astype(np.float32)


def transform(samples, config):
    """Return the spectra of a clip's frames, in float64."""
    padded = np.pad(np.float64(samples), config.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)
    window = scipy.signal.get_window("hann", config.n_fft)
    return np.fft.rfft(frames[:: config.hop_length] * window)


def expected(waveform, config):
    """Return the log-mel and the explained level, in float64."""
    near, reference = (transform(channel, config) for channel in waveform.T)
    cross = (near * reference.conj()).sum(0)
    gain = cross / ((np.abs(reference) ** 2).sum(0) + 1e-12)
    rest = near - gain * reference
    bank = np.float64(mel_filterbank(config))
    mel = np.abs(rest) ** config.power @ bank
    before, after = ((np.abs(s) ** 2).sum(0) @ bank for s in (near, rest))
    floor = np.finfo(float).eps
    explained = np.mean(10 * np.log10(before / after))
    return 20 / config.power * np.log10(np.maximum(mel, floor)), explained


def band_levels(log_mel):
    """Return the mean power of each band, in dB."""
    return 10 * np.log10(np.mean(10 ** (log_mel / 10), axis=0))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seconds", [0.3, 4.321])
def test_the_log_mel_and_the_explained_level_match_float64(config, seconds):
    far, own = noise(0, seconds), noise(1, seconds)
    waveform = pair(own + 0.8 * np.roll(far, 5), far + 0.1 * noise(2, seconds))
    found = spectrogram(waveform, mel_filterbank(config), config)
    mel, explained = expected(waveform, config)
    np.testing.assert_allclose(found.log_mel, mel, atol=1e-4)
    assert found.log_mel.dtype == np.float32
    assert found.explained == pytest.approx(explained, abs=1e-5)
    assert explained > 1


def test_a_loud_tone_beside_quiet_noise_matches_float64():
    tone = 0.9 * np.sin(0.3 * np.arange(2 * RATE))
    waveform = pair(tone + 1e-4 * noise(0, 2), 1e-3 * noise(1, 2) + 0.01 * tone)
    found = spectrogram(waveform, BANK, CONFIG)
    np.testing.assert_allclose(found.log_mel, expected(waveform, CONFIG)[0], atol=1e-3)


@pytest.mark.parametrize("delay", [0, 16])  # samples, of the noise between microphones
def test_noise_is_removed_by_20_db_and_the_machine_stays_within_a_quarter_db(delay):
    times = np.arange(10 * RATE) / RATE
    machine = 0.2 * noise(0) * (1 + np.sin(2 * np.pi * 3 * times))
    far = noise(1)
    heard = 0.8 * np.roll(far, delay)
    waveform = pair(machine + heard, far)
    gain = fit_reference_channel(waveform, CONFIG).gain
    of_noise, of_far = transform(heard, CONFIG), transform(far, CONFIG)
    before, after = (np.abs(x) ** 2 for x in (of_noise, of_noise - gain * of_far))
    assert 10 * np.log10(before.sum() / after.sum()) > 20
    clean = log_mel(machine.astype(np.float32), BANK, CONFIG)
    noisy = log_mel(waveform[:, 0], BANK, CONFIG)
    found = spectrogram(waveform, BANK, CONFIG)
    added = band_levels(noisy) - band_levels(clean)
    assert added.min() > 8
    assert np.abs(band_levels(found.log_mel) - band_levels(clean)).max() < 0.25
    assert found.explained == pytest.approx(np.mean(added), abs=0.25)


def test_a_reference_that_hears_something_else_explains_nothing():
    waveform = pair(noise(0), noise(1))
    found = spectrogram(waveform, BANK, CONFIG)
    assert 0 < explained_by(waveform) < 0.05
    without = log_mel(waveform[:, 0], BANK, CONFIG)
    assert np.abs(band_levels(found.log_mel) - band_levels(without)).max() < 0.1


def test_a_silent_reference_changes_no_bit():
    waveform = pair(noise(0, 2), np.zeros(2 * RATE))
    found = spectrogram(waveform, BANK, CONFIG)
    without = log_mel(waveform[:, 0], BANK, CONFIG)
    np.testing.assert_array_equal(found.log_mel, without)
    assert found.explained == 0


def test_equal_and_silent_channels_give_finite_values():
    same = spectrogram(pair(noise(0, 2), noise(0, 2)), BANK, CONFIG)
    silence = spectrogram(np.zeros((RATE, 2), np.float32), BANK, CONFIG)
    assert 100 < explained_by(pair(noise(0, 2), noise(0, 2))) < 200
    assert silence.explained == 0
    assert np.isfinite(same.log_mel).all()
    assert np.isfinite(silence.log_mel).all()


def test_without_a_reference_channel_the_log_mel_is_that_of_the_waveform():
    config, waveform = FeatureConfig(), noise(0, 2).astype(np.float32)
    found = spectrogram(waveform, BANK, config)
    np.testing.assert_array_equal(found.log_mel, log_mel(waveform, BANK, config))
    assert found.explained is None


def test_each_clip_of_a_recording_has_a_gain_of_its_own():
    far = noise(1, 8)
    gain = np.repeat([0.3, -2.0], 4 * RATE)
    waveform = pair(0.01 * noise(0, 8) + gain * far, far)
    (source,) = find_recordings(waveform, RATE)
    loaded = load_recordings([source], BANK, CONFIG, 4.0, keep_sounds=True)
    halves = [spectrogram(half, BANK, CONFIG) for half in np.split(waveform, 2)]
    for log_mel_of_clip, half in zip(loaded.clips.log_mels, halves, strict=True):
        np.testing.assert_allclose(log_mel_of_clip, half.log_mel, atol=1e-4)
    assert loaded.clips.explained == tuple(half.explained for half in halves)
    assert min(loaded.clips.explained) > 20
    assert explained_by(waveform) < 10
    # The sound for the page is that of the near microphone.
    np.testing.assert_array_equal(np.concatenate(loaded.sounds), waveform[:, 0])
