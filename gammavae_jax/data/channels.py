"""Defines which channels of a recording are read: one, or those of two microphones.

If one channel is read, a waveform has the shape `sample`. If a reference channel is
read as well, the shape is `sample 2`, and the near microphone's channel comes first.
"""

import numpy as np
from jaxtyping import Float32

from gammavae_jax.errors import InputError

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

    Args:
        channels: the channels to read, counted from 0.
        n_channels: the recording's number of channels.
        name: the recording's name.
        kind: what the recording is, such as "file" or "array".
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
