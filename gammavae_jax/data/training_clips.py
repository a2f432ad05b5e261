"""Stores training clips in a detector, so that it can learn more clips later.

Log-mels are stored in steps of 1/200 dB, as 16-bit integers: about 80 kB for a clip of
ten seconds. Two recordings of one machine differ by far more than such a step.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int16

from gammavae_jax.data.audio.samples import Signal
from gammavae_jax.data.clips import Clips, without_attributes
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.recordings.clips import LoadedRecordings

_STEPS_IN_DB = 200
_SAME_STEPS = 2  # computers round differently


class TrainingClips(NamedTuple):
    """The clips of one machine's training recordings; see `Clips` for most fields."""

    names: tuple[str, ...]  # of the recordings
    recording: Int[np.ndarray, "clip"]
    steps: tuple[Int16[np.ndarray, "_ mel"], ...]  # the log-mels, in 1/200 dB
    seconds: tuple[float, ...]
    signals: tuple[Signal, ...]
    formats: frozenset[tuple[int, int]]
    explained: tuple[float, ...]
    group: Int[np.ndarray, "clip"] | None
    fold: Int[np.ndarray, "clip"]  # the fold that holds out the clip, or `NO_FOLD`


def kept_clips(
    loaded: LoadedRecordings, fold: Int[np.ndarray, "clip"]
) -> TrainingClips:
    """Return a machine's training clips in the form that a detector stores."""
    clips = loaded.clips
    return TrainingClips(
        loaded.names,
        loaded.recording,
        tuple(map(_in_steps, clips.log_mels)),
        loaded.seconds,
        clips.signals,
        clips.formats,
        clips.explained,
        clips.group,
        fold,
    )


def as_recordings(kept: TrainingClips) -> LoadedRecordings:
    """Return stored recordings as they were loaded, except for rounding errors."""
    each = [clip_file(Path(name)) for name in kept.names]
    files = tuple(each[number] for number in kept.recording.tolist())
    clips = Clips(
        files if kept.group is None else without_attributes(files),
        tuple(map(_in_db, kept.steps)),
        kept.recording,
        kept.formats,
        kept.explained,
        kept.group,
        kept.signals,
    )
    return LoadedRecordings(kept.names, clips, seconds=kept.seconds)


def chosen_clips(
    loaded: LoadedRecordings, is_chosen: Bool[np.ndarray, "clip"]
) -> LoadedRecordings:
    """Return only the chosen clips; recordings without chosen clips are left out."""
    clips, chosen = loaded.clips, np.flatnonzero(is_chosen).tolist()
    kept, recording = np.unique(loaded.recording[chosen], return_inverse=True)

    def choose(values: tuple) -> tuple:
        return tuple(values[clip] for clip in chosen) if values else ()

    return LoadedRecordings(
        tuple(loaded.names[number] for number in kept.tolist()),
        clips._replace(
            files=choose(clips.files),
            log_mels=choose(clips.log_mels),
            recording=recording,
            explained=choose(clips.explained),
            group=None if clips.group is None else clips.group[chosen],
            signals=choose(clips.signals),
        ),
        seconds=choose(loaded.seconds),
    )


def find_copies(
    kept: TrainingClips, new: LoadedRecordings, among_new: bool = True
) -> Bool[np.ndarray, "_"]:
    """Return which new recordings are copies of a stored recording.

    With `among_new`, copies of an earlier new recording are marked, too.
    """
    steps = tuple(map(_in_steps, new.clips.log_mels))
    known = _by_recording(kept.steps, kept.recording)
    is_copy = []
    for clips in _by_recording(steps, new.recording):
        is_copy.append(any(_are_equal(clips, other) for other in known))
        if among_new:
            known.append(clips)
    return np.array(is_copy)


_Steps = tuple[Int16[np.ndarray, "_ mel"], ...]


def _by_recording(steps: _Steps, recording: Int[np.ndarray, "clip"]) -> list[_Steps]:
    numbers = range(int(recording.max(initial=-1)) + 1)
    return [
        tuple(steps[clip] for clip in np.flatnonzero(recording == number))
        for number in numbers
    ]


def _are_equal(clips: _Steps, others: _Steps) -> bool:
    return len(clips) == len(others) and all(
        clip.shape == other.shape
        # The first frame nearly always differs, so the others need not be compared.
        and all(_differ_little(clip[part], other[part]) for part in (slice(1), ...))
        for clip, other in zip(clips, others, strict=True)
    )


def _differ_little(one: np.ndarray, other: np.ndarray) -> bool:
    return int(np.abs(one.astype(np.int32) - other).max(initial=0)) <= _SAME_STEPS


def _in_steps(log_mel: Float[np.ndarray, "frame mel"]) -> Int16[np.ndarray, "_ mel"]:
    limits = np.iinfo(np.int16)
    steps = np.rint(log_mel * np.float64(_STEPS_IN_DB))
    return np.clip(steps, limits.min, limits.max).astype(np.int16)


def _in_db(steps: Int16[np.ndarray, "_ mel"]) -> Float32[np.ndarray, "_ mel"]:
    return steps.astype(np.float32) / np.float32(_STEPS_IN_DB)
