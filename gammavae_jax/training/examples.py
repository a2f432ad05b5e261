"""What models learn from: the stacked clips of all machines, and their split."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import (
    Capacity,
    TrainingArrays,
    stack_machines,
    supplemental_clips,
)
from gammavae_jax.data.clips import NamedClips
from gammavae_jax.data.recording_clips import parts_held_together
from gammavae_jax.log import Log
from gammavae_jax.training.split import (
    Split,
    require_windows,
    split_notes,
    split_windows,
)


class Examples(NamedTuple):
    """The clips of all machines, ready for training, on the host."""

    names: tuple[str, ...]
    arrays: TrainingArrays
    split: Split


def stack_examples(
    config: Config, train: NamedClips, log: Log, capacity: Capacity | None = None
) -> Examples:
    """Stack the training clips, split them, and note what the user should know.

    Args:
        config: of the training.
        train: the name of each machine and its clips.
        log: receives the notes.
        capacity: the least that the arrays must hold.

    Raises:
        InputError: a machine has too few windows.
    """
    names = tuple(name for name, _ in train)
    arrays = stack_machines(train, config.features.n_context, capacity)
    is_extra = supplemental_clips(train, arrays.is_target.shape[1])
    split = split_windows(arrays, config, is_extra, _recordings(config, train, arrays))
    require_windows(split, names)
    for note in split_notes(arrays, split, names, config):
        log.note(note)
    return Examples(names, arrays, split)


def _recordings(
    config: Config, train: NamedClips, arrays: TrainingArrays
) -> Int[np.ndarray, "machine clip"] | None:
    """The part of a recording that each clip belongs to; None if none were cut."""
    if all(clips.recording is None for _, clips in train):
        return None
    parts = np.zeros(arrays.is_target.shape, int)
    for m, (_, clips) in enumerate(train):
        numbers = np.arange(len(clips.files))
        recording = numbers if clips.recording is None else clips.recording
        parts[m, : len(numbers)] = parts_held_together(recording, config.n_folds)
    return parts
