"""Computes each reference clip's radius: the mean distance to its neighbours."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from gammavae_jax.data.arrays import AnyArray

_SMALLEST_RADIUS = 0.1  # the lowest radius of a clip, relative to the mean radius
_SMALLEST_MEAN_RADIUS = 1.0  # distinct clips are about sqrt(2 * n_features) apart
_TINY = 1e-6
_SHORTLISTED = 64  # extra clips in a shortlist, because some may be left out


def related_places(
    parents: Int[np.ndarray, "place 2"], is_related: Bool[np.ndarray, "clip clip"]
) -> Bool[np.ndarray, "place place"]:
    """Mark the pairs of reference clips made from the same or related clips."""
    related = is_related | np.eye(len(is_related), dtype=bool)
    one, other = parents.T
    pairs = [related[np.ix_(a, b)] for a in (one, other) for b in (one, other)]
    return np.logical_or.reduce(pairs)


@jax.jit(static_argnums=3)
def fit_radii(
    clips: Float[Array, "clip feature"],
    is_related: Bool[Array, "clip clip"],
    is_clip: Bool[Array, "clip"],
    n_neighbours: int,
) -> tuple[Float[Array, "clip"], Float[Array, ""]]:
    """Return each clip's radius, and the exponent of the rule `varmin`.

    A radius is the mean distance to the nearest neighbours, which are unrelated clips
    where possible. A clip without neighbours gets the mean radius. A radius is at least
    a tenth of the mean radius, so that copies cause no division by 0. The mean is at
    least 1, in case all clips are copies.
    """
    n_neighbours = min(n_neighbours, len(clips))

    def of_clip(place):
        distance = jnp.sqrt(jnp.sum((clips - clips[place]) ** 2, axis=-1))
        others = is_clip & (jnp.arange(len(clips)) != place)
        unrelated = others & ~is_related[place]
        is_other = jnp.where(unrelated.any(), unrelated, others)
        nearness = jnp.where(is_other, -distance, -jnp.inf)
        nearest, at = jax.lax.top_k(nearness, n_neighbours)
        exists = jnp.isfinite(nearest)
        total = -jnp.sum(nearest, where=exists)
        is_defined = exists.any() & is_clip[place]
        return total / jnp.maximum(exists.sum(), 1), is_defined, -nearest[0], at[0]

    radius, is_defined, nearest, at = jax.lax.map(of_clip, jnp.arange(len(clips)))
    n_defined = jnp.maximum(is_defined.sum(), 1)
    mean = jnp.sum(radius, where=is_defined) / n_defined
    mean = jnp.maximum(mean, _SMALLEST_MEAN_RADIUS)
    radius = jnp.maximum(jnp.where(is_defined, radius, mean), _SMALLEST_RADIUS * mean)
    # Regress the log distance to the nearest clip on the log radius of that clip.
    log_distance = jnp.log(jnp.where(is_defined, nearest, 1.0) + _TINY)
    log_radius = jnp.log(radius[at])
    centred = log_radius - jnp.sum(log_radius, where=is_defined) / n_defined
    covariance = jnp.sum(centred * log_distance, where=is_defined)
    variance = jnp.sum(centred**2, where=is_defined)
    exponent = jnp.clip(covariance / jnp.maximum(variance, _TINY), 0.0, 1.0)
    return radius, exponent


class Shortlist(NamedTuple):
    """The unrelated clips that are nearest to each reference clip, nearest first."""

    index: Int[Array, "clip near"]
    distance: Float[Array, "clip near"]  # infinite where there is no clip
    n_neighbours: int  # the number of clips that determine a radius


def shortlist(
    clips: Float[AnyArray, "clip feature"],
    parents: Int[AnyArray, "clip 2"],
    is_clip: Bool[AnyArray, "clip"],
    is_related: Bool[AnyArray, "train train"],
    n_neighbours: int,
) -> Shortlist:
    """Find the unrelated clips that are nearest to each reference clip.

    Args:
        clips: the statistics of the reference clips.
        parents: the one or two training clips that each reference clip is made from.
        is_clip: excludes padding.
        is_related: the pairs of training clips that are never compared.
        n_neighbours: the number of neighbours that determine a radius.
    """
    length = min(_SHORTLISTED + n_neighbours, len(clips))

    def of_clip(place):
        distance = jnp.sqrt(jnp.sum((clips - clips[place]) ** 2, axis=-1))
        related = is_related[parents[place]].any(0)[parents].any(-1)
        is_other = is_clip & ~related & (jnp.arange(len(clips)) != place)
        nearness, at = jax.lax.top_k(jnp.where(is_other, -distance, -jnp.inf), length)
        return at, -nearness

    index, distance = jax.lax.map(of_clip, jnp.arange(len(clips)))
    return Shortlist(index, distance, n_neighbours)


def radii_without(
    nearest: Shortlist,
    is_kept: Bool[AnyArray, "clip"],
    radius: Float[AnyArray, "clip"],
) -> Float[Array, "clip"]:
    """Return the radii that result if only the kept clips can be neighbours.

    Args:
        nearest: the nearest clips. If more than 64 of a clip's nearest clips are left
            out, the last distance in its list stands in for the missing ones.
        is_kept: marks the clips that can be neighbours.
        radius: the radii if all clips can be neighbours. A clip without neighbours
            keeps its radius, and no new radius is below the smallest of these.
    """
    is_used = is_kept[nearest.index] & jnp.isfinite(nearest.distance)
    most = jnp.minimum(nearest.n_neighbours, is_used.shape[-1])
    is_used &= running_count(is_used) <= most
    count, last = is_used.sum(-1), nearest.distance[:, -1]
    n_more = jnp.where(jnp.isfinite(last), nearest.n_neighbours - count, 0)
    total = jnp.sum(nearest.distance, where=is_used, axis=-1)
    total += jnp.where(n_more > 0, n_more * last, 0.0)
    count += n_more
    without = jnp.where(count > 0, total / jnp.maximum(count, 1), radius)
    return jnp.maximum(without, radius.min())


def running_count(
    is_counted: Bool[Array, "*row item"],
) -> Integer[Array, "*row item"]:
    """Return how many items up to each one are counted.

    On CPUs, XLA takes several times as long for `jnp.cumsum`.
    """
    length = is_counted.shape[-1]
    count = is_counted.astype(jnp.uint8 if length < 256 else jnp.int32)
    before = [(0, 0)] * (count.ndim - 1)
    distance = 1
    while distance < length:
        # Each count covers `distance` items; afterwards, it covers twice as many.
        count += jnp.pad(count[..., :-distance], [*before, (distance, 0)])
        distance *= 2
    return count
