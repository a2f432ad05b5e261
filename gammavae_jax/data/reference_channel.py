"""Subtracts the part of a clip that can be predicted from its reference channel.

The near microphone picks up the machine and the noise around it; the far microphone
picks up mostly the noise. At each frequency, the far microphone's spectrum F is
multiplied by one complex gain H for the whole clip and subtracted from the near
microphone's spectrum C:

    H = sum_t C F* / (sum_t |F|^2 + tiny),  Y = C - H F

H is the gain that minimises the power of Y over the clip (least squares). The log-mel
is computed from Y, whose frames and windows are those of an ordinary log-mel, so no
inverse transform is needed.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex128, Float, Float32, Float64

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import log_mel, log_mel_of, n_frames, spectra

# For digital silence only: rounding to 16 bits has a power of about 1e-5 in a bin.
_TINY = 1e-12
_LEAST_SHARE = np.finfo(np.float64).eps  # of the power, whose precision is no better


class Spectrogram(NamedTuple):
    """The log-mel of a clip, and how much was subtracted from it."""

    log_mel: Float32[np.ndarray, "frame mel"]  # dB
    explained: float | None = None  # dB; None without a reference channel


class Fit(NamedTuple):
    """The fit of a clip's reference channel to its near channel."""

    gain: Complex128[np.ndarray, "bin"]  # H
    power: Float64[np.ndarray, "bin"]  # of the near channel, summed over frames
    remaining: Float64[np.ndarray, "bin"]  # power after the subtraction


def spectrogram(
    waveform: Float32[np.ndarray, "sample *channel"],
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
) -> Spectrogram:
    """Return a clip's log-mel, after subtracting what a reference channel predicts.

    Args:
        waveform: a clip with the channels `config.channels`; see `audio.channels`.
        filterbank: from `mel_filterbank`.
        config: the feature settings.

    Source of the subtraction: Wiener filtering with one coefficient per frequency.
    """
    if config.reference_channel is None:
        return Spectrogram(log_mel(waveform, filterbank, config))
    near, reference = waveform.T
    fit = fit_reference_channel(waveform, config)
    pairs = zip(spectra(near, config), spectra(reference, config), strict=True)
    differences = (c - fit.gain * f for c, f in pairs)
    mel = log_mel_of(differences, n_frames(len(near), config), filterbank, config)
    return Spectrogram(mel, explained_level(fit, filterbank))


def fit_reference_channel(
    waveform: Float32[np.ndarray, "sample 2"], config: FeatureConfig
) -> Fit:
    """Fit a clip's reference channel to its near channel by least squares."""
    n_bins = config.n_fft // 2 + 1
    cross, power, of_reference = np.zeros(n_bins, complex), *np.zeros((2, n_bins))
    near, reference = waveform.T
    for c, f in zip(spectra(near, config), spectra(reference, config), strict=True):
        cross += (c * f.conj()).sum(0)
        power += _squares(c).sum(0)
        of_reference += _squares(f).sum(0)
    gain = cross / (of_reference + _TINY)
    # sum |C - H F|^2, without computing the differences
    remaining = power - 2 * np.real(gain.conj() * cross) + _squares(gain) * of_reference
    return Fit(gain, power, np.maximum(remaining, _LEAST_SHARE * power))


def explained_level(fit: Fit, filterbank: Float[np.ndarray, "bin mel"]) -> float:
    """Return by how many dB the subtraction lowers a clip's power.

    This is the mean over the mel bands, so that a loud hum affects one band only. In
    silent bands, the reduction is 0 dB.
    """
    before, after = fit.power @ filterbank, fit.remaining @ filterbank
    is_heard = before > 0
    ratio = np.divide(before, after, out=np.ones_like(before), where=is_heard)
    return float(np.mean(10 * np.log10(ratio)))


def _squares(values: Complex128[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    return np.real(values) ** 2 + np.imag(values) ** 2
