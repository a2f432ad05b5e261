"""Computes log-mel spectrograms as the official baseline does with librosa.

Conventions: a waveform is float32 in [-1, 1]. A spectrogram is in dB, with Hann windows
and Slaney's mel scale and norm; its frames are centred on multiples of the hop, and the
waveform is padded with zeros at both ends. Silence is at -156.5 dB (with power 2).
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Complex128, Float, Float32, Float64

from gammavae_jax.config import FeatureConfig

# Increment whenever log-mels change or more recordings are refused, so that older
# cached log-mels are ignored.
FEATURES_VERSION = 3

# The official code clips at the float64 epsilon instead of adding an offset.
FLOOR = np.float32(np.finfo(np.float64).eps)
_FRAMES_AT_ONCE = 64  # the spectra of a long clip would exceed the CPU cache
_MELS_AT_ONCE = 32  # neighbouring filters use few bins; most of the matrix is 0


@functools.cache
def mel_filterbank(config: FeatureConfig) -> Float32[np.ndarray, "bin mel"]:
    """Return triangular mel filters over `n_fft // 2 + 1` frequency bins.

    Source: `librosa.filters.mel`, with bit-identical results. librosa itself takes
    seconds to import, and the import fails if its compiled code cannot be cached.
    """
    hz = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    corners = band_corners(config)
    ramps, widths = corners[:, None] - hz, np.diff(corners)[:, None]
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2.0 / (corners[2:] - corners[:-2]))[:, None]  # all with the same area
    return np.ascontiguousarray(filters.T)


def n_frames(n_samples: int, config: FeatureConfig) -> int:
    """Return the number of frames in a clip of `n_samples` samples.

    The clip is padded by `n_fft` samples in total, or by one less if `n_fft` is odd.
    """
    return 1 + (n_samples - config.n_fft % 2) // config.hop_length


def edge_frames(config: FeatureConfig) -> int:
    """Return how many frames at either end of a clip extend beyond the clip."""
    return -(-config.n_fft // (2 * config.hop_length))


def samples_needed(config: FeatureConfig) -> int:
    """Return the length in samples of the shortest clip that fills a window."""
    return max(1, (config.n_context - 1) * config.hop_length + config.n_fft % 2)


def log_mel(
    waveform: Float32[np.ndarray, "sample"],
    filterbank: Float32[np.ndarray, "bin mel"],
    config: FeatureConfig,
) -> Float32[np.ndarray, "frame mel"]:
    """Return the log-mel spectrogram in dB: `20/power * log10(max(mel, 2.2e-16))`.

    Source: `librosa.feature.melspectrogram` and `file_to_vectors` of the official
    baseline. The result agrees with these, and with float64, to 1e-3 dB. The Fourier
    transforms are in float64: in float32, rounding errors beside a loud tone would mask
    all bands 60 dB or more below it.
    """
    n = n_frames(len(waveform), config)
    return log_mel_of(spectra(waveform, config), n, filterbank, config)


def spectra(
    waveform: Float32[np.ndarray, "sample"], config: FeatureConfig
) -> Iterator[Complex128[np.ndarray, "_ bin"]]:
    """Yield the spectra of a clip's frames, a few successive frames at a time."""
    padded = np.pad(waveform, config.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)
    frames = frames[:: config.hop_length][: n_frames(len(waveform), config)]
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        windowed = frames[first : first + _FRAMES_AT_ONCE] * hann(config.n_fft)
        spectrum: Any = scipy.fft.rfft(windowed, overwrite_x=True)
        yield spectrum


def log_mel_of(
    blocks: Iterable[Complex128[np.ndarray, "_ bin"]],
    n: int,
    filterbank: Float32[np.ndarray, "bin mel"],
    config: FeatureConfig,
) -> Float32[np.ndarray, "frame mel"]:
    """Return the log-mel of `n` frames, given their spectra, which are overwritten."""
    mel = np.zeros((n, filterbank.shape[1]), np.float32)
    bands, first = _bands(filterbank), 0
    for spectrum in blocks:
        power = _power_spectrum(spectrum, config)
        block = slice(first, first + len(power))
        for bins, mels in bands:
            np.matmul(power[:, bins], filterbank[bins, mels], out=mel[block, mels])
        first += len(power)
    nepers = np.log(np.maximum(mel, FLOOR))  # NumPy's log is faster than its log10
    return np.float32(20.0 / config.power / np.log(10.0)) * nepers


def _bands(filterbank: Float32[np.ndarray, "bin mel"]) -> list[tuple[slice, slice]]:
    """Group neighbouring filters; return each group with its range of nonzero bins."""
    bands = []
    for first in range(0, filterbank.shape[1], _MELS_AT_ONCE):
        mels = slice(first, first + _MELS_AT_ONCE)
        bins = np.flatnonzero(filterbank[:, mels].max(axis=1))
        if len(bins):
            bands.append((slice(bins[0], bins[-1] + 1), mels))
    return bands


def _power_spectrum(
    spectrum: Complex128[np.ndarray, "frame bin"], config: FeatureConfig
) -> Float32[np.ndarray, "frame bin"]:
    squares = spectrum.view(np.float64)
    squares *= squares
    power = squares[:, ::2] + squares[:, 1::2]
    if config.power != 2.0:
        power **= config.power / 2.0
    return power.astype(np.float32)


@functools.cache
def hann(n_fft: int) -> Float64[np.ndarray, "sample"]:
    """Return the periodic Hann window."""
    phase = 2 * np.pi * np.arange(n_fft) / n_fft
    return 0.5 - 0.5 * np.cos(phase)


_HZ_PER_MEL = 200.0 / 3.0  # below the corner frequency
_CORNER_HZ = 1000.0
_CORNER_MEL = _CORNER_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0  # above the corner frequency


def band_corners(config: FeatureConfig) -> Float[np.ndarray, "corner"]:
    """Return the mel bands' `n_mels + 2` corner frequencies in Hz.

    Band `b` is a triangle that rises from corner `b` to `b + 1` and falls to `b + 2`.
    Source: `librosa.mel_frequencies`.
    """
    highest = _mel_of(config.sample_rate / 2)
    return _hz_of(np.linspace(0.0, highest, config.n_mels + 2))


def _mel_of(hz: float) -> float:
    if hz < _CORNER_HZ:
        return hz / _HZ_PER_MEL
    return _CORNER_MEL + float(np.log(hz / _CORNER_HZ)) / _LOG_STEP


def _hz_of(mel: Float[np.ndarray, "point"]) -> Float[np.ndarray, "point"]:
    above = np.maximum(mel - _CORNER_MEL, 0.0)
    return np.where(
        mel < _CORNER_MEL, _HZ_PER_MEL * mel, _CORNER_HZ * np.exp(_LOG_STEP * above)
    )
