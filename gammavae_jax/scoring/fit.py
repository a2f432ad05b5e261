"""Runs the whole pipeline, from training clips to a fitted detector."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import TRAIN, Capacity, ClipArrays, capacity_to_learn
from gammavae_jax.data.clips import NamedClips, recording_numbers
from gammavae_jax.data.conditions import Conditions, conditions_of
from gammavae_jax.data.domain_rule import fit_domain_rule
from gammavae_jax.data.loading import Machines
from gammavae_jax.data.recording_notes import note_reference_channel
from gammavae_jax.data.recordings.clips import LoadedRecordings, parts_held_together
from gammavae_jax.data.recordings.groups import group_clips, unmatched_note, with_groups
from gammavae_jax.data.training_clips import TrainingClips, kept_clips
from gammavae_jax.devices.local import local_devices
from gammavae_jax.devices.placement import Placement
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.scoring.detector import Detector, fit_scores, machine_names
from gammavae_jax.scoring.domains import (
    domain_notes,
    require_conformal,
    require_one_threshold,
)
from gammavae_jax.scoring.sample_size import independent_recordings, sample_size_notes
from gammavae_jax.scoring.short_clips import calibrate_short_clips
from gammavae_jax.training.examples import Examples, place_examples, stack_examples
from gammavae_jax.training.links import link_groups
from gammavae_jax.training.loop import Observer, Trained, train_examples
from gammavae_jax.training.members import folds_of_clips
from gammavae_jax.training.split import Split

# Training steps per model. With fewer, the running statistics lag behind. If no score
# needs the model, only plots in reports do, for which fewer steps are enough.
_LEAST_STEPS, _LEAST_STEPS_FOR_PICTURES = 1000, 400
_MOST_EPOCHS = 200
_SECTION = "00"  # a user's own recordings have no sections


def fit(
    config: Config,
    machines: Machines,
    observer: Observer | None = None,
    capacity: Capacity | None = None,
    adapt_epochs: bool = False,
    any_length: bool = False,
) -> Detector:
    """Train the models of all machines and fit their scores and thresholds.

    Args:
        config: the configuration.
        machines: the machines with their training clips. `machines.train` is emptied
            once the clips are copied into arrays, so that memory holds them only once.
        observer: shows progress and may save states; default: show progress on standard
            error.
        capacity: the minimum size of one machine's arrays.
        adapt_epochs: train for more epochs if the configured number is too small.
        any_length: also calibrate the scores of clips shorter than the training clips.

    Raises:
        InputError: a machine has too few clips, or a model diverged.
    """
    return _fit(config, machines, observer, capacity, adapt_epochs, any_length)[0]


def _fit(
    config: Config,
    machines: Machines,
    observer: Observer | None,
    capacity: Capacity | None,
    adapt_epochs: bool,
    any_length: bool,
) -> tuple[Detector, Split]:
    """Do what `fit` does; also return the split of the training clips."""
    local_devices()  # raises an error in a forked process, where JAX would hang
    observer = observer or Observer()
    log = observer.log
    require_conformal(config.scoring)
    note_reference_channel(machines.train, log)
    examples = stack_examples(config, machines.train, log, capacity)
    if note := unmatched_note(machines.train, config.train.group_by):
        log.note(note)
    conditions = training_conditions(config, machines.train, examples.split, log)
    machines.train.clear()
    if adapt_epochs:
        config = _with_enough_epochs(config, examples)
    clips = examples.arrays.clips if any_length else None
    examples = place_examples(config, examples)  # the host's copies are freed
    trained = train_examples(config, examples, observer)
    with trained.placement, log.timed("fit_s"), log.busy("calibrating the scores"):
        detector = fit_detector(config, trained, machines)
        split = trained.split
        detector = with_conditions(
            detector, conditions, trained.placement, clips, split
        )
    for note in domain_notes(detector):
        log.note(note)
    return detector, split


def training_conditions(
    config: Config, train: NamedClips, split: Split, log: Log
) -> list[Conditions]:
    """Return the training conditions; log a note if there are too few recordings.

    Args:
        config: the configuration.
        train: each machine's name and training clips.
        split: the split of these clips.
        log: shows the notes.
    """
    conditions = [conditions_of(clips, config.features) for _, clips in train]
    if config.scoring.threshold == "official":
        return conditions
    recordings = group_clips(train, config.train.group_by)
    # The parts of a recording are one recording, even if they are compared.
    whole = [recording_numbers(clips) for _, clips in train]
    split = split._replace(is_linked=link_groups(split.is_linked, whole))
    names = [name for name, _ in train]
    for note in sample_size_notes(split, recordings, names, config):
        log.note(note)
    counts = independent_recordings(split, recordings, config)
    if config.scoring.by_domain:
        linked = zip(train, split.is_linked, strict=True)
        rules = [fit_domain_rule(clips, links) for (_, clips), links in linked]
        both = zip(conditions, rules, strict=True)
        conditions = [of._replace(domains=rule) for of, rule in both]
    pairs = zip(conditions, counts.tolist(), strict=True)
    return [of._replace(n_recordings=count) for of, count in pairs]


def with_conditions(
    detector: Detector,
    conditions: Sequence[Conditions],
    placement: Placement,
    clips: ClipArrays | None,
    split: Split,
) -> Detector:
    """Add the training conditions to a detector.

    Args:
        detector: the detector.
        conditions: the training conditions of each machine.
        placement: the placement of the detector's models.
        clips: the training clips, on the host, used to calibrate the scores of shorter
            clips; None: do not calibrate them.
        split: the split of the training clips.
    """
    of_machine = dict(zip(machine_names(detector), conditions, strict=True))
    detector = replace(detector, conditions=of_machine)
    if clips is None:
        return detector
    return calibrate_short_clips(detector, placement, clips, split)


def fit_detector(config: Config, trained: Trained, machines: Machines) -> Detector:
    """Fit a detector to trained models.

    Args:
        config: the configuration; only `scoring` may differ from `trained`.
        trained: the result of `train_machines`.
        machines: the machines, whose names and filterbank the detector stores.
    """
    config = replace(config, train=trained.config.train)
    names, bank = machines.names, machines.filterbank
    with trained.placement:
        return fit_scores(config, trained.placement, names, bank, *trained[2:])


def fit_recordings(
    config: Config,
    loaded: Mapping[str, LoadedRecordings],
    filterbank: Float[np.ndarray, "bin mel"],
    observer: Observer,
    adapt_epochs: bool,
    groups: Any = None,
) -> tuple[Detector, dict[str, TrainingClips]]:
    """Fit a detector to a user's own recordings; see `fit` for the shared arguments.

    `groups` holds a label for each recording; see `recordings.groups.with_groups`.

    Returns:
        The detector, and the training clips of each machine.

    Raises:
        InputError: a machine has fewer than two clips, or `fit` fails.
    """
    require_one_threshold(config)
    for name, found in loaded.items():
        if len(found.clips.files) < 2:
            raise InputError(
                f"{name} has one clip: use at least two normal recordings, because "
                "the threshold is set on clips that the model was not trained on"
            )
    _require_whole_recordings(config, loaded)
    loaded = with_groups(loaded, groups)
    machines = Machines(
        tuple((name, _SECTION) for name in loaded),
        filterbank,
        train=[(name, found.clips) for name, found in loaded.items()],
        test=[],
    )
    config = _with_no_empty_fold(config, loaded)
    capacity = capacity_to_learn(max(len(found.files) for _, found in machines.train))
    detector, split = _fit(config, machines, observer, capacity, adapt_epochs, True)
    return detector, clips_to_keep(config, loaded, split)


def clips_to_keep(
    config: Config, loaded: Mapping[str, LoadedRecordings], split: Split
) -> dict[str, TrainingClips]:
    """Return the training clips of each machine, in the form that a detector stores."""
    folds = folds_of_clips(split.is_held_out, config.n_folds)[0]
    return {
        name: kept_clips(of_machine, fold[: len(of_machine.clips.files)])
        for (name, of_machine), fold in zip(loaded.items(), folds, strict=True)
    }


def _require_whole_recordings(
    config: Config, loaded: Mapping[str, LoadedRecordings]
) -> None:
    """Reject recordings that were cut into clips, unless the split uses folds."""
    if config.train.split == "folds":
        return
    for name, found in loaded.items():
        if len(found.recording) > len(found.names):
            raise InputError(
                f"{name}: recordings that are cut into clips need train.split=folds, "
                f"but the preset {config.preset!r} uses {config.train.split!r}: use "
                "shorter recordings, a larger clip_seconds, or another preset"
            )


def _with_no_empty_fold(
    config: Config, loaded: Mapping[str, LoadedRecordings]
) -> Config:
    """Use fewer folds (at least two) if a machine has too few clips for all folds."""
    if config.train.split != "folds":
        return config
    n_folds = config.train.n_folds
    train = [(name, found.clips) for name, found in loaded.items()]
    groups = group_clips(train, config.train.group_by)
    parts = (parts_held_together(of_machine, n_folds) for of_machine in groups)
    fewest = min(int(of_machine.max()) + 1 for of_machine in parts)
    n_folds = max(2, min(n_folds, fewest))
    return replace(config, train=replace(config.train, n_folds=n_folds))


def _with_enough_epochs(config: Config, examples: Examples) -> Config:
    """Raise the number of epochs, up to 200, so that each model takes enough steps."""
    fewest = int((examples.split.window_use == TRAIN).sum(-1).min())
    steps = max(1, math.ceil(fewest / config.train.batch_size))
    least = _LEAST_STEPS if config.needs_model else _LEAST_STEPS_FOR_PICTURES
    wanted = min(math.ceil(least / steps), _MOST_EPOCHS)
    epochs = max(config.train.epochs, wanted)
    return replace(config, train=replace(config.train, epochs=epochs))
