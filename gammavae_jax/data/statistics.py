"""What a clip is like as a whole: statistics over its frames, arrays only.

Conventions: `frame mel` in dB; `weight` is 1 for a frame (or a window) of the clip and
0 for padding. Neighbours are sought among such vectors (`neighbours`).

- `spectrum`: of the log-mel, less its mean over the clip, so that gain does not matter:
  each band's mean, deviation, and deviation of the change from frame to frame.
- `residual`: the same of what the model did not expect of each frame, and each band's
  upper quantile.
- `peak`: each band's level of the residual's mean power, which short events raise.
- `latent`: mean and deviation of each latent of the posterior mean.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

UPPER_QUANTILE = 0.95
_DECIBELS = 10.0 / math.log(10.0)  # in a neper of power


def spectrum(
    log_mel: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "feature"]:
    """Shape and liveliness of a clip's spectrum; the same at any gain."""
    level = _mean(jnp.mean(log_mel, axis=-1, keepdims=True), weight)
    return _moments(log_mel - level, weight)


def residual(
    frame_residual: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "feature"]:
    """The residual's moments over time, and its upper quantile."""
    upper = _quantile(frame_residual, weight, UPPER_QUANTILE)
    return jnp.concatenate([_moments(frame_residual, weight), upper])


def peak(
    frame_residual: Float[Array, "frame mel"], weight: Float[Array, "frame"]
) -> Float[Array, "mel"]:
    """The level of the residual's mean power, dB: a mean that follows its peaks."""
    nepers = jnp.where(weight[:, None] > 0, frame_residual / _DECIBELS, -jnp.inf)
    count = jnp.maximum(weight.sum(), 1.0)
    return _DECIBELS * (jax.nn.logsumexp(nepers, axis=0) - jnp.log(count))


def latent(
    code: Float[Array, "window latent"], weight: Float[Array, "window"]
) -> Float[Array, "feature"]:
    """Mean and deviation of each latent over the windows of a clip."""
    mean = _mean(code, weight)
    return jnp.concatenate([mean, _deviation(code - mean, weight)])


def frame_residual(
    residual: Float[Array, "window feature"],
    weight: Float[Array, "window"],
    n_mels: int,
    n_context: int,
) -> tuple[Float[Array, "frame mel"], Float[Array, "frame"]]:
    """Each frame's residual, mean over the windows that it is part of.

    Where a window's residual is of its middle frame alone, so is the result. Returns
    the weight of each frame too: 0 where no window of weight 1 tells of it.
    """
    rows = residual.reshape(residual.shape[0], -1, n_mels)
    n_rows, n_windows = rows.shape[1], rows.shape[0]
    first = (n_context - n_rows + 1) // 2  # a single row is of frame n_context // 2
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
    """Mean and deviation over frames, and the deviation of successive differences."""
    mean = _mean(values, weight)
    change = values[1:] - values[:-1]
    both = weight[1:] * weight[:-1]
    return jnp.concatenate(
        [
            mean,
            _deviation(values - mean, weight),
            _deviation(change - _mean(change, both), both),
        ]
    )


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
    """Per band, between the two nearest ranks, as NumPy does."""
    ordered = jnp.sort(jnp.where(weight[:, None] > 0, values, jnp.inf), axis=0)
    last = jnp.maximum(weight.sum() - 1.0, 0.0)
    place = fraction * last
    low = jnp.floor(place)
    below = ordered[low.astype(int)]
    above = ordered[jnp.minimum(low + 1.0, last).astype(int)]
    return below + (place - low) * (above - below)
