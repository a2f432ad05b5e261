"""Fits a detector to the trained models of all machines and scores clips with it.

A member is one model of a machine: one for each seed or, if there are folds, one for
each fold of each seed. For each seed, a clip's score is the mean of the members'
scores. For calibration, each training clip is scored by the member that was not trained
on it, which shows how high normal clips score.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from threadpoolctl import threadpool_limits

from gammavae_jax.config import FUSION_SCORES, Config
from gammavae_jax.data.arrays import ClipArrays
from gammavae_jax.data.conditions import Conditions
from gammavae_jax.data.machines import unit_name
from gammavae_jax.devices.placement import HashablePartial, Kind, Placement
from gammavae_jax.errors import InputError
from gammavae_jax.scoring.fusion import Scores, equalise_ties, fuse
from gammavae_jax.scoring.neighbours import Reference
from gammavae_jax.scoring.references import CLIPS_AT_ONCE, fit_references
from gammavae_jax.scoring.scorer import (
    FittedModel,
    fit_scorer,
    score_batches,
    score_machine,
)
from gammavae_jax.scoring.threshold import fit_thresholds, p_values
from gammavae_jax.training.links import independence
from gammavae_jax.training.members import by_clip, chosen_indices, member_numbers
from gammavae_jax.training.split import Split


@dataclass(frozen=True)
class Detector:
    """Models, reference sets and thresholds of all machines and members, on the host.

    `calibration` holds the scores of the held-out training clips, for every score that
    is configured or fused. Scores of clips that were not held out are NaN. With
    official thresholds, `calibration` is empty.
    """

    config: Config
    machines: tuple[tuple[str, str], ...]  # machine type and section
    filterbank: Float32[np.ndarray, "bin mel"]
    scorer: FittedModel  # arrays with the axes `member machine ...`
    references: Mapping[str, Reference]  # arrays with the axes `member machine ...`
    calibration: Scores
    weights: Float[np.ndarray, "machine clip"]  # see `training.links.independence`
    thresholds: Mapping[str, Float[np.ndarray, "seed machine"]]
    # The training conditions, by the names that `machine_names` returns.
    conditions: Mapping[str, Conditions] = field(default_factory=dict)


def machine_names(detector: Detector) -> tuple[str, ...]:
    """Name each machine by its type, and by its section if the type has several."""
    types = [machine for machine, _ in detector.machines]
    return tuple(
        machine if types.count(machine) == 1 else unit_name(machine, section)
        for machine, section in detector.machines
    )


def fit_scores(
    config: Config,
    placement: Placement,
    machines: Sequence[tuple[str, str]],
    filterbank: Float32[np.ndarray, "bin mel"],
    state: Any,
    data: Any,
    split: Split,
) -> Detector:
    """Fit scorers, reference sets and thresholds to trained models.

    Args:
        config: the models' configuration.
        placement: the placement of the models.
        machines: each machine's type and section.
        filterbank: the filterbank to store with the models.
        state: the placed `TrainState`.
        data: `TrainingArrays`, placed or on the host.
        split: the training windows and the held-out clips.
    """
    data = placement.put(data, "machine")
    window_use = placement.put(split.window_use, "model")
    scorer = fit_scorers(config, placement, state, data, window_use)
    if config.scoring.threshold != "official":
        return calibrate(config, placement, machines, filterbank, scorer, data, split)

    members = placement.put(member_numbers(config), "member")
    kinds: list[Kind] = ["member", "model", "model", "machine", "model"]
    of_batches = HashablePartial(score_batches, (config,))
    score = placement.over_models(of_batches, kinds)
    with threadpool_limits(1, "blas"):
        scores = placement.get(score(members, scorer, state, data, window_use))
        fitted = placement.get(scorer)
    weights = independence(split.is_linked, split.is_clip)
    detector = Detector(
        config, tuple(machines), filterbank, fitted, {}, {}, weights, {}
    )
    return _with_thresholds(detector, scores)


def fit_scorers(
    config: Config, placement: Placement, models: Any, data: Any, window_use: Any
) -> Any:
    """Fit normal distributions to the residuals of placed models; see `fit_scorer`.

    Args:
        config: the configuration.
        placement: the placement of the models.
        models: the placed `TrainState` or `FittedModel` of each model.
        data: the placed `TrainingArrays`.
        window_use: the placed `Split.window_use`.

    Returns:
        The placed `FittedModel` of each model.
    """
    members = placement.put(member_numbers(config), "member")
    kinds: list[Kind] = ["member", "model", "machine", "model"]
    fit = placement.over_models(HashablePartial(fit_scorer, (config,)), kinds)
    with threadpool_limits(1, "blas"):
        scorer = fit(members, models, data, window_use)
        placement.wait(scorer)
    return scorer


def calibrate(
    config: Config,
    placement: Placement,
    machines: Sequence[tuple[str, str]],
    filterbank: Float32[np.ndarray, "bin mel"],
    scorer: Any,
    data: Any,
    split: Split,
) -> Detector:
    """Fit the reference sets and the thresholds, which must not be official.

    `scorer` and `data` are already on the devices. For the other arguments, see
    `fit_scores`.
    """
    weights = independence(split.is_linked, split.is_clip)
    clips = placement.part(data, "clips")
    fitted, of_all = placement.get(scorer), tuple(machines)
    references = fit_references(config, machines, placement, scorer, clips, split)
    detector = Detector(config, of_all, filterbank, fitted, references, {}, weights, {})
    scores = score_held_out(detector, placement, clips, split)()
    names = (*config.computed_scores, *(n for n in config.scores if n in FUSION_SCORES))
    calibration = fuse(scores, scores, names, config.scoring.fused)
    return _with_thresholds(replace(detector, calibration=calibration), calibration)


def score_held_out(
    detector: Detector, placement: Placement, data: Any, split: Split
) -> Callable[..., Scores]:
    """Compile a function that scores held-out clips with models not trained on them.

    The returned function scores `data`, or other data of the same shapes if passed.
    """
    config, held_out = detector.config, split.is_held_out
    chosen, is_used = chosen_indices(held_out)
    score, n_clips = (
        _compile_members(detector, placement, data, chosen, split.is_excluded),
        held_out.shape[-1],
    )

    def run(other: Any = None) -> Scores:
        by_member = score(other)
        return {
            name: equalise_ties(name, by_clip(values, chosen, is_used, n_clips, config))
            for name, values in by_member.items()
        }

    return run


def with_false_alarm_rate(detector: Detector, rate: float) -> Detector:
    """Return the detector with thresholds for a different false-alarm rate.

    Raises:
        InputError: the rate is out of range, or the detector has official thresholds,
            for which it keeps no scores.
    """
    scoring = replace(detector.config.scoring, false_alarm_rate=float(rate))
    if scoring.threshold == "official":
        raise InputError(
            f"official thresholds cannot be adapted to a false-alarm rate of {rate:g}: "
            "retrain with scoring.threshold=conformal"
        )
    config = replace(detector.config, scoring=scoring)
    return _with_thresholds(replace(detector, config=config), detector.calibration)


def _with_thresholds(detector: Detector, scores: Scores) -> Detector:
    """Fit a threshold for each configured score to the scores of normal clips."""
    config = detector.config
    wanted = {name: scores[name] for name in config.scores}
    thresholds = fit_thresholds(wanted, config.scoring, detector.weights)
    return replace(detector, thresholds=thresholds)


def compile_scores(
    detector: Detector, placement: Placement, data: ClipArrays
) -> Callable[..., Scores]:
    """Compile a function that scores clips, and place the clips on the devices.

    Returns:
        A function that returns every configured score, as arrays `seed machine clip`.
        It scores `data`, or other clips of the same shapes if passed.
    """
    config = detector.config
    models = config.n_members, len(detector.machines)
    every = np.arange(data.n_frames.shape[-1], dtype=np.int32)
    chosen = np.broadcast_to(every, (*models, len(every)))
    score = _compile_members(detector, placement, data, chosen)

    def run(data: ClipArrays | None = None) -> Scores:
        scores = {
            name: values.reshape(len(config.seeds), config.n_folds, *values.shape[1:])
            for name, values in score(data).items()
        }
        # Add member by member: a mean over an axis may add in another order.
        means = {
            name: reduce(np.add, np.moveaxis(values, 1, 0)) / np.float32(config.n_folds)
            for name, values in scores.items()
        }
        return fuse(means, detector.calibration, config.scores, config.scoring.fused)

    return run


def held_out_scores(
    detector: Detector, score: str, seed: int, machine: int
) -> tuple[Float[np.ndarray, "held_out"], Float[np.ndarray, "held_out"]]:
    """Return the held-out clips' scores in increasing order, and their weights.

    `seed` and `machine` are indices into the arrays of `Scores`.
    """
    values = detector.calibration[score][seed, machine]
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN comes last
    return values[order], detector.weights[machine, order]


def clip_p_values(
    detector: Detector, score: str, seed: int, machine: int, scores: np.ndarray
) -> Float[np.ndarray, "clip"] | None:
    """Return the p-values of clips' scores, or None if the thresholds are official.

    `seed` and `machine` are indices into the arrays of `Scores`. See `p_values`.
    """
    if score not in detector.calibration:
        return None
    return p_values(scores, *held_out_scores(detector, score, seed, machine))


def _compile_members(
    detector: Detector,
    placement: Placement,
    data: Any,
    chosen: Int[np.ndarray, "member machine chosen"],
    is_excluded: Bool[np.ndarray, "machine clip clip"] | None = None,
) -> Callable[..., dict[str, Float[np.ndarray, "member machine chosen"]]]:
    """Compile a function that makes each member score the clips chosen for it.

    The returned function scores `data`, or other data of the same shapes if passed.
    For training clips, `is_excluded` marks the pairs that are not compared.
    """
    config = detector.config
    models = (
        placement.put(detector.scorer, "model"),
        placement.put(dict(detector.references), "model"),
    )
    placed, which = placement.put(data, "machine"), [placement.put(chosen, "model")]
    kinds: list[Kind] = ["model", "model", "machine", "model"]
    if is_excluded is not None:
        which.append(placement.put(is_excluded, "machine"))
        kinds.append("machine")
    of_clips = HashablePartial(
        score_machine, (config, CLIPS_AT_ONCE[placement.batching])
    )
    compiled = placement.over_models(of_clips, kinds).compile(*models, placed, *which)

    def run(other: Any = None) -> dict[str, np.ndarray]:
        given = placed if other is None else placement.put(other, "machine")
        # Triangular solves use BLAS, whose threads would compete with other threads.
        with threadpool_limits(1, "blas"):
            return placement.get(compiled(*models, given, *which))

    return run
