"""Where a trained model meets its scores and thresholds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt8

from gammavae_jax.config import Config
from gammavae_jax.dataset import TRAIN, MachineArrays
from gammavae_jax.model import reconstruct
from gammavae_jax.parallel import Layout
from gammavae_jax.score import (
    GaussianFit,
    Scatter,
    add_batch,
    clip_scores,
    empty_scatter,
    fit_gaussian,
    rows_of,
)
from gammavae_jax.threshold import conformal_threshold
from gammavae_jax.train import TrainState, gather, run_key, shuffled

Scores = dict[str, Float[np.ndarray, "seed machine clip"]]


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
    key = jax.random.fold_in(run_key(seed, data.name_hash), config.train.epochs + 1)
    order = shuffled(jax.random.fold_in(key, 0), group)
    n_train = jnp.sum(group == TRAIN)
    n_mels, n_context = config.features.n_mels, config.features.n_context

    def add(scatters: tuple[Scatter, Scatter], step):
        batch, weight = gather(config, data, order, 0, n_train, step)
        place = step * len(batch) + jnp.arange(len(batch))
        start = data.window_start[order.at[place].get(mode="clip")]
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
    config: Config, scorer: Scorer, data: MachineArrays
) -> dict[str, Float[Array, "clip"]]:
    """Every score of one machine's clips; 0 for a clip that is padding."""
    n_windows = data.log_mel.shape[-2] - config.features.n_context + 1
    frames = jnp.arange(n_windows)[:, None] + jnp.arange(config.features.n_context)

    def score(clip):
        log_mel, n_frames = clip
        windows = log_mel[frames].reshape(n_windows, -1)
        weight = (jnp.arange(n_windows) + config.features.n_context <= n_frames) * 1.0
        output = reconstruct(config.model, scorer.params, scorer.batch_stats, windows)
        residual = windows - output.reconstruction
        return clip_scores(residual, weight, scorer.source, scorer.target)

    return jax.lax.map(score, (data.log_mel, data.n_frames))


def fit_detector(
    config: Config,
    layout: Layout,
    machines: Sequence[tuple[str, str]],
    filterbank: Float32[np.ndarray, "bin mel"],
    state: TrainState,
    data: MachineArrays,
    group: UInt8[np.ndarray, "seed machine window"],
    is_held_out: Bool[np.ndarray, "seed machine clip"],
) -> Detector:
    """Fit the scores and thresholds of trained machines.

    `state` is on the devices, the other arrays are on the host. The threshold of a
    machine and score comes from its held-out clips.
    """
    n_steps = -(-int((group == TRAIN).sum(-1).max()) // config.train.batch_size)

    def fit_one(seed, state, data, group):
        return fit_scorer(config, n_steps, seed, state, data, group)

    fit = layout.over_runs(fit_one, ["seed", "run", "machine", "run"])
    seeds = layout.put(np.array(config.seeds, np.uint32), "seed")
    scorer = fit(seeds, state, layout.put(data, "machine"), layout.put(group, "run"))
    detector = Detector(config, tuple(machines), filterbank, layout.get(scorer), {})
    scores = score_clips(detector, layout, data)
    rate = config.scoring.false_alarm_rate
    return replace(
        detector,
        thresholds={
            name: _over_runs(
                lambda s, m, v=values: conformal_threshold(
                    v[s, m][is_held_out[s, m]], rate
                ),
                values.shape[:2],
            )
            for name, values in scores.items()
        },
    )


def score_clips(detector: Detector, layout: Layout, data: MachineArrays) -> Scores:
    """Every score of the configuration for every clip; `data` is on the host."""
    config = detector.config

    def score_one(scorer, data):
        scores = score_machine(config, scorer, data)
        return {name: scores[name] for name in config.scores}

    score = layout.over_runs(score_one, ["run", "machine"])
    return layout.get(
        score(layout.put(detector.scorer, "run"), layout.put(data, "machine"))
    )


def _over_runs(
    function: Callable[[int, int], float], shape: tuple[int, ...]
) -> Float[np.ndarray, "seed machine"]:
    return np.array(
        [[function(s, m) for m in range(shape[1])] for s in range(shape[0])]
    )
