"""Distances from a clip to its machine's training clips.

A `Reference` holds a statistic (see `data.statistics`) of the training clips of both
domains. Each clip's statistic is computed by a model that was not trained on the clip.

If a domain has few training clips, its normal clips lie far from all training clips.
The density score therefore divides the distance to a training clip by the distance
between this training clip and its own neighbours (Wilkinghoff et al. 2025, "Keeping the
balance: anomaly score calculation for domain generalization").
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gammavae_jax.config import ScoringConfig
from gammavae_jax.data.arrays import AnyArray
from gammavae_jax.training.members import NO_FOLD

_SMALLEST_SCALE = 0.05  # of a feature, relative to the mean scale
_SMALLEST_RADIUS = 0.1  # of a training clip, relative to the mean radius
_SMALLEST_SPREAD = 1e-2  # dB, averaged over features; below this, the clips are copies
_SMALLEST_MEAN_RADIUS = 1.0  # distinct clips are about sqrt(2 * n_features) apart
_TINY = 1e-6


class Reference(NamedTuple):
    """A model's reference: a standardised statistic of the training clips.

    The clips of the model's own fold do not influence the reference, so clips that the
    model holds out are as new to it as test clips.
    """

    location: Float[AnyArray, "*model feature"]
    scale: Float[AnyArray, "*model feature"]
    clips: Float[AnyArray, "*model clip feature"]
    is_clip: Bool[AnyArray, "*model clip"]
    radius: Float[AnyArray, "*model clip"]  # mean distance to the nearest other clips


class Distances(NamedTuple):
    """A clip's distances to the nearest training clip.

    `neighbour` is the smallest Euclidean distance, in standard deviations. `density` is
    the smallest quotient of the distance to a training clip and that clip's radius.
    """

    neighbour: Float[Array, "*clip"]
    density: Float[Array, "*clip"]


def fit_reference(
    statistic: Float[np.ndarray, "clip feature"],
    folds: Int[np.ndarray, "clip"],
    is_clip: Bool[np.ndarray, "clip"],
    is_target: Bool[np.ndarray, "clip"],
    config: ScoringConfig,
    n_places: int,
    rng: np.random.Generator,
) -> Reference:
    """Fit the reference of one model.

    Args:
        statistic: each training clip's statistic, from a model not trained on the clip.
        folds: for each clip, the fold of that model, or `NO_FOLD` if every model was
            trained on the clip. Radii are distances to clips of other folds, because
            a clip's copies are in its own fold.
        is_clip: a mask that excludes padding and the clips of this model's own fold.
        is_target: a mask of the clips from the target domain.
        config: the settings of the density score and of synthetic clips.
        n_places: the capacity for real and synthetic clips; see `places_enough`.
        rng: the generator that draws synthetic clips.
    """
    used = statistic[is_clip]
    location, spread = used.mean(0), used.std(0)
    if spread.mean() < _SMALLEST_SPREAD:
        spread = np.ones_like(spread)  # one clip, or copies; distances remain in dB
    scale = np.maximum(spread, _SMALLEST_SCALE * spread.mean()) + _TINY
    real = (used - location) / scale
    pairs = np.repeat(folds[is_clip][:, None], 2, axis=1)
    extra, extra_folds = _synthetic(real, pairs, is_target[is_clip], config, rng)
    n_clips = len(real) + len(extra)
    missing = n_places - n_clips
    clips = np.concatenate([real, extra, np.zeros((missing, real.shape[1]))])
    pairs = np.concatenate([pairs, extra_folds, np.full((missing, 2), NO_FOLD)])
    is_used = np.arange(n_places) < n_clips
    radius = _radius(
        jnp.asarray(clips, jnp.float32),
        jnp.asarray(pairs),
        jnp.asarray(is_used),
        config.n_density_neighbours,
    )
    return Reference(
        location.astype(np.float32),
        scale.astype(np.float32),
        clips.astype(np.float32),
        is_used,
        np.asarray(radius),
    )


def places_enough(n_clips: int, config: ScoringConfig) -> int:
    """Return the capacity needed for a machine's training and synthetic clips."""
    return n_clips + int(config.smote_ratio * n_clips)


def distances(statistic: Float[Array, "feature"], reference: Reference) -> Distances:
    """Return a clip's distances to the nearest clips of a reference."""
    point = (statistic - reference.location) / reference.scale
    # Expanding the square would lose the small differences of similar clips.
    distance = jnp.sqrt(jnp.sum((reference.clips - point) ** 2, axis=-1))
    distance = jnp.where(reference.is_clip, distance, jnp.inf)
    return Distances(distance.min(), jnp.min(distance / reference.radius))


def _shares(folds: Int[Array, "clip 2"], fold: Array) -> Bool[Array, "clip"]:
    return jnp.any((folds == fold) & (folds != NO_FOLD), axis=-1)


@jax.jit(static_argnums=3)
def _radius(
    clips: Float[Array, "clip feature"],
    folds: Int[Array, "clip 2"],
    is_clip: Bool[Array, "clip"],
    n_neighbours: int,
) -> Float[Array, "clip"]:
    """Return each clip's radius, the mean distance to its nearest neighbours.

    Neighbours are taken from other folds where possible. A clip without neighbours gets
    the mean radius. No radius is below a tenth of the mean radius, so that copies do
    not cause a division by 0; and the mean radius is at least 1, in case all clips are
    copies. A synthetic clip belongs to the folds of both clips that it lies between.
    """
    n_neighbours = min(n_neighbours, len(clips))

    def of_clip(place):
        distance = jnp.sqrt(jnp.sum((clips - clips[place]) ** 2, axis=-1))
        same = _shares(folds, folds[place, 0]) | _shares(folds, folds[place, 1])
        others = is_clip & (jnp.arange(len(clips)) != place)
        is_other = jnp.where((others & ~same).any(), others & ~same, others)
        nearness = jnp.where(is_other, -distance, -jnp.inf)
        nearest = -jax.lax.top_k(nearness, n_neighbours)[0]
        exists = jnp.isfinite(nearest)
        total = jnp.sum(nearest, where=exists)
        return total / jnp.maximum(exists.sum(), 1), exists.any() & is_clip[place]

    radius, is_defined = jax.lax.map(of_clip, jnp.arange(len(clips)))
    mean = jnp.sum(radius, where=is_defined) / jnp.maximum(is_defined.sum(), 1)
    mean = jnp.maximum(mean, _SMALLEST_MEAN_RADIUS)
    return jnp.maximum(jnp.where(is_defined, radius, mean), _SMALLEST_RADIUS * mean)


def _synthetic(
    clips: Float[np.ndarray, "clip feature"],
    folds: Int[np.ndarray, "clip 2"],
    is_target: Bool[np.ndarray, "clip"],
    config: ScoringConfig,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "new feature"], Int[np.ndarray, "new 2"]]:
    """Make synthetic clips between pairs of neighbouring target clips.

    Source: SMOTE (Chawla et al. 2002), with two neighbours per clip.
    """
    target, target_folds = clips[is_target], folds[is_target]
    n_source = len(clips) - len(target)
    count = int(config.smote_ratio * n_source) - len(target)
    if len(target) < 2 or count <= 0:
        return clips[:0], folds[:0]
    gaps = np.linalg.norm(target[:, None] - target, axis=-1)
    np.fill_diagonal(gaps, np.inf)
    nearest = np.argsort(gaps, axis=1)[:, : min(2, len(target) - 1)]
    one = rng.integers(len(target), size=count)
    other = nearest[one, rng.integers(nearest.shape[1], size=count)]
    share = rng.random((count, 1))
    between = target[one] + share * (target[other] - target[one])
    return between, np.stack([target_folds[one, 0], target_folds[other, 0]], axis=1)
