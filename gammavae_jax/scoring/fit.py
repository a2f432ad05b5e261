"""From training clips to a detector: the one pipeline of runs and own recordings."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import TRAIN, Capacity
from gammavae_jax.data.loading import Machines
from gammavae_jax.data.recording_clips import LoadedRecordings, parts_held_together
from gammavae_jax.errors import InputError
from gammavae_jax.process import local_devices
from gammavae_jax.scoring.detector import Detector, fit_scores
from gammavae_jax.scoring.threshold import too_few_clips
from gammavae_jax.training.loop import (
    Examples,
    Observer,
    Trained,
    stack_examples,
    train_examples,
)

_LEAST_STEPS = 1000  # of a model; after fewer, batch normalisation lags behind
_MOST_EPOCHS = 200
_SECTION = "00"  # own recordings have no sections


def fit(
    config: Config,
    machines: Machines,
    observer: Observer | None = None,
    capacity: Capacity | None = None,
    adapt_epochs: bool = False,
) -> Detector:
    """Train the models of all machines, and fit their scores and thresholds.

    Args:
        config: of the models, the training and the scores.
        machines: their training clips are used up: `machines.train` is empty after
            they were copied into arrays, so that memory holds them once.
        observer: shows progress and may save states; default: progress on standard
            error.
        capacity: the least that the arrays of a machine must hold.
        adapt_epochs: train for more epochs than configured if these have too few steps.

    Raises:
        InputError: a machine has too few clips, or a model diverged.
    """
    local_devices()  # refuses a forked process before it would wait forever
    observer = observer or Observer()
    examples = stack_examples(config, machines.train, observer.log, capacity)
    machines.train.clear()
    few = too_few_clips(examples.split.is_held_out, examples.names, config)
    if few and config.scoring.threshold != "official":
        observer.log.note(few)
    if adapt_epochs:
        config = _with_enough_epochs(config, examples)
    trained = train_examples(config, examples, observer)
    del examples
    with trained.placement, observer.log.timed("fit_s"):
        return fit_detector(config, trained, machines)


def fit_detector(config: Config, trained: Trained, machines: Machines) -> Detector:
    """Fit the scores and thresholds of trained models.

    Args:
        config: of the scores; its models must be those that were trained.
        trained: the result of `train_machines`.
        machines: whose names and filterbank the detector keeps.
    """
    config = replace(config, train=trained.config.train)
    names, bank = machines.names, machines.filterbank
    return fit_scores(config, trained.placement, names, bank, *trained[2:])


def fit_recordings(
    config: Config,
    loaded: Mapping[str, LoadedRecordings],
    filterbank: Float[np.ndarray, "bin mel"],
    observer: Observer,
    adapt_epochs: bool,
) -> Detector:
    """Fit a detector to a user's own recordings; see `fit` for shared arguments.

    Raises:
        InputError: a machine's name is not printable, it has fewer than two clips, or
            `fit` fails.
    """
    for name, found in loaded.items():
        if not name.isprintable():
            raise InputError(
                f"machine {name!r}: its name has characters that cannot be printed: "
                "rename it"
            )
        if len(found.clips.files) < 2:
            raise InputError(
                f"{name} has one clip: give two or more normal recordings, because "
                "thresholds need clips that a model did not learn from"
            )
    _require_whole_recordings(config, loaded)
    machines = Machines(
        tuple((name, _SECTION) for name in loaded),
        filterbank,
        train=[(name, found.clips) for name, found in loaded.items()],
        test=[],
    )
    config = _with_no_empty_fold(config, loaded)
    return fit(config, machines, observer, adapt_epochs=adapt_epochs)


def _require_whole_recordings(
    config: Config, loaded: Mapping[str, LoadedRecordings]
) -> None:
    """Refuse cut recordings, unless folds keep the clips of a recording together."""
    if config.train.split == "folds":
        return
    for name, found in loaded.items():
        if len(found.recording) > len(found.names):
            raise InputError(
                f"{name}: recordings longer than a clip need train.split=folds (the "
                f"preset {config.preset} has {config.train.split}): give single clips, "
                "a larger clip_seconds, or another preset"
            )


def _with_no_empty_fold(
    config: Config, loaded: Mapping[str, LoadedRecordings]
) -> Config:
    """Use at most as many folds as there are recordings to hold out, and at least 2."""
    if config.train.split != "folds":
        return config
    n_folds = config.train.n_folds
    parts = (parts_held_together(f.recording, n_folds) for f in loaded.values())
    fewest = min(int(of_machine.max()) + 1 for of_machine in parts)
    n_folds = max(2, min(n_folds, fewest))
    return replace(config, train=replace(config.train, n_folds=n_folds))


def _with_enough_epochs(config: Config, examples: Examples) -> Config:
    """Raise the epochs until every model takes about a thousand steps."""
    fewest = int((examples.split.group == TRAIN).sum(-1).min())
    steps = max(1, math.ceil(fewest / config.train.batch_size))
    wanted = min(math.ceil(_LEAST_STEPS / steps), _MOST_EPOCHS)
    epochs = max(config.train.epochs, wanted)
    return replace(config, train=replace(config.train, epochs=epochs))
