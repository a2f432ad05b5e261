"""Spreads each band's share of a clip's score over the frames of the clip.

**The time at which a share is shown is a convention**, except for `mse`, because the
statistics summarise all frames. A band's share is shown at the frames that are more
than one standard deviation from the nearest training clip's mean. For `peak` and
`gamma`, it is shown in proportion to the power, for `maximum` at the maximum of the
band, and for `salient` at the salient frames. A negative share is spread evenly over
time.

Each function returns weights that add up to 1 over the frames of each band, except for
`by_squares`, which divides a total among all bands and frames.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.data.statistics import DB_OF_E, salience, whole_frames

_SMALLEST_DEVIATION = 0.5  # dB or standard deviations, for bands that hardly vary
_EVEN_WEIGHT = 0.1  # the minimum weight of a frame, in squared deviations


def of_model_free(
    statistic: str,
    log_mel: Float[np.ndarray, "frame mel"],
    features: Float[np.ndarray, "block mel"],
    n_edge: int,
) -> Float[np.ndarray, "frame mel"]:
    """Weight each frame as the named model-free statistic requires.

    Raises:
        ValueError: this module does not say how to draw the statistic.
    """
    weight = whole_frames(len(log_mel), jnp.array(len(log_mel)), n_edge)
    is_whole = np.asarray(weight) > 0
    if statistic == "spectrum":
        return by_excess(log_mel - log_mel[is_whole].mean(), features, is_whole)
    if statistic == "maximum":
        is_maximum = log_mel == log_mel[is_whole].max(axis=0)
        return normalised(is_maximum * 1.0, is_whole)
    if statistic == "salient":
        share = np.asarray(salience(jnp.asarray(log_mel), weight))
        return np.repeat(share[:, None], log_mel.shape[1], axis=1)
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
