"""Checks the scale of a recording's samples and measures silence and clipping.

Full scale must be 1. Nothing but the samples themselves shows whether 16-bit samples
were stored as floats without being divided by 32768, in a file or in an array.
"""

import numbers
import reprlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from gammavae_jax.errors import InputError

_LOUDEST = 1e9  # the power of much larger samples overflows float32
_MOST = 100.0  # full scale is 1; unscaled integers are far above this
_MOST_24_BIT = 1 << 23
_FLAT = 3  # equal samples in a row; a peak of a sound has one or two


class SampleScale:
    """A check of a recording's float samples, made block by block.

    Samples may exceed full scale, as they do after mixing or filtering. The scale is
    certainly wrong if a sample exceeds 100, or if all samples so far are whole numbers
    and one of them exceeds 1. The block that shows this is refused, so no block of an
    unscaled recording is scored before the recording is refused.
    """

    def __init__(self, name: str):
        """Prepare to check the recording that messages call `name`."""
        self._name = name
        self._n_before, self._most, self._is_whole = 0, 0.0, True

    def check(self, block: Float32[np.ndarray, "sample *channel"]) -> None:
        """Check the recording's next samples.

        Raises:
            InputError: a sample is not finite, or full scale is not 1.
        """
        # abs() would copy the whole block. A comparison with NaN is false.
        is_sound = (block > -_LOUDEST) & (block < _LOUDEST)
        if not is_sound.all():
            first = np.unravel_index(np.argmin(is_sound), is_sound.shape)
            raise InputError(
                f"{self._name}: sample {self._n_before + first[0]} is {block[first]}: "
                "repair or replace the file"
            )
        self._n_before += len(block)
        largest = max(block.max(initial=0), -block.min(initial=0))
        self._most = max(self._most, float(largest))
        self._is_whole = self._is_whole and bool((block == np.rint(block)).all())
        if self._most > _MOST or (self._most > 1 and self._is_whole):
            raise InputError(
                f"{self._name}: the samples reach {self._most:g}, but full scale must "
                "be 1: divide the samples by their full scale, such as 32768 for "
                "16-bit samples"
            )


def waveform_of(array: Any, name: str) -> Float32[np.ndarray, "sample *channel"]:
    """Return an array of samples as float32 with a full scale of 1.

    The array's shape is `sample`, or `sample channel` for several channels. Integers
    are divided by the full scale of their type.

    Raises:
        InputError: the array is not a waveform, or its values suggest another full
            scale, such as 16-bit samples stored as int64 or float.
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


class Signal(NamedTuple):
    """The share of a clip's samples that is silent, and the share that is clipped.

    The log-mel shows neither, and neither depends on the scale of the samples.
    """

    # Samples that are exactly zero; 1 if the samples have at most three values: a
    # constant, or noise of one bit around it.
    silent: float
    clipped: float  # samples in flat tops


def signal_of(waveform: Float32[np.ndarray, "sample"]) -> Signal:
    """Measure a clip's samples, before they are resampled.

    A flat top is a row of three or more samples that all equal the clip's maximum, or
    all equal its minimum. These extremes depend on the recorder and need not be 1.
    """
    lowest, highest = waveform.min(), waveform.max()
    between = waveform[(waveform > lowest) & (waveform < highest)]
    if not len(between) or between.min() == between.max():
        return Signal(1.0, 0.0)
    n_flat = _in_rows(waveform == lowest) + _in_rows(waveform == highest)
    return Signal(float(np.mean(waveform == 0)), n_flat / len(waveform))


def _in_rows(is_extreme: Bool[np.ndarray, "sample"]) -> int:
    """Count the samples that belong to rows of at least `_FLAT` samples."""
    steps = np.diff(is_extreme.astype(np.int8), prepend=0, append=0)
    lengths = np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)
    return int(lengths[lengths >= _FLAT].sum())
