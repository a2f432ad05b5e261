"""From scores of windows to one of a clip; arrays only.

A mean drowns a short click among three hundred quiet windows. These look at the worst
windows more. `weight` is 1 for a window and 0 for padding.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

TOP_FRACTION = 0.1  # of the windows, for `top`
RANK_DECAY = 0.98  # from each rank to the next, for `ranked`


def mean(values: Float[Array, "window"], weight: Float[Array, "window"]) -> Array:
    """The mean of the windows."""
    return weight @ values / jnp.maximum(weight.sum(), 1.0)


def largest(values: Float[Array, "window"], weight: Float[Array, "window"]) -> Array:
    """The largest; 0 of no windows."""
    most = jnp.max(jnp.where(weight > 0, values, -jnp.inf))
    return jnp.where(jnp.any(weight > 0), most, 0.0)


def top(values: Float[Array, "window"], weight: Float[Array, "window"]) -> Array:
    """The mean of the largest tenth of the windows, at least of one."""
    count = jnp.maximum(jnp.ceil(TOP_FRACTION * weight.sum()), 1.0)
    return _by_rank(values, weight, (jnp.arange(values.shape[0]) < count) * 1.0)


def ranked(values: Float[Array, "window"], weight: Float[Array, "window"]) -> Array:
    """The mean with weights that fall by rank, from the largest down.

    Source: generalised weighted rank pooling (Kolesnikov and Lampert 2016), with a
    decay between the mean's, 1, and the maximum's, 0.
    """
    return _by_rank(values, weight, RANK_DECAY ** jnp.arange(values.shape[0]))


def _by_rank(
    values: Float[Array, "window"],
    weight: Float[Array, "window"],
    weight_of_rank: Float[Array, "window"],
) -> Array:
    """The mean of the windows, each of the weight of its rank; padding comes last."""
    order = jnp.argsort(jnp.where(weight > 0, -values, jnp.inf))
    ranked_weight = weight_of_rank * weight[order]
    return ranked_weight @ values[order] / jnp.maximum(ranked_weight.sum(), 1e-12)
