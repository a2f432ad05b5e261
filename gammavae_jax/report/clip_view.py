"""Computes the intermediate values that the explanation of a clip needs."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gammavae_jax.config import MODEL_FREE_STATISTICS, Config
from gammavae_jax.data import statistics as clip_statistics
from gammavae_jax.data.arrays import ClipArrays, clip_level
from gammavae_jax.devices.placement import in_float32
from gammavae_jax.models.layers import EPS, INPUTS, STANDARDISE
from gammavae_jax.scoring.scorer import (
    FittedModel,
    direct_scores,
    model_free_statistics,
    model_statistics,
    output_of_clip,
    rows_in_window,
)

# Clips are padded to a multiple of this many frames, so that a few compiled programs
# serve clips of many lengths.
_FRAMES_AT_ONCE = 64

# Statistics in which each feature belongs to one band.
_BANDED = (*MODEL_FREE_STATISTICS, "residual", "peak")


class ClipView(NamedTuple):
    """The intermediate values that the models of one seed compute for one clip."""

    residual: Float[Any, "*member frame mel"]  # the values that the scores use
    difference: Float[Any, "*member frame mel"]  # target minus reconstruction
    decibels: Float[Any, "*member frame mel"]  # the difference in dB
    squares: Float[Any, "*member frame mel"]  # contributions to mse; 0 if not needed
    covered: Float[Any, "*member frame"]  # 0 for frames that no window covers
    scores: dict[str, Float[Any, "*member"]]  # scores that need no training clips
    statistics: dict[str, Float[Any, "*member feature"]]  # see `data.statistics`


def has_bands(name: str) -> bool:
    """Return whether a score is a sum over bands."""
    return name == "mse" or name.rpartition("_")[0] in _BANDED


def view_clip(
    config: Config,
    scorers: FittedModel,
    log_mel: Float[np.ndarray, "frame mel"],
    names: tuple[str, ...],
) -> ClipView:
    """Compute the values needed to explain the named scores.

    None of the scores may be a fusion.
    """
    n_frames = len(log_mel)
    n_padded = -(-n_frames // _FRAMES_AT_ONCE) * _FRAMES_AT_ONCE
    padded = np.zeros((n_padded, log_mel.shape[1]), np.float32)
    padded[:n_frames] = log_mel
    level = np.array([clip_level(log_mel)])
    data = ClipArrays(padded[None], np.array([n_frames]), level)
    view = jax.device_get(_view_members(config, names, scorers, data))
    by_frame = ("residual", "difference", "decibels", "squares", "covered")
    return view._replace(**{n: getattr(view, n)[:, :n_frames] for n in by_frame})


@functools.partial(jax.jit, static_argnums=(0, 1))
@in_float32
def _view_members(
    config: Config,
    names: tuple[str, ...],
    scorers: FittedModel,
    data: ClipArrays,
) -> ClipView:
    features = config.features

    def view_of(scorer: FittedModel) -> ClipView:
        output, weight = output_of_clip(config, scorer, data, jnp.array(0))

        def by_frame(values):
            return clip_statistics.frame_residual(
                values, weight, features.n_mels, features.n_context
            )

        residual, covered = by_frame(output.residual)
        difference, _ = by_frame(output.difference)
        unit = _decibels_in_unit(config, scorer)
        squares, _ = by_frame(output.residual**2)
        count = _windows_of_frames(config, weight)
        scores = direct_scores(config, scorer, output, weight)
        statistics = model_free_statistics(config, data, jnp.array(0))
        statistics |= model_statistics(config, output, weight)
        needed = {name.rpartition("_")[0] for name in names}
        return ClipView(
            residual,
            difference,
            difference if unit is None else by_frame(output.difference * unit)[0],
            squares * count[:, None] / (weight.sum() * output.residual.shape[-1])
            if any(not has_bands(n) or n in scores for n in names)
            else jnp.zeros_like(residual),
            covered,
            {n: scores[n] for n in names if n in scores},
            {n: statistics[n] for n in statistics if n in needed},
        )

    return jax.lax.map(view_of, scorers)


def _windows_of_frames(
    config: Config, weight: Float[Array, "window"]
) -> Float[Array, "frame"]:
    """Count the windows whose residual covers each frame."""
    n_rows, n_context = rows_in_window(config), config.features.n_context
    first = (n_context - n_rows + 1) // 2
    count = jnp.convolve(weight, jnp.ones(n_rows))
    after = len(weight) + n_context - 1 - first - len(count)
    return jnp.pad(count, (first, after))


def _decibels_in_unit(config: Config, scorer: FittedModel) -> Array | None:
    """Return the factor that converts differences to dB.

    Return None if the differences are in dB already.
    """
    if config.model.inputs != "standardised":
        return None
    deviation = jnp.sqrt(scorer.batch_stats[INPUTS][STANDARDISE]["var"] + EPS)
    if config.model.target == "centre":
        frames = deviation.reshape(config.features.n_context, -1)
        return frames[config.features.n_context // 2]
    return deviation
