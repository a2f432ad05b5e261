"""Defines padded arrays that hold the log-mels of many clips and machines.

Clips may differ in length, and machines may differ in their number of clips.
"""

import zlib
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from gammavae_jax.data.clips import Clips, NamedClips
from gammavae_jax.data.machines import ClipFile, is_supplemental

AnyArray = Array | np.ndarray  # on a device or on the host

# What a window is used for. Padding must be 0: unused slots are filled with zeros.
PADDING, TRAIN, HELD_OUT = 0, 1, 2
_CLIPS_IN_A_STEP, _CLIPS_TO_LEARN = 16, 10


class ClipArrays(NamedTuple):
    """The log-mels of one or more machines' clips, padded with zeros, for scoring.

    A clip of 0 frames is padding. Models with normalised bands subtract a clip's level,
    so that gain does not matter.
    """

    log_mel: Float[AnyArray, "*machine clip frame mel"]  # dB
    n_frames: Int[AnyArray, "*machine clip"]
    level: Float[AnyArray, "*machine clip"]  # dB; the mean over all bands and frames


class TrainingArrays(NamedTuple):
    """Clips with the window positions and domains that training needs."""

    clips: ClipArrays
    is_target: Bool[AnyArray, "*machine clip"]
    # The index of each window's first frame in the joined padded clips:
    # `clip * n_frames + frame`.
    window_start: Int[AnyArray, "*machine window"]
    name_hash: UInt32[AnyArray, "*machine"]


class Capacity(NamedTuple):
    """The size of the arrays that hold one machine's clips."""

    clips: int
    frames: int  # of a clip
    windows: int

    def joined(self, other: "Capacity") -> "Capacity":
        """Return the smallest capacity that is at least as large as both capacities."""
        return Capacity(*map(max, self, other))


def capacity_needed(n_frames: Sequence[int], n_context: int) -> Capacity:
    """Return the capacity needed for clips of these lengths."""
    n_windows = sum(n - n_context + 1 for n in n_frames)
    return Capacity(len(n_frames), max(n_frames), n_windows)


def capacity_to_learn(n_clips: int) -> Capacity:
    """Return a capacity for these clips and at least ten more to be learnt later.

    The number of clips is rounded up to a multiple of 16 or, if that is larger, of a
    quarter of the next power of two. Arrays of the same size share compiled programs.
    """
    n_clips += _CLIPS_TO_LEARN
    step = max(_CLIPS_IN_A_STEP, (1 << (n_clips - 1).bit_length()) // 4)
    return Capacity(n_clips + -n_clips % step, 0, 0)


def stack_clips(
    machines: Sequence[Clips], n_context: int, capacity: Capacity | None = None
) -> ClipArrays:
    """Stack several machines' clips and pad the arrays to at least `capacity`."""
    needed = _capacity(machines, n_context, capacity)
    shape = len(machines), needed.clips
    n_mels = machines[0].log_mels[0].shape[1]
    stacked = ClipArrays(
        log_mel=np.zeros((*shape, needed.frames, n_mels), np.float32),
        n_frames=np.zeros(shape, np.int32),
        level=np.zeros(shape, np.float32),
    )
    for m, clips in enumerate(machines):
        for c, log_mel in enumerate(clips.log_mels):
            stacked.log_mel[m, c, : len(log_mel)] = log_mel
            stacked.n_frames[m, c] = len(log_mel)
            stacked.level[m, c] = clip_level(log_mel)
    return stacked


def clip_level(log_mel: Float[np.ndarray, "frame mel"]) -> np.float32:
    """Return the mean of a log-mel in dB, or 0 if it has no frames."""
    return np.float32(log_mel.mean(dtype=np.float64) if len(log_mel) else 0.0)


def shortened(
    clips: ClipArrays, n_frames: Int[np.ndarray, "machine clip"]
) -> ClipArrays:
    """Shorten clips to `n_frames` frames on the host and update their levels."""
    level = np.zeros(n_frames.shape, np.float32)
    for place, count in np.ndenumerate(n_frames):
        level[place] = clip_level(np.asarray(clips.log_mel[place][:count]))
    return clips._replace(n_frames=n_frames, level=level)


def stack_machines(
    machines: NamedClips, n_context: int, capacity: Capacity | None = None
) -> TrainingArrays:
    """Stack several machines' training clips and pad them as `stack_clips` does."""
    all_clips = [clips for _, clips in machines]
    needed = _capacity(all_clips, n_context, capacity)
    clips = stack_clips(all_clips, n_context, needed)
    stacked = TrainingArrays(
        clips,
        is_target=np.zeros(clips.n_frames.shape, bool),
        window_start=np.zeros((len(machines), needed.windows), np.int32),
        name_hash=np.array([hash_name(name) for name, _ in machines], np.uint32),
    )
    for m, of_machine in enumerate(all_clips):
        stacked.is_target[m, : len(of_machine.files)] = is_target(of_machine.files)
        starts = [
            c * needed.frames + np.arange(len(log_mel) - n_context + 1)
            for c, log_mel in enumerate(of_machine.log_mels)
        ]
        stacked.window_start[m, : sum(map(len, starts))] = np.concatenate(starts)
    return stacked


def _capacity(
    machines: Sequence[Clips], n_context: int, least: Capacity | None
) -> Capacity:
    """Return the capacity needed for these clips; it is at least `least`."""
    lengths = [[len(log_mel) for log_mel in clips.log_mels] for clips in machines]
    needed = [capacity_needed(of_machine, n_context) for of_machine in lengths]
    return reduce(Capacity.joined, needed, least or needed[0])


def supplemental_clips(
    machines: NamedClips, n_clips: int
) -> Bool[np.ndarray, "machine clip"]:
    """Return a mask of each machine's supplemental clips, padded to `n_clips`."""
    found = np.zeros((len(machines), n_clips), bool)
    for m, (_, clips) in enumerate(machines):
        found[m, : len(clips.files)] = [is_supplemental(file) for file in clips.files]
    return found


def is_target(files: Sequence[ClipFile]) -> Bool[np.ndarray, "clip"]:
    """Return whether each clip's name puts it in the target domain."""
    return np.array([file.name.domain == "target" for file in files])


def is_anomaly(files: Sequence[ClipFile]) -> Bool[np.ndarray, "clip"] | None:
    """Return whether each clip is labelled anomalous, or None if a label is missing."""
    if not all(file.name.label for file in files):
        return None
    return np.array([file.name.label == "anomaly" for file in files])


def hash_name(name: str) -> int:
    """Return a reproducible 32-bit hash of a machine's name, to seed random numbers."""
    return zlib.crc32(name.encode())
