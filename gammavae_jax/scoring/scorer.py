"""Computes the scores that one model gives to clips and batches of windows.

Every function handles one machine and one member; `detector` runs the functions for all
machines and members.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from gammavae_jax.config import MODEL_FREE_STATISTICS, STATISTICS, Config
from gammavae_jax.data import statistics
from gammavae_jax.data.arrays import HELD_OUT, TRAIN, ClipArrays, TrainingArrays
from gammavae_jax.data.features import edge_frames
from gammavae_jax.models.autoencoder import ModelOutput, reconstruct
from gammavae_jax.models.loss import loss_terms, total_loss
from gammavae_jax.scoring.neighbours import Reference, distances, nearest_clips
from gammavae_jax.scoring.residuals import (
    GaussianFit,
    Scatter,
    WindowErrors,
    add_batch,
    clip_scores,
    empty_scatter,
    fit_gaussian,
    rows_of,
)
from gammavae_jax.training.epoch import gather, shuffled
from gammavae_jax.training.step import TrainState, model_key


class FittedModel(NamedTuple):
    """A trained model and the normal distributions fitted to its residuals."""

    params: Any
    batch_stats: Any
    source: GaussianFit
    target: GaussianFit


def fit_scorer(
    config: Config,
    member: Array,
    models: TrainState | FittedModel,
    data: TrainingArrays,
    window_use: UInt8[Array, "window"],
) -> FittedModel:
    """Fit a normal distribution to the training residuals of each domain.

    Windows are shuffled into batches as in one more epoch of training, because the
    official covariance depends on the batches. If a machine has fewer than two target
    windows, the fit of the source domain is used for both domains.
    """
    order = _order_after_training(config, member, data, window_use)
    n_train = jnp.sum(window_use == TRAIN)
    n_steps = (n_train + config.train.batch_size - 1) // config.train.batch_size
    n_mels = config.features.n_mels
    n_rows = rows_in_window(config)

    def add(step, scatters: tuple[Scatter, Scatter]):
        batch, weight, start = gather(config, data, order, 0, n_train, step)
        is_target = data.is_target[start // data.clips.log_mel.shape[-2]]
        of_domain = (weight * ~is_target, weight * is_target)
        output = _apply(config, models.params, models.batch_stats, batch)
        rows = rows_of(output.residual, n_mels)
        source_rows, target_rows = (jnp.repeat(w, n_rows) for w in of_domain)
        source, target = scatters
        return (
            add_batch(source, rows, source_rows),
            add_batch(target, rows, target_rows),
        )

    empty = empty_scatter(n_mels)
    source, target = jax.lax.fori_loop(0, n_steps, add, (empty, empty))
    target = jax.tree.map(
        lambda t, s: jnp.where(target.count >= 2 * n_rows, t, s), target, source
    )
    fits = (fit_gaussian(s, n_rows, config.scoring) for s in (source, target))
    return FittedModel(models.params, models.batch_stats, *fits)


def rows_in_window(config: Config) -> int:
    """Return the number of frames in a window's residual."""
    return 1 if config.model.target == "centre" else config.features.n_context


def score_machine(
    config: Config,
    clips_at_once: int | None,
    scorer: FittedModel,
    references: dict[str, Reference],
    data: ClipArrays,
    chosen: Int[Array, "chosen"],
    is_excluded: Bool[Array, "clip train"] | None = None,
) -> dict[str, Float[Array, "chosen"]]:
    """Compute the scores in `Config.computed_scores` for the chosen clips.

    Scores of padding clips are undefined. `clips_at_once` is the number of clips that
    are scored as one batch; None means that clips are scored one by one. For training
    clips, `is_excluded` marks the pairs that are not compared.
    """
    n_neighbours = config.scoring.n_density_neighbours
    nearest = {
        name: nearest_clips(references[name], is_excluded, n_neighbours)
        for name in wanted_statistics(config)
        if is_excluded is not None and name in MODEL_FREE_STATISTICS
    }

    def score(clip):
        scores, statistics = _described(config, scorer, data, clip)
        for name in wanted_statistics(config):
            excluded = None if is_excluded is None else is_excluded[clip]
            distance = distances(
                statistics[name], references[name], excluded, nearest.get(name)
            )
            scores |= {f"{name}_{rule}": value for rule, value in distance.items()}
        return {name: scores[name] for name in config.computed_scores}

    return jax.lax.map(score, chosen, batch_size=clips_at_once)


def describe_machine(
    config: Config,
    clips_at_once: int | None,
    scorer: FittedModel,
    data: ClipArrays,
    chosen: Int[Array, "chosen"],
) -> dict[str, Float[Array, "chosen feature"]]:
    """Compute the `wanted_statistics` of the chosen clips."""

    def describe(clip):
        _, statistics = _described(config, scorer, data, clip)
        return {name: statistics[name] for name in wanted_statistics(config)}

    return jax.lax.map(describe, chosen, batch_size=clips_at_once)


def wanted_statistics(config: Config) -> tuple[str, ...]:
    """Return the names of the statistics that the neighbour scores need."""
    wanted = {name.rpartition("_")[0] for name in config.computed_scores}
    return tuple(name for name in STATISTICS if name in wanted)


def score_batches(
    config: Config,
    member: Array,
    scorer: FittedModel,
    state: TrainState,
    data: TrainingArrays,
    window_use: UInt8[Array, "window"],
) -> dict[str, Float[Array, "batch"]]:
    """Score shuffled batches of training windows, then batches of held-out windows.

    Scores are NaN where there is no batch. Source: the official baseline fits its
    thresholds to such scores. The MSE of a training batch is the one computed in the
    last epoch, before the step on that batch.
    """
    order = _order_after_training(config, member, data, window_use)
    n_train, n_held_out = (jnp.sum(window_use == g) for g in (TRAIN, HELD_OUT))
    n_steps = len(state.batch_errors)

    def score(step, first, count):
        batch, weight, _ = gather(config, data, order, first, count, step)
        output = _apply(config, scorer.params, scorer.batch_stats, batch)
        scores = direct_scores(config, scorer, output, weight)
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
    trained |= {"mse": state.batch_errors}
    return {
        name: jnp.concatenate([trained[name], held_out[name]]) for name in config.scores
    }


def windows_of_clip(
    config: Config, data: ClipArrays, clip: Int[Array, ""]
) -> tuple[Float[Array, "window feature"], Float[Array, "window"]]:
    """Return a clip's windows in dB, and their weights, which are 0 for padding.

    If the model normalises bands, the clip's level is subtracted.
    """
    n_context = config.features.n_context
    n_windows = data.log_mel.shape[-2] - n_context + 1
    frames = jnp.arange(n_windows)[:, None] + jnp.arange(n_context)
    windows = data.log_mel[clip][frames].reshape(n_windows, -1)
    if config.model.normalises_bands:
        windows -= data.level[clip]
    last = data.n_frames[clip] - n_context
    return windows, (jnp.arange(n_windows) <= last) * 1.0


def _order_after_training(
    config: Config, member: Array, data: TrainingArrays, use: UInt8[Array, "window"]
) -> Int[Array, "window"]:
    """Return the order that windows would have in one more epoch of training.

    The official covariances and thresholds depend on this order.
    """
    key = jax.random.fold_in(model_key(member, data.name_hash), config.train.epochs + 1)
    return shuffled(jax.random.fold_in(key, 0), use)


def _apply(
    config: Config,
    params: Any,
    batch_stats: Any,
    windows: Float[Array, "window feature"],
) -> ModelOutput:
    n_context = config.features.n_context
    return reconstruct(config.model, params, batch_stats, windows, n_context)


def direct_scores(
    config: Config,
    scorer: FittedModel,
    output: ModelOutput,
    weight: Float[Array, "window"],
) -> dict[str, Float[Array, ""]]:
    """Compute the `clip_scores` of a clip or a batch from the model's output."""
    terms = loss_terms(output, config.model)
    squared = terms.reconstruction
    if config.model.has_power_likelihood:
        squared = jnp.mean(output.residual**2, axis=-1)
    return clip_scores(
        WindowErrors(
            squared,
            terms.kl,
            total_loss(terms, config.train.kl_weight),
        ),
        output.residual,
        weight,
        scorer.source,
        scorer.target,
    )


def output_of_clip(
    config: Config, scorer: FittedModel, data: ClipArrays, clip: Int[Array, ""]
) -> tuple[ModelOutput, Float[Array, "window"]]:
    """Apply the model to a clip's windows; return the output and the window weights."""
    windows, weight = windows_of_clip(config, data, clip)
    return _apply(config, scorer.params, scorer.batch_stats, windows), weight


def _described(
    config: Config, scorer: FittedModel, data: ClipArrays, clip: Int[Array, ""]
) -> tuple[dict[str, Float[Array, ""]], dict[str, Float[Array, "_"]]]:
    """Return a clip's direct scores and statistics by name.

    The model is applied only if a score needs it, because tracing it takes longer than
    scoring a clip.
    """
    free = model_free_statistics(config, data, clip)
    if not config.needs_model:
        return {}, free
    output, weight = output_of_clip(config, scorer, data, clip)
    scores = direct_scores(config, scorer, output, weight)
    return scores, free | model_statistics(config, output, weight)


def model_free_statistics(
    config: Config, data: ClipArrays, clip: Int[Array, ""]
) -> dict[str, Float[Array, "_"]]:
    """Return the statistics, by name, of a clip's log-mel; see `data.statistics`."""
    log_mel = data.log_mel[clip]
    n_edge = edge_frames(config.features)
    is_whole = statistics.whole_frames(log_mel.shape[0], data.n_frames[clip], n_edge)
    return {
        "spectrum": statistics.spectrum(log_mel, is_whole),
        "gamma": statistics.gamma(log_mel, is_whole),
        "maximum": statistics.maximum(log_mel, is_whole),
        "salient": statistics.salient(log_mel, is_whole),
    }


def model_statistics(
    config: Config, output: ModelOutput, weight: Float[Array, "window"]
) -> dict[str, Float[Array, "_"]]:
    """Return the statistics, by name, of the model's output for a clip."""
    sizes = config.features.n_mels, config.features.n_context
    residual, is_covered = statistics.frame_residual(output.residual, weight, *sizes)
    # The difference is in dB, unlike the residual of a power likelihood.
    difference, _ = statistics.frame_residual(output.difference, weight, *sizes)
    return {
        "residual": statistics.residual(residual, is_covered),
        "peak": statistics.peak(difference, is_covered),
        "latent": statistics.latent(output.code, weight),
    }
