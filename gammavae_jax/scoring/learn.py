"""Adds normal recordings to a fitted detector without retraining its models.

The new clips join the training clips. The steps of `fit` that follow training are then
repeated: reference sets, held-out scores, thresholds and training conditions. Training
clips stay in the folds that hold them out. No model was trained on the new clips, so
they are assigned to the folds by recording.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import Capacity, capacity_to_learn, hash_name
from gammavae_jax.data.clips import NamedClips, group_numbers
from gammavae_jax.data.recording_notes import note_reference_channel
from gammavae_jax.data.recordings.clips import (
    LoadedRecordings,
    joined,
    parts_held_together,
)
from gammavae_jax.data.recordings.groups import group_clips, unmatched_note
from gammavae_jax.data.states import State
from gammavae_jax.data.training_clips import (
    TrainingClips,
    as_recordings,
    chosen_clips,
    find_copies,
)
from gammavae_jax.devices.local import local_devices
from gammavae_jax.devices.placement import Placement
from gammavae_jax.errors import InputError, names_text, printable
from gammavae_jax.log import Log
from gammavae_jax.scoring.decision import DecisionRule, clip_states
from gammavae_jax.scoring.detector import (
    Detector,
    calibrate,
    fit_scorers,
    machine_names,
    score_held_out,
)
from gammavae_jax.scoring.fit import clips_to_keep, training_conditions, with_conditions
from gammavae_jax.scoring.machine_axis import replace_machines, select_machines
from gammavae_jax.scoring.verdict import Verdict
from gammavae_jax.training.examples import place_examples, stack_examples
from gammavae_jax.training.members import NO_FOLD
from gammavae_jax.training.split import Split, deal_clusters

_MOST_NAMES = 5  # the largest number of names in a message
_FEWEST_NEW = 5  # with fewer new clips, their median error says little
_ENOUGH_OLD = 40  # the number of training clips that new clips are compared with
_UNUSUAL = 0.95  # the share of training clips that the model reconstructs better


class Learnt(NamedTuple):
    """The result of `learn`."""

    detector: Detector
    clips: dict[str, TrainingClips]  # every machine's training clips
    names: tuple[str, ...]  # the recordings that were learnt
    # Each of these recordings, judged as if it were new. Supplemental recordings,
    # which are never held out, have no verdict.
    verdicts: list[Verdict]


def learn(
    detector: Detector,
    kept: Mapping[str, TrainingClips],
    new: Mapping[str, LoadedRecordings],
    log: Log,
) -> Learnt:
    """Return a detector that has also learnt new normal recordings.

    Known recordings are not added again, and clips in which the machine is not running
    are left out; messages name both. Machines without new recordings stay as they are.

    Args:
        detector: the detector, which is not changed; its false-alarm rate is kept.
        kept: the training clips of each machine of the detector.
        new: the new recordings of each machine, all of them normal.
        log: shows messages.

    Raises:
        InputError: nothing is left to learn, or the thresholds are not conformal.
    """
    local_devices()  # raises an error in a forked process, where JAX would hang
    require_learnable(detector.config)
    names = machine_names(detector)
    numbers = sorted(map(names.index, new))
    old, added = {}, {}
    for number in numbers:
        name = names[number]
        old[name] = _comparable(as_recordings(kept[name]), detector.config)
        added[name] = _learnable(detector, number, kept[name], new[name], log)
    train = [(name, of_machine.clips) for name, of_machine in added.items()]
    note_reference_channel(train, log)
    if note := unmatched_note(train, detector.config.train.group_by):
        log.say(note)
    every = {name: joined(old[name], added[name]) for name in added}
    part, split = _refitted(
        select_machines(detector, numbers),
        every,
        [kept[name].fold for name in every],
        log,
    )
    learnt = replace_machines(detector, numbers, part)
    clips = {**kept, **clips_to_keep(learnt.config, every, split)}
    verdicts = [
        verdict
        for number in numbers
        for verdict in _verdicts(learnt, number, every, old[names[number]])
    ]
    names_learnt = tuple(name for of in added.values() for name in of.names)
    return Learnt(learnt, clips, names_learnt, verdicts)


def require_learnable(config: Config) -> None:
    """Raise an InputError if a detector with this configuration cannot learn."""
    kind, split = config.scoring.threshold, config.train.split
    if kind != "conformal" or split != "folds":
        raise InputError(
            f"the detector has {kind} thresholds and train.split={split}, but learning "
            "needs conformal thresholds and folds: refit with all recordings"
        )


def _learnable(
    detector: Detector,
    number: int,
    kept: TrainingClips,
    new: LoadedRecordings,
    log: Log,
) -> LoadedRecordings:
    """Return the recordings that a machine can learn; log the names of the others."""
    name = printable(machine_names(detector)[number])
    is_copy = find_copies(kept, new)
    if is_copy.any():
        known = [new.names[index] for index in np.flatnonzero(is_copy)]
        listed = names_text(known, _MOST_NAMES)
        log.say(f"{name}: already known, so not learnt again: {listed}")
    states = clip_states(detector, number, new)
    is_running = np.array([state == State.RUNNING for state in states])
    is_new = ~is_copy[new.recording]
    stopped = {
        f"{new.names[index]} ({state})": None
        for index, state in zip(new.recording.tolist(), states, strict=True)
        if state != State.RUNNING and not is_copy[index]
    }
    if stopped:
        log.say(
            f"{name}: clips that are not classified as running were left out: "
            f"{names_text(list(stopped), _MOST_NAMES)}. If they are normal, refit the "
            "detector"
        )
    if not (is_new & is_running).any():
        raise InputError(
            f"{name}: nothing to learn: each recording is already among the training "
            "recordings, or has no clip that is classified as running: pass other "
            "recordings"
        )
    return chosen_clips(new, is_new & is_running)


def _comparable(old: LoadedRecordings, config: Config) -> LoadedRecordings:
    """If there is only one training recording, treat its parts as recordings.

    `fit` compares these parts with each other. If they were linked, they would be
    compared only with the new recordings.
    """
    clips, group = old.clips, group_numbers(old.clips)
    if len(np.unique(group)) > 1:
        return old
    parts = parts_held_together(group, config.n_folds)
    return old._replace(clips=clips._replace(group=parts))


def _refitted(
    detector: Detector,
    every: Mapping[str, LoadedRecordings],
    folds: Sequence[Int[np.ndarray, "_"]],
    log: Log,
) -> tuple[Detector, Split]:
    """Refit everything except the models; `folds` has the old clips' folds.

    Returns:
        The detector, and the split of the clips.
    """
    config, n_old = detector.config, list(map(len, folds))
    train = [(name, of_machine.clips) for name, of_machine in every.items()]
    folds = _dealt(config, train, folds)
    most, capacity = max(map(len, folds)), Capacity(detector.weights.shape[-1], 0, 0)
    if most > capacity.clips:
        capacity = capacity_to_learn(most)
    examples = stack_examples(config, train, log, capacity, folds)
    conditions = training_conditions(config, train, examples.split, log)
    clips = examples.arrays.clips
    _, placement, data, split = place_examples(config, examples)
    with placement, log.busy("calibrating the scores"):
        scorer = placement.put(detector.scorer, "model")
        if any(name.startswith("mahalanobis") for name in config.computed_scores):
            window_use = placement.put(split.window_use, "model")
            scorer = fit_scorers(config, placement, scorer, data, window_use)
        fixed = detector.machines, detector.filterbank
        detector = calibrate(config, placement, *fixed, scorer, data, split)
        detector = with_conditions(detector, conditions, placement, clips, split)
        placed = placement.part(data, "clips")
        _note_new_sounds(detector, placement, placed, split, n_old, log)
    return detector, split


def _dealt(
    config: Config, train: NamedClips, folds: Sequence[Int[np.ndarray, "_"]]
) -> list[Int[np.ndarray, "_"]]:
    """Return each clip's fold; new clips are assigned to folds by recording or group.

    New clips of an old group go into the group's fold, because the models of the other
    folds were trained on the group.
    """
    every = []
    groups = group_clips(train, config.train.group_by)
    for (name, _), group, old in zip(train, groups, folds, strict=True):
        rng = np.random.default_rng([config.seed, hash_name(name), len(old)])
        fold_of = dict(zip(group[: len(old)].tolist(), old.tolist(), strict=True))
        numbers = group[len(old) :].tolist()
        known = np.array([fold_of.get(number, NO_FOLD) for number in numbers], int)
        dealt = deal_clusters(rng, group[len(old) :], config.n_folds)
        new = np.where(known == NO_FOLD, dealt, known)
        every.append(np.concatenate([old, new]))
    return every


def _note_new_sounds(
    detector: Detector,
    placement: Placement,
    data: Any,
    split: Split,
    n_old: Sequence[int],
    log: Log,
) -> None:
    """Log a message for each machine whose models reconstruct the new clips badly."""
    config = replace(detector.config, score="mse", scores=("mse",))
    is_wanted = np.ones_like(split.is_clip)
    for of_machine, n in zip(is_wanted, n_old, strict=True):
        of_machine[:n] = np.arange(n) % -(-n // _ENOUGH_OLD) == 0  # a sample saves time
    split = split._replace(is_held_out=split.is_held_out & is_wanted)
    errors = score_held_out(replace(detector, config=config), placement, data, split)()
    names = machine_names(detector)
    for name, of_clip, n in zip(names, errors["mse"][0], n_old, strict=True):
        old, new = (part[~np.isnan(part)] for part in (of_clip[:n], of_clip[n:]))
        if note := reconstruction_note(old, new, detector.config):
            log.say(f"{printable(name)}: {note}")


def reconstruction_note(
    old: Float[np.ndarray, "_"], new: Float[np.ndarray, "_"], config: Config
) -> str:
    """Return advice to refit if the model reconstructs new clips badly, or else "".

    Args:
        old: the reconstruction errors of held-out training clips.
        new: the reconstruction errors of new clips.
        config: the configuration; the advice says whether its scores need the model.
    """
    worse = float(np.mean(old < np.median(new))) if len(new) >= _FEWEST_NEW else 0.0
    if worse <= _UNUSUAL:
        return ""
    effect = "scores depend on it" if config.needs_model else "only plots need it"
    return (
        f"the model reconstructs the new recordings worse than {100 * worse:.0f} % of "
        f"the training clips ({effect}): refit with all recordings when you can"
    )


def _verdicts(
    detector: Detector,
    number: int,
    every: Mapping[str, LoadedRecordings],
    old: LoadedRecordings,
) -> list[Verdict]:
    """Judge a machine's new recordings, each as if it were not yet learnt."""
    recordings = every[machine_names(detector)[number]]
    rule = DecisionRule.of(detector, number)
    assert rule.held_out is not None
    seconds, verdicts = np.array(recordings.seconds), []
    for index in range(len(old.names), len(recordings.names)):
        clips = np.flatnonzero(recordings.recording == index)
        scores = rule.held_out[clips]
        if np.isnan(scores).any():  # supplemental clips are never held out
            continue
        judged = rule.without(clips).judge
        verdicts.append(judged(recordings.names[index], scores, seconds[clips]))
    return verdicts
