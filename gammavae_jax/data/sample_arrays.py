"""Scales arrays of samples to a full scale of 1, and rejects unknown scales."""

import numbers
import reprlib
from typing import Any

import numpy as np
from jaxtyping import Float32

from gammavae_jax.data.sample_scale import SampleScale
from gammavae_jax.errors import InputError

_MOST_24_BIT = 1 << 23


def waveform_of(array: Any, name: str) -> Float32[np.ndarray, "sample *channel"]:
    """Return an array of samples as float32 with a full scale of 1.

    The array's shape is `sample`, or `sample channel` for several channels.

    Integers are divided by the full scale of their type. The array is rejected if its
    values suggest another scale, because a caller may pass 16-bit samples as int64 or
    as float.

    Raises:
        InputError: the array is not a waveform, or its full scale is unknown.
    """
    if np.ma.is_masked(array):
        raise InputError(
            f"{name} has masked samples: fill them, for example with .filled(0), or "
            "pass the parts without them"
        )
    samples = np.asarray(array)
    is_waveform = samples.ndim == 1 or (
        samples.ndim == 2 and samples.shape[0] > samples.shape[1]
    )
    if not is_waveform or samples.dtype.kind not in "fi":
        raise InputError(
            f"{name} has the shape {samples.shape} and the type {samples.dtype}: "
            "pass a one-dimensional array of samples for each recording, or an array "
            "of shape (samples, channels)"
        )
    if samples.dtype.kind == "i":
        _require_known_scale(samples, name)
        samples = samples / -float(np.iinfo(samples.dtype).min)
    with np.errstate(over="ignore"):  # infinities are rejected below
        waveform = samples.astype(np.float32)
    SampleScale(name).check(waveform)
    return waveform


def _require_known_scale(samples: np.ndarray, name: str) -> None:
    """Reject integers that may be samples of fewer bits than their type has."""
    most = max(int(samples.max(initial=0)), -int(samples.min(initial=0)))
    width = samples.dtype.itemsize
    # 24-bit samples in four bytes are often shifted left by eight bits, but not always.
    uses_type = width <= 2 or (width == 4 and most > _MOST_24_BIT)
    if uses_type or not most or (width == 4 and not (samples & 0xFF).any()):
        return
    n_bits = most.bit_length() + 1
    raise InputError(
        f"{name}: the samples are {samples.dtype}, but fill only {n_bits} bits: "
        "convert them to the type in which they were recorded, for example with "
        ".astype('int16'), or divide them by their full scale"
    )


def whole_rate(sample_rate: Any) -> int | None:
    """Return a sample rate as an int; reject anything but a whole number of Hz."""
    if sample_rate is None:
        return None
    is_number = isinstance(sample_rate, numbers.Real)
    is_number = is_number and not isinstance(sample_rate, bool)
    if not is_number or not 0 < sample_rate <= 1e6 or sample_rate % 1:
        given = reprlib.repr(sample_rate)
        raise InputError(f"sample_rate is {given}: pass a whole number of Hz")
    return int(sample_rate)
