"""Chooses which of a recording's channels to read and finds dead channels.

A waveform of one channel has the shape `sample`. If a reference channel is read as
well, the shape is `sample 2`, and the near microphone's channel comes first.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from gammavae_jax.errors import InputError

DEAD_DB = 30.0  # a channel this far below another one is considered dead

Channels = int | tuple[int, int]  # one channel, or the near one and the reference


def near_waveform(
    waveform: Float32[np.ndarray, "sample *channel"],
) -> Float32[np.ndarray, "sample"]:
    """Return the near microphone's samples."""
    return waveform if waveform.ndim == 1 else waveform[:, 0]


def require_channels(
    channels: Channels, n_channels: int, name: str, kind: str = "file"
) -> None:
    """Raise an InputError if a recording lacks a channel that is to be read.

    The message calls the recording by its `name` and its `kind`, a file or an array.
    """
    near, *reference = (channels,) if isinstance(channels, int) else channels
    if not 0 <= near < n_channels:
        raise InputError(
            f"{name}: there is no channel {near} in this {kind}: choose a channel "
            f"from 0 to {n_channels - 1}"
        )
    if any(number >= n_channels for number in reference):
        raise InputError(
            f"{name}: there is no reference channel {reference[0]} in this {kind}, "
            f"whose channel count is {n_channels}: record both microphones in one "
            f"{kind}, or fit without features.reference_channel"
        )


class LoudestChannel(NamedTuple):
    """The loudest channel of a recording."""

    number: int
    above: float  # dB, relative to a given channel; at most 120


class ChannelLevels:
    """The level of each channel of a recording, measured while it is read."""

    def __init__(self, n_channels: int):
        self._levels = np.zeros(n_channels)

    def add(self, block: np.ndarray) -> None:
        """Measure all channels in the next block, ignoring any constant offset."""
        with np.errstate(all="ignore"):  # unused channels may contain NaN or infinity
            levels = np.nan_to_num(block.std(0), posinf=0.0)
        self._levels = np.maximum(self._levels, levels)

    def loudest(self, channel: int) -> LoudestChannel:
        """Return the loudest channel so far, with its level relative to `channel`."""
        most, own = self._levels.max(), self._levels[channel]
        above = 20 * math.log10(most / max(own, most * 1e-6)) if most else 0.0
        return LoudestChannel(int(self._levels.argmax()), above)
