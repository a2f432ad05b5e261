"""Measures in a clip's samples what its log-mel does not show: silence and clipping."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

_FLAT = 3  # equal samples in a row; a peak of a sound has one or two


class Signal(NamedTuple):
    """Two shares of a clip's samples; neither depends on the scale."""

    # Samples that are exactly zero; 1 if the samples have at most three values: a
    # constant, or noise of one bit around it.
    silent: float
    clipped: float  # samples in flat tops


def signal_of(waveform: Float32[np.ndarray, "sample"]) -> Signal:
    """Measure a clip's samples, before they are resampled.

    A flat top is a row of three or more samples that all equal the clip's maximum, or
    all equal its minimum. These values depend on the recorder, and need not be 1.
    """
    lowest, highest = waveform.min(), waveform.max()
    between = waveform[(waveform > lowest) & (waveform < highest)]
    if not len(between) or between.min() == between.max():
        return Signal(1.0, 0.0)
    n_flat = _in_rows(waveform == lowest) + _in_rows(waveform == highest)
    return Signal(float(np.mean(waveform == 0)), n_flat / len(waveform))


def _in_rows(is_extreme: Bool[np.ndarray, "sample"]) -> int:
    """Count the samples that belong to rows of `_FLAT` or more."""
    steps = np.diff(is_extreme.astype(np.int8), prepend=0, append=0)
    lengths = np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)
    return int(lengths[lengths >= _FLAT].sum())
