"""Computes the statistics of a clip's frames that the neighbour scores compare.

Conventions: arrays of shape `frame mel` are in dB; `weight` is 1 for a frame (or
window) of the clip and 0 for padding.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

UPPER_QUANTILE = 0.95
SALIENCE = 20.0  # exponent: how strongly frames far from the mean frame dominate
DB_OF_E = 10.0 / math.log(10.0)  # dB; the level of a power ratio of e


def whole_frames(
    n_places: int, n_frames: Int[Array, ""], n_edge: int
) -> Float[Array, "frame"]:
    """Return the weights of a clip's frames: 0 for the first and last few, else 1.

    Up to half of each of these frames lies beyond the clip. The abrupt end of a tone
    spreads over all bands there, and how far depends on where the clip ends within the
    frame, so healthy clips of a different length would look faulty. If a clip has only
    such frames, their weight is 1.

    Args:
        n_places: the number of frames, including padding.
        n_frames: the number of frames of the clip.
        n_edge: see `features.edge_frames`.
    """
    frame = jnp.arange(n_places)
    is_whole = (frame >= n_edge) & (frame < n_frames - n_edge)
    return jnp.where(n_frames > 2 * n_edge, is_whole, frame < n_frames) * 1.0


def spectrum(
    log_mel: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "feature"]:
    """Return each band's moments (see `_moments`), minus the clip's mean level."""
    level = _mean(jnp.mean(log_mel, axis=-1, keepdims=True), weight)
    return _moments(log_mel - level, weight)


def gamma(
    log_mel: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "feature"]:
    """Return each band's sufficient statistics for a Gamma distribution of power (dB).

    For each band, these are the log of its mean power, minus the clip's mean level, and
    how far that log exceeds the mean of the band's log power.
    """
    mean = _mean(log_mel, weight)
    power = peak(log_mel, weight)
    return jnp.concatenate([power - mean.mean(), power - mean])


def maximum(
    log_mel: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "mel"]:
    """Return each band's maximum over time, minus the mean of these maxima (dB)."""
    largest = jnp.max(jnp.where(weight[:, None] > 0, log_mel, -jnp.inf), axis=0)
    largest = jnp.where(weight.any(), largest, 0.0)
    return largest - largest.mean()


def salient(
    log_mel: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "mel"]:
    """Return the mean spectrum of the salient frames, minus its mean over bands (dB).

    Salient frames differ most from the clip's mean frame; see `salience`. Source:
    relative deviation pooling, here of log-mels (Wilkinghoff et al. 2026, arXiv
    2603.04605).
    """
    weighted = salience(log_mel, weight) @ log_mel
    return weighted - weighted.mean()


def salience(
    log_mel: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "frame"]:
    """Return the weight that `salient` gives to each frame; the weights add up to 1.

    They are proportional to `(1 + d / max d) ** SALIENCE`, where `d` is the distance of
    a frame to the clip's mean frame.
    """
    distance = jnp.sqrt(jnp.sum((log_mel - _mean(log_mel, weight)) ** 2, axis=-1))
    distance = distance * weight  # padding may be far from the mean
    relative = distance / jnp.maximum(jnp.max(distance), 1e-12)
    # Relative to the largest weight, to stay within the range of float32.
    weights = weight * ((1.0 + relative) / 2.0) ** SALIENCE
    return weights / jnp.maximum(weights.sum(), 1e-30)


def residual(
    frame_residual: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "feature"]:
    """Return each band's moments and upper quantile over a residual's frames."""
    upper = _quantile(frame_residual, weight, UPPER_QUANTILE)
    return jnp.concatenate([_moments(frame_residual, weight), upper])


def peak(
    difference: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "mel"]:
    """Return each band's mean power over frames (dB), which short events raise.

    The scores use it for the difference between a log-mel and its reconstruction.
    """
    nepers = jnp.where(weight[:, None] > 0, difference / DB_OF_E, -jnp.inf)
    count = jnp.maximum(weight.sum(), 1.0)
    return DB_OF_E * (jax.nn.logsumexp(nepers, axis=0) - jnp.log(count))


def latent(
    code: Float[Array, "window latent"], weight: Float[Array, "window"]
) -> Float[Array, "feature"]:
    """Return each latent dimension's mean and standard deviation over the windows."""
    mean = _mean(code, weight)
    return jnp.concatenate([mean, _deviation(code - mean, weight)])


def frame_residual(
    residual: Float[Array, "window feature"],
    weight: Float[Array, "window"],
    n_mels: int,
    n_context: int,
) -> tuple[Float[Array, "frame mel"], Float[Array, "frame"]]:
    """Average the residuals of each frame over the windows that contain it.

    If windows have a residual only for their middle frame, no averaging is needed. The
    second result is each frame's weight: 0 if no window of weight 1 contains the frame.
    """
    rows = residual.reshape(residual.shape[0], -1, n_mels)
    n_rows, n_windows = rows.shape[1], rows.shape[0]
    first = (n_context - n_rows + 1) // 2  # a single row is for frame n_context // 2
    total = jnp.zeros((n_windows + n_context - 1, n_mels))
    count = jnp.zeros(total.shape[0])
    for row in range(n_rows):
        place = slice(first + row, first + row + n_windows)
        total = total.at[place].add(rows[:, row] * weight[:, None])
        count = count.at[place].add(weight)
    return total / jnp.maximum(count, 1.0)[:, None], (count > 0) * 1.0


def _moments(
    values: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "feature"]:
    """Return each band's mean and two standard deviations.

    These are the standard deviations of the band's values and of their frame-to-frame
    changes.
    """
    mean = _mean(values, weight)
    change = values[1:] - values[:-1]
    both = weight[1:] * weight[:-1]
    change_deviation = _deviation(change - _mean(change, both), both)
    return jnp.concatenate([mean, _deviation(values - mean, weight), change_deviation])


def _mean(
    values: Float[Array, "item column"], weight: Float[Array, "item"]
) -> Float[Array, "column"]:
    return weight @ values / jnp.maximum(weight.sum(), 1.0)


def _deviation(
    centred: Float[Array, "item column"], weight: Float[Array, "item"]
) -> Float[Array, "column"]:
    return jnp.sqrt(_mean(centred**2, weight))


def _quantile(
    values: Float[Array, "frame mel"], weight: Float[Array, "frame"], fraction: float
) -> Float[Array, "mel"]:
    """Return each band's quantile, interpolated between ranks as in NumPy."""
    ordered = jnp.sort(jnp.where(weight[:, None] > 0, values, jnp.inf), axis=0)
    last = jnp.maximum(weight.sum() - 1.0, 0.0)
    place = fraction * last
    low = jnp.floor(place)
    below = ordered[low.astype(int)]
    above = ordered[jnp.minimum(low + 1.0, last).astype(int)]
    return below + (place - low) * (above - below)
