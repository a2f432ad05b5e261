"""Computes the parts of the explanation of a clip's score.

`view_clip` returns the intermediate values of the models. The functions after it spread
each band's share of the score over the frames of the clip. **The time at which a share
is shown is a convention**, except for `mse`, because the statistics summarise all
frames. For `spectrum` and `residual`, a band's share is shown mostly at the frames that
differ by more than one standard deviation from the band's mean in the nearest training
clip. For `peak` and `gamma`, it is shown in proportion to the power, for `maximum` at
the maximum of the band, and for `salient` at the salient frames. A negative share is
spread evenly over time.

These functions return weights that add up to 1 over the frames of each band, except for
`by_squares`, which divides a total among all bands and frames.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gammavae_jax.config import MODEL_FREE_STATISTICS, Config
from gammavae_jax.data import statistics as clip_statistics
from gammavae_jax.data.arrays import ClipArrays, clip_level
from gammavae_jax.data.features import edge_frames
from gammavae_jax.data.statistics import DB_OF_E, salience, whole_frames
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
    whole: Float[Any, "*member frame"]  # see `data.statistics.whole_frames`
    salience: Float[Any, "*member frame"]  # see `data.statistics.salience`
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
    not_by_frame = ("scores", "statistics")
    by_frame = (name for name in ClipView._fields if name not in not_by_frame)
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
        frames, n_edge = data.log_mel[0], edge_frames(features)
        whole = whole_frames(len(frames), data.n_frames[0], n_edge)
        return ClipView(
            residual,
            difference,
            difference if unit is None else by_frame(output.difference * unit)[0],
            squares * count[:, None] / (weight.sum() * output.residual.shape[-1])
            if any(not has_bands(n) or n in scores for n in names)
            else jnp.zeros_like(residual),
            covered,
            whole,
            salience(frames, whole),
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


_SMALLEST_DEVIATION = 0.5  # dB or standard deviations, for bands that hardly vary
_EVEN_WEIGHT = 0.1  # the minimum weight of a frame, in squared deviations


def of_model_free(
    statistic: str,
    log_mel: Float[np.ndarray, "frame mel"],
    features: Float[np.ndarray, "block mel"],
    view: ClipView,
) -> Float[np.ndarray, "frame mel"]:
    """Weight each frame as the named model-free statistic requires.

    Args:
        statistic: the statistic's name.
        log_mel: the clip, in dB.
        features: the statistic of the nearest training clip, in blocks of bands.
        view: what one model computed for the clip.

    Raises:
        ValueError: this module does not say how to draw the statistic.
    """
    is_whole = view.whole > 0
    if statistic == "spectrum":
        return by_excess(log_mel - log_mel[is_whole].mean(), features, is_whole)
    if statistic == "maximum":
        is_maximum = log_mel == log_mel[is_whole].max(axis=0)
        return normalised(is_maximum * 1.0, is_whole)
    if statistic == "salient":
        return np.repeat(view.salience[:, None], log_mel.shape[1], axis=1)
    if statistic == "gamma":
        return by_power(log_mel, is_whole)
    raise ValueError(f"no rule for drawing the statistic {statistic!r}")


def by_power(
    decibels: Float[np.ndarray, "frame mel"], is_frame: Bool[np.ndarray, "frame"]
) -> Float[np.ndarray, "frame mel"]:
    """Weight each frame by its power in each band, given the levels in dB."""
    level = decibels.max(axis=0, where=is_frame[:, None], initial=-np.inf)
    power = np.exp(np.minimum(decibels - level, 0.0) / DB_OF_E)
    return normalised(power, is_frame)


def by_excess(
    values: Float[np.ndarray, "frame mel"],
    features: Float[np.ndarray, "block mel"],
    is_frame: Bool[np.ndarray, "frame"],
) -> Float[np.ndarray, "frame mel"]:
    """Weight frames by the square of their deviation beyond one standard deviation.

    The first two blocks of `features` are each band's mean and standard deviation.
    """
    mean, deviation = features[0], features[1]
    unit = np.maximum(deviation, _SMALLEST_DEVIATION)
    excess = np.maximum(np.abs(values - mean) - unit, 0.0) / unit
    return normalised(excess**2 + _EVEN_WEIGHT, is_frame)


def by_squares(
    squares: Float[np.ndarray, "frame mel"],
    total: float,
    is_frame: Bool[np.ndarray, "frame"],
) -> Float[np.ndarray, "frame mel"]:
    """Divide `total` among bands and frames in proportion to `squares`."""
    bands = squares.sum(0) if squares.any() else np.ones(squares.shape[1])
    return total * bands / bands.sum() * normalised(squares, is_frame)


def normalised(
    weights: Float[np.ndarray, "frame mel"], is_frame: Bool[np.ndarray, "frame"]
) -> Float[np.ndarray, "frame mel"]:
    """Scale each band's weights to a sum of 1; if all are 0, weight frames equally."""
    weights = np.where(is_frame[:, None], weights, 0.0)
    weights = np.where(weights.sum(0) > 0, weights, is_frame[:, None] * 1.0)
    return weights / weights.sum(0)
