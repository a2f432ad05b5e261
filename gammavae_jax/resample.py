"""Waveforms at another sample rate."""

import numpy as np
import soxr
from jaxtyping import Float32


def resampled(
    waveform: Float32[np.ndarray, "sample"], sample_rate: int, wanted: int
) -> Float32[np.ndarray, "resampled"]:
    """A waveform at the wanted rate, Hz; as it is if it has that rate.

    Source: the SoX resampler at its high quality, which librosa uses too.
    """
    if sample_rate == wanted:
        return waveform
    return soxr.resample(waveform, sample_rate, wanted, quality="HQ")
