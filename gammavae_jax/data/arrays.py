"""Recordings to `MachineArrays`: log-mels, padded, masked and stacked.

Clips may differ in length, and machines in clip count.
"""

import zlib
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import ClipFile, is_supplemental

AnyArray = Array | np.ndarray  # on a device or on the host

# What a window is used for. Padding must be 0: free slots are filled with zeros.
PADDING, TRAIN, HELD_OUT = 0, 1, 2


class MachineArrays(NamedTuple):
    """Clips of one machine, or with a leading axis of many, padded with zeros.

    `window_start` is the first frame of each window, as `clip * n_frames + frame` of
    the padded arrays. A clip of 0 frames is padding.
    """

    log_mel: Float[AnyArray, "*machine clip frame mel"]
    n_frames: Int[AnyArray, "*machine clip"]
    is_target: Bool[AnyArray, "*machine clip"]
    window_start: Int[AnyArray, "*machine window"]
    name_hash: UInt32[AnyArray, "*machine"]


class Capacity(NamedTuple):
    """What the arrays of a machine can hold; machines that are stacked share it."""

    clips: int
    frames: int  # of a clip
    windows: int

    def joined(self, other: "Capacity") -> "Capacity":
        """Room for what either has room for."""
        return Capacity(*map(max, self, other))


def capacity_needed(n_frames: Sequence[int], n_context: int) -> Capacity:
    """By one machine with clips of so many frames."""
    return Capacity(
        len(n_frames), max(n_frames), sum(t - n_context + 1 for t in n_frames)
    )


def stack_machines(
    machines: Sequence[tuple[str, Clips]], n_context: int, room: Capacity | None = None
) -> MachineArrays:
    """Pad and stack clips; each entry is a machine's name and its clips.

    The arrays have at least the given room: machines elsewhere may need it.
    """
    log_mels = [clips.log_mels for _, clips in machines]
    lengths = [[len(spectrogram) for spectrogram in m] for m in log_mels]
    needed = [capacity_needed(of_machine, n_context) for of_machine in lengths]
    room = reduce(Capacity.joined, needed, room or needed[0])
    shape, most_frames = (len(machines), room.clips), room.frames
    stacked = MachineArrays(
        log_mel=np.zeros((*shape, most_frames, log_mels[0][0].shape[1]), np.float32),
        n_frames=np.zeros(shape, np.int32),
        is_target=np.zeros(shape, bool),
        window_start=np.zeros((len(machines), room.windows), np.int32),
        name_hash=np.array([hash_name(name) for name, _ in machines], np.uint32),
    )
    for m, (_, clips) in enumerate(machines):
        for c, spectrogram in enumerate(clips.log_mels):
            stacked.log_mel[m, c, : len(spectrogram)] = spectrogram
        stacked.n_frames[m, : len(clips.files)] = lengths[m]
        stacked.is_target[m, : len(clips.files)] = is_target(clips.files)
        starts = [
            c * most_frames + np.arange(t - n_context + 1)
            for c, t in enumerate(lengths[m])
        ]
        stacked.window_start[m, : sum(map(len, starts))] = np.concatenate(starts)
    return stacked


def supplemental_clips(
    machines: Sequence[tuple[str, Clips]], n_clips: int
) -> Bool[np.ndarray, "machine clip"]:
    """Which clips of arrays with `n_clips` places are of a folder `supplemental`."""
    found = np.zeros((len(machines), n_clips), bool)
    for m, (_, clips) in enumerate(machines):
        found[m, : len(clips.files)] = [is_supplemental(file) for file in clips.files]
    return found


def is_target(files: Sequence[ClipFile]) -> Bool[np.ndarray, "clip"]:
    """Whether each clip belongs to the target domain, by its name."""
    return np.array([file.name.domain == "target" for file in files])


def is_anomaly(files: Sequence[ClipFile]) -> Bool[np.ndarray, "clip"] | None:
    """Whether each clip is anomalous, by its name; None where a name does not say."""
    if not all(file.name.label for file in files):
        return None
    return np.array([file.name.label == "anomaly" for file in files])


def hash_name(name: str) -> int:
    """A stable 32-bit hash, from which a machine's randomness is folded."""
    return zlib.crc32(name.encode())
