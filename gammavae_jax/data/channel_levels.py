"""Measures each channel's level in a recording, to find dead channels."""

import math
from typing import NamedTuple

import numpy as np

DEAD_DB = 30.0  # a channel this far below another one counts as dead


class LoudestChannel(NamedTuple):
    """The loudest channel of a recording."""

    number: int
    above: float  # dB, relative to a given channel; at most 120


class ChannelLevels:
    """The level of each channel of a recording, measured while it is read."""

    def __init__(self, n_channels: int):
        self._levels = np.zeros(n_channels)

    def add(self, block: np.ndarray) -> None:
        """Measure the next block of all channels, ignoring a constant offset."""
        with np.errstate(all="ignore"):  # unused channels may contain NaN or infinity
            levels = np.nan_to_num(block.std(0), posinf=0.0)
        self._levels = np.maximum(self._levels, levels)

    def loudest(self, channel: int) -> LoudestChannel:
        """Return the loudest channel so far, with its level relative to `channel`."""
        most, own = self._levels.max(), self._levels[channel]
        above = 20 * math.log10(most / max(own, most * 1e-6)) if most else 0.0
        return LoudestChannel(int(self._levels.argmax()), above)
