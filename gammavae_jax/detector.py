"""Where a trained model meets its scores and thresholds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8
from threadpoolctl import threadpool_limits

from gammavae_jax.config import Config
from gammavae_jax.dataset import HELD_OUT, TRAIN, MachineArrays, Split
from gammavae_jax.layout import Kind, Layout
from gammavae_jax.model import reconstruct
from gammavae_jax.score import (
    GaussianFit,
    Scatter,
    add_batch,
    clip_scores,
    empty_scatter,
    fit_gaussian,
    rows_of,
)
from gammavae_jax.threshold import conformal_threshold, gamma_threshold
from gammavae_jax.train import TrainState, gather, run_key, shuffled

Scores = dict[str, Float[np.ndarray, "seed machine clip"]]

# An accelerator wants many clips at a time; a CPU's cache holds the windows of one.
# None is one by one: a batch of one would still be computed as a batch.
_CLIPS_AT_ONCE = {"map": None, "vmap": 16}


class Scorer(NamedTuple):
    """All that turns the windows of one machine into scores."""

    params: Any
    batch_stats: Any
    source: GaussianFit
    target: GaussianFit


@dataclass(frozen=True)
class Detector:
    """Models, fits and thresholds of every machine and seed; arrays on the host."""

    config: Config
    machines: tuple[tuple[str, str], ...]  # machine type and section
    filterbank: Float32[np.ndarray, "bin mel"]
    scorer: Scorer  # leaves lead with `seed machine`
    thresholds: Mapping[str, Float[np.ndarray, "seed machine"]]


def fit_scorer(
    config: Config,
    n_steps: int,
    seed: Array,
    state: TrainState,
    data: MachineArrays,
    group: UInt8[Array, "window"],
) -> Scorer:
    """Fit the residuals of one machine's training windows, by domain.

    Batches are shuffled as one more epoch of training would be, since the official
    covariance depends on them. A machine with fewer than two target windows takes
    the source fit for both domains.
    """
    order = _order_after_training(config, seed, data, group)
    n_train = jnp.sum(group == TRAIN)
    n_mels, n_context = config.features.n_mels, config.features.n_context

    def add(scatters: tuple[Scatter, Scatter], step):
        batch, weight, start = gather(config, data, order, 0, n_train, step)
        is_target = data.is_target[start // data.log_mel.shape[-2]]
        of_domain = (weight * ~is_target, weight * is_target)
        output = reconstruct(config.model, state.params, state.batch_stats, batch)
        rows = rows_of(batch - output.reconstruction, n_mels)
        source_rows, target_rows = (jnp.repeat(w, n_context) for w in of_domain)
        source, target = scatters
        return (
            add_batch(source, rows, source_rows),
            add_batch(target, rows, target_rows),
        ), None

    empty = empty_scatter(n_mels)
    (source, target), _ = jax.lax.scan(add, (empty, empty), jnp.arange(n_steps))
    target = jax.tree.map(
        lambda t, s: jnp.where(target.count >= 2 * n_context, t, s), target, source
    )
    fits = (fit_gaussian(s, n_context, config.scoring) for s in (source, target))
    return Scorer(state.params, state.batch_stats, *fits)


def score_machine(
    config: Config,
    clips_at_once: int | None,
    scorer: Scorer,
    data: MachineArrays,
    chosen: Int[Array, "chosen"],
) -> dict[str, Float[Array, "chosen"]]:
    """The configuration's scores of the chosen clips of one machine.

    They are 0 for a clip that is padding. `clips_at_once` go side by side; None goes
    one by one.
    """
    n_windows = data.log_mel.shape[-2] - config.features.n_context + 1
    frames = jnp.arange(n_windows)[:, None] + jnp.arange(config.features.n_context)

    def score(clip):
        windows = data.log_mel[clip][frames].reshape(n_windows, -1)
        last = data.n_frames[clip] - config.features.n_context
        weight = (jnp.arange(n_windows) <= last) * 1.0
        scores = _window_scores(config, scorer, windows, weight)
        return {name: scores[name] for name in config.scores}

    return jax.lax.map(score, chosen, batch_size=clips_at_once)


def score_batches(
    config: Config,
    n_steps: int,
    seed: Array,
    scorer: Scorer,
    batch_errors: Float[Array, "trained_batch"],
    data: MachineArrays,
    group: UInt8[Array, "window"],
) -> dict[str, Float[Array, "batch"]]:
    """Scores of shuffled batches of training, then of held-out windows.

    NaN where there is no batch. Source: the official baseline, which fits its
    thresholds to such scores. The MSE of training batches is of the last epoch, of
    the model as it was then.
    """
    order = _order_after_training(config, seed, data, group)
    n_train, n_held_out = (jnp.sum(group == g) for g in (TRAIN, HELD_OUT))

    def score(step, first, count):
        batch, weight, _ = gather(config, data, order, first, count, step)
        scores = _window_scores(config, scorer, batch, weight)
        return {
            name: jnp.where(weight.any(), scores[name], jnp.nan)
            for name in config.scores
        }

    trained, held_out = (
        jax.lax.map(
            lambda step, f=first, c=count: score(step, f, c), jnp.arange(n_steps)
        )
        for first, count in ((jnp.array(0), n_train), (n_train, n_held_out))
    )
    trained |= {"mse": batch_errors[:n_steps]}
    return {
        name: jnp.concatenate([trained[name], held_out[name]]) for name in config.scores
    }


def fit_detector(
    config: Config,
    layout: Layout,
    machines: Sequence[tuple[str, str]],
    filterbank: Float32[np.ndarray, "bin mel"],
    state: Any,
    data: Any,
    split: Split,
) -> Detector:
    """Fit the scores and thresholds of trained machines.

    `state` is a placed `TrainState`; `data`, `MachineArrays`, may be placed too.
    """
    n_steps = -(-int((split.group == TRAIN).sum(-1).max()) // config.train.batch_size)

    def fit_one(seed, state, data, group):
        return fit_scorer(config, n_steps, seed, state, data, group)

    kinds: list[Kind] = ["seed", "run", "machine", "run"]
    seeds = layout.put(np.array(config.seeds, np.uint32), "seed")
    placed, groups = layout.put(data, "machine"), layout.put(split.group, "run")
    with threadpool_limits(1, "blas"):
        scorer = layout.over_runs(fit_one, kinds)(seeds, state, placed, groups)
        fitted = layout.get(scorer)
    detector = Detector(config, tuple(machines), filterbank, fitted, {})
    if config.scoring.threshold == "conformal":
        return _with_conformal_thresholds(detector, layout, placed, split)

    def score_one(seed, scorer, state, data, group):
        errors = state.batch_errors
        return score_batches(config, n_steps, seed, scorer, errors, data, group)

    score = layout.over_runs(score_one, ["seed", "run", *kinds[1:]])
    with threadpool_limits(1, "blas"):
        scores = layout.get(score(seeds, scorer, state, placed, groups))
    # There is no score where there is no batch.
    is_batch = {name: np.isfinite(values) for name, values in scores.items()}
    return _with_thresholds(detector, gamma_threshold, scores, is_batch)


def _with_conformal_thresholds(
    detector: Detector, layout: Layout, data: Any, split: Split
) -> Detector:
    """Thresholds from the clips that are held out; no other clip is scored."""
    held_out = split.is_held_out
    n_most = max(1, int(held_out.sum(-1).max()))
    # Held-out clips first, in the order of their numbers.
    chosen = np.argsort(~held_out, axis=-1, kind="stable")[..., :n_most]
    is_used = np.take_along_axis(held_out, chosen, axis=-1)
    scores = compile_scores(detector, layout, data, chosen.astype(np.int32))()
    return _with_thresholds(
        detector, conformal_threshold, scores, dict.fromkeys(scores, is_used)
    )


def _with_thresholds(
    detector: Detector,
    threshold: Callable[[np.ndarray, float], float],
    scores: Scores,
    is_used: Mapping[str, Bool[np.ndarray, "seed machine item"]],
) -> Detector:
    """The threshold of each run, from the scores that are to be used."""
    rate = detector.config.scoring.false_alarm_rate
    thresholds = {name: np.empty(values.shape[:2]) for name, values in scores.items()}
    for name, values in scores.items():
        for run in np.ndindex(*values.shape[:2]):
            used = values[run][is_used[name][run]]
            thresholds[name][run] = threshold(used, rate)
    return replace(detector, thresholds=thresholds)


def score_clips(detector: Detector, layout: Layout, data: MachineArrays) -> Scores:
    """Every score of the configuration for every clip."""
    return compile_scores(detector, layout, data)()


def compile_scores(
    detector: Detector,
    layout: Layout,
    data: Any,
    chosen: Int[np.ndarray, "seed machine chosen"] | None = None,
) -> Callable[[], Scores]:
    """`score_clips`, compiled and its arrays placed, to be timed apart.

    Args:
        detector: the models.
        layout: where they work.
        data: `MachineArrays` on the host; with `chosen` they may be placed.
        chosen: numbers of clips; all of them unless given.
    """
    config = detector.config
    clips_at_once = _CLIPS_AT_ONCE[layout.batching]

    def score_one(scorer, data, chosen):
        return score_machine(config, clips_at_once, scorer, data, chosen)

    if chosen is None:
        runs = len(config.seeds), len(detector.machines)
        every = np.arange(data.n_frames.shape[-1], dtype=np.int32)
        chosen = np.broadcast_to(every, (*runs, len(every)))
    arguments = (
        layout.put(detector.scorer, "run"),
        layout.put(data, "machine"),
        layout.put(chosen, "run"),
    )
    score = layout.over_runs(score_one, ["run", "machine", "run"])
    compiled = score.compile(*arguments)

    def run() -> Scores:
        # Triangular solves are BLAS's, whose threads would fight with the devices'.
        with threadpool_limits(1, "blas"):
            return layout.get(compiled(*arguments))

    return run


def _order_after_training(
    config: Config, seed: Array, data: MachineArrays, group: UInt8[Array, "window"]
) -> Int[Array, "window"]:
    """The shuffle of one epoch more: the official fits depend on the batches."""
    key = jax.random.fold_in(run_key(seed, data.name_hash), config.train.epochs + 1)
    return shuffled(jax.random.fold_in(key, 0), group)


def _window_scores(
    config: Config,
    scorer: Scorer,
    windows: Float[Array, "window feature"],
    weight: Float[Array, "window"],
) -> dict[str, Float[Array, ""]]:
    """The scores of windows, of a clip or a batch, that count as one."""
    output = reconstruct(config.model, scorer.params, scorer.batch_stats, windows)
    residual = windows - output.reconstruction
    return clip_scores(residual, weight, scorer.source, scorer.target)
