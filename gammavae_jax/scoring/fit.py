"""A detector from recordings in memory, with nothing left on disk."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import TRAIN, stack_machines
from gammavae_jax.data.recordings import LoadedRecordings, parts_held_together
from gammavae_jax.devices.deal import make_placement
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.scoring.detector import Detector, fit_detector
from gammavae_jax.scoring.threshold import too_few_clips
from gammavae_jax.training.loop import train_machines
from gammavae_jax.training.split import require_windows, split_notes, split_windows

_LEAST_STEPS = 1000  # of a model; after fewer, batch normalisation lags behind
_MOST_EPOCHS = 200
_SECTION = "00"  # own recordings have none


def fit_recordings(
    config: Config,
    loaded: Mapping[str, LoadedRecordings],
    filterbank: Float[np.ndarray, "bin mel"],
    log: Log,
    adapt_epochs: bool,
) -> Detector:
    """Train on the recordings of each machine, and fit scores and thresholds.

    Args:
        config: of the run.
        loaded: by machine.
        filterbank: that the log-mels were made with.
        log: of the progress.
        adapt_epochs: go through few recordings more often than the configuration says.

    Raises:
        InputError: a machine whose name cannot be shown or with less than two clips,
            or a model that broke down.
    """
    for name, found in loaded.items():
        if not name.isprintable():
            raise InputError(f"machine {name!r}: its name cannot be shown: rename it")
        if len(found.recording) < 2:
            raise InputError(
                f"{name} has one clip: give two or more normal recordings, for "
                "thresholds are made of those that a model was not trained on"
            )
    parts = [parts_held_together(f.recording, config.n_folds) for f in loaded.values()]
    _require_whole_recordings(config, loaded)
    config = _with_no_empty_fold(config, parts)
    arrays = stack_machines(
        [(name, found.clips) for name, found in loaded.items()],
        config.features.n_context,
    )
    held_together = np.zeros(arrays.n_frames.shape, int)
    for m, of_machine in enumerate(parts):
        held_together[m, : len(of_machine)] = of_machine
    split = split_windows(arrays, config, recordings=held_together)
    require_windows(split, list(loaded))
    for note in split_notes(arrays, split, list(loaded), config):
        log.say(note)
    few = too_few_clips(split.is_held_out, list(loaded), config)
    if few and config.scoring.threshold != "official":
        log.say(few)
    if adapt_epochs:
        fewest = int((split.group == TRAIN).sum(-1).min())
        config = _with_enough_epochs(config, fewest)
    n_windows = (split.group[0] > 0).sum(-1).tolist()
    with make_placement(
        n_windows, config.n_members, batching=config.train.batching
    ) as placement:
        placed = placement.put(arrays, "machine")
        log.say(f"compiling; {config.train.epochs} epochs of {config.n_folds} folds")
        names = list(loaded)
        state = train_machines(config, placement, names, placed, split.group, log)
        machines = [(name, _SECTION) for name in names]
        return fit_detector(
            config, placement, machines, filterbank, state, placed, split
        )


def _require_whole_recordings(
    config: Config, loaded: Mapping[str, LoadedRecordings]
) -> None:
    """Folds alone keep the clips of a recording together."""
    if config.train.split == "folds":
        return
    for name, found in loaded.items():
        if len(found.recording) > len(found.names):
            raise InputError(
                f"{name}: recordings longer than a clip need train.split=folds (the "
                f"preset {config.preset} has {config.train.split}): give single clips, "
                "a larger clip_seconds, or another preset"
            )


def _with_no_empty_fold(config: Config, parts: list[Int[np.ndarray, "_"]]) -> Config:
    """With as many folds as there are recordings to hold out, at least two."""
    if config.train.split != "folds":
        return config
    fewest = min(int(of_machine.max()) + 1 for of_machine in parts)
    n_folds = max(2, min(config.train.n_folds, fewest))
    return replace(config, train=replace(config.train, n_folds=n_folds))


def _with_enough_epochs(config: Config, n_windows: int) -> Config:
    """More epochs than the configuration's, if those have too few steps."""
    steps = max(1, math.ceil(n_windows / config.train.batch_size))
    wanted = min(math.ceil(_LEAST_STEPS / steps), _MOST_EPOCHS)
    epochs = max(config.train.epochs, wanted)
    return replace(config, train=replace(config.train, epochs=epochs))
