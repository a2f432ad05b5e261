"""Waveforms at another sample rate."""

from collections.abc import Iterable, Iterator

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


def resampled_blocks(
    blocks: Iterable[Float32[np.ndarray, "_"]], sample_rate: int, wanted: int
) -> Iterator[Float32[np.ndarray, "_"]]:
    """`resampled`, block by block, in constant memory."""
    if sample_rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(
        sample_rate, wanted, num_channels=1, dtype="float32", quality="HQ"
    )
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
