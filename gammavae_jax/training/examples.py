"""Stacks the training clips of all machines into arrays and splits them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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
from gammavae_jax.data.recordings.groups import group_by_attributes, group_clips
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.devices.placement import Placement
from gammavae_jax.log import Log
from gammavae_jax.training.split import (
    Split,
    require_windows,
    split_notes,
    split_windows,
)


class Examples(NamedTuple):
    """The clips of all machines, in host memory, stacked and split for training."""

    names: tuple[str, ...]
    arrays: TrainingArrays
    split: Split


class PlacedExamples(NamedTuple):
    """The clips of all machines, on the devices where the models train."""

    names: tuple[str, ...]
    placement: Placement
    data: Any  # the placed `TrainingArrays`
    split: Split


def stack_examples(
    config: Config,
    train: NamedClips,
    log: Log,
    capacity: Capacity | None = None,
    folds: Sequence[Int[np.ndarray, "_"]] | None = None,
) -> Examples:
    """Stack the training clips of all machines, split them, and log any warnings.

    `folds` has the fold of each clip, if known; see `split_windows`.

    Raises:
        InputError: a machine has too few windows.
    """
    names = tuple(name for name, _ in train)
    groups = group_clips(train, config.train.group_by)
    arrays = stack_machines(train, config.features.n_context, capacity)
    is_extra = supplemental_clips(train, arrays.is_target.shape[1])
    attributes = _attributes(config, train, log)
    split = split_windows(arrays, config, is_extra, groups, attributes, folds)
    require_windows(split, names)
    for note in split_notes(arrays, split, names, config):
        log.note(note)
    return Examples(names, arrays, split)


def _attributes(
    config: Config, train: NamedClips, log: Log
) -> list[Int[np.ndarray, "_"]] | None:
    """Number the clips by their attributes; log a note if any clips share attributes.

    Return None if the split is not `folds`, if `train.group_by` is set, or if
    `train.attributes` is "ignore".
    """
    settings = config.train
    is_used = settings.attributes == "sessions" and not settings.group_by
    if settings.split != "folds" or not is_used:
        return None
    attributes = [group_by_attributes(clips) for _, clips in train]
    names = [
        name
        for (name, _), of_clip in zip(train, attributes, strict=True)
        if len(np.unique(of_clip)) < len(of_clip)
    ]
    if names:
        log.note(
            "Training clips with equal attributes in their names are not compared with "
            f"each other: {', '.join(names)}. If the attributes describe states to "
            "which the machine often returns, set train.attributes=ignore."
        )
    return attributes


def place_examples(config: Config, examples: Examples) -> PlacedExamples:
    """Copy examples to the devices; the host can then free its own copy."""
    names, arrays, split = examples
    n_windows = (split.window_use[0] > 0).sum(-1).tolist()
    placement = make_placement(
        n_windows, config.n_members, batching=config.train.batching
    )
    return PlacedExamples(names, placement, placement.put(arrays, "machine"), split)
