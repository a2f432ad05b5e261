"""How far a clip lies from the training clips of its machine; arrays only.

A `Reference` holds a statistic of the training clips of both domains (see
`clip_statistics`), each told by a model that was not trained on the clip. The distance
to the nearest of them is the smaller of the distances to the nearest source clip and
to the nearest target clip. A domain of few clips lies thinly, and its normal clips lie
far from each other: the density score divides by how far a training clip's own
neighbours are (Wilkinghoff et al. 2025, "Keeping the balance: anomaly score calculation
for domain generalization").
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gammavae_jax.config import ScoringConfig
from gammavae_jax.training.members import NO_FOLD

_SMALLEST_SCALE = 0.05  # of a feature, as a share of the mean one
_SMALLEST_RADIUS = 0.1  # of a training clip, as a share of the mean one
_SMALLEST_SPREAD = 1e-2  # dB, of the mean feature; clips that differ less are alike
_SMALLEST_MEAN_RADIUS = 1.0  # usual clips are some sqrt(2 features) apart
_TINY = 1e-6

AnyArray = Array | np.ndarray  # on a device or on the host


class Reference(NamedTuple):
    """A statistic of the training clips that a model compares with, standardised.

    None of them is of the model's own fold, nor is anything here made of those: what
    is held out is to it as new as a test clip.
    """

    location: Float[AnyArray, "*model feature"]
    scale: Float[AnyArray, "*model feature"]
    clips: Float[AnyArray, "*model clip feature"]
    is_clip: Bool[AnyArray, "*model clip"]
    radius: Float[AnyArray, "*model clip"]  # mean distance of the nearest others


class Distances(NamedTuple):
    """Of a clip: to its nearest training clip, and that by the latter's radius.

    The former is in standard deviations, root of the sum over features.
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
    """The reference of one model.

    Args:
        statistic: of each training clip, by a model that has not seen it.
        folds: the fold of that model, `NO_FOLD` where all models have seen the clip;
            a clip's radius looks at other folds than its own, which hold no copies.
        is_clip: what is no padding, and is not of this model's fold.
        is_target: the domain of each clip.
        config: of density and synthetic clips.
        n_places: places for clips, of which synthetic ones take what is free.
        rng: for synthetic clips.
    """
    used = statistic[is_clip]
    location, spread = used.mean(0), used.std(0)
    if spread.mean() < _SMALLEST_SPREAD:
        spread = np.ones_like(spread)  # one clip, or copies: distances are in dB
    scale = np.maximum(spread, _SMALLEST_SCALE * spread.mean()) + _TINY
    known = (used - location) / scale
    pairs = np.repeat(folds[is_clip][:, None], 2, axis=1)
    extra, extra_folds = _synthetic(known, pairs, is_target[is_clip], config, rng)
    n_known = len(known) + len(extra)
    missing = n_places - n_known
    clips = np.concatenate([known, extra, np.zeros((missing, known.shape[1]))])
    pairs = np.concatenate([pairs, extra_folds, np.full((missing, 2), NO_FOLD)])
    is_known = np.arange(n_places) < n_known
    radius = _radius(
        jnp.asarray(clips, jnp.float32),
        jnp.asarray(pairs),
        jnp.asarray(is_known),
        config.n_density_neighbours,
    )
    return Reference(
        location.astype(np.float32),
        scale.astype(np.float32),
        clips.astype(np.float32),
        is_known,
        np.asarray(radius),
    )


def places_enough(n_clips: int, config: ScoringConfig) -> int:
    """For so many training clips of one machine, and the synthetic ones among them."""
    return n_clips + int(config.smote_ratio * n_clips)


def distances(statistic: Float[Array, "feature"], reference: Reference) -> Distances:
    """Of one clip to the clips of a reference."""
    distance = _distance((statistic - reference.location) / reference.scale, reference)
    distance = jnp.where(reference.is_clip, distance, jnp.inf)
    return Distances(distance.min(), jnp.min(distance / reference.radius))


def _distance(
    point: Float[Array, "feature"], reference: Reference
) -> Float[Array, "clip"]:
    # Not by products: those lose what little two near clips differ by.
    return jnp.sqrt(jnp.sum((reference.clips - point) ** 2, axis=-1))


def _shares(folds: Int[Array, "clip 2"], fold: Array) -> Bool[Array, "clip"]:
    return jnp.any((folds == fold) & (folds != NO_FOLD), axis=-1)


@jax.jit(static_argnums=3)
def _radius(
    clips: Float[Array, "clip feature"],
    folds: Int[Array, "clip 2"],
    is_clip: Bool[Array, "clip"],
    n_neighbours: int,
) -> Float[Array, "clip"]:
    """Mean distance of each clip to its nearest ones, in other folds if there are any.

    One that has none takes the mean, and none is smaller than a tenth of it: copies
    of a clip would divide by nothing. Where all are copies the mean is 1, for there is
    nothing to measure by. A synthetic clip has the folds of both clips that it lies
    between.
    """
    n_neighbours = min(n_neighbours, len(clips))

    def of_clip(place):
        distance = jnp.sqrt(jnp.sum((clips - clips[place]) ** 2, axis=-1))
        same = _shares(folds, folds[place, 0]) | _shares(folds, folds[place, 1])
        others = is_clip & (jnp.arange(len(clips)) != place)
        is_other = jnp.where((others & ~same).any(), others & ~same, others)
        nearness = jnp.where(is_other, -distance, -jnp.inf)
        nearest = -jax.lax.top_k(nearness, n_neighbours)[0]
        found = jnp.isfinite(nearest)
        total = jnp.sum(nearest, where=found)
        return total / jnp.maximum(found.sum(), 1), found.any() & is_clip[place]

    radius, is_known = jax.lax.map(of_clip, jnp.arange(len(clips)))
    mean = jnp.sum(radius, where=is_known) / jnp.maximum(is_known.sum(), 1)
    mean = jnp.maximum(mean, _SMALLEST_MEAN_RADIUS)
    return jnp.maximum(jnp.where(is_known, radius, mean), _SMALLEST_RADIUS * mean)


def _synthetic_count(is_target: Bool[np.ndarray, "clip"], config: ScoringConfig) -> int:
    n_target = int(is_target.sum())
    wanted = int(config.smote_ratio * (len(is_target) - n_target))
    return max(wanted - n_target, 0) if n_target > 1 else 0


def _synthetic(
    clips: Float[np.ndarray, "clip feature"],
    folds: Int[np.ndarray, "clip 2"],
    is_target: Bool[np.ndarray, "clip"],
    config: ScoringConfig,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "new feature"], Int[np.ndarray, "new 2"]]:
    """Target clips between a target clip and one of its two nearest.

    Source: SMOTE (Chawla et al. 2002).
    """
    count = _synthetic_count(is_target, config)
    target, target_folds = clips[is_target], folds[is_target]
    if count == 0:
        return clips[:0], folds[:0]
    gaps = np.linalg.norm(target[:, None] - target, axis=-1)
    np.fill_diagonal(gaps, np.inf)
    nearest = np.argsort(gaps, axis=1)[:, : min(2, len(target) - 1)]
    one = rng.integers(len(target), size=count)
    other = nearest[one, rng.integers(nearest.shape[1], size=count)]
    share = rng.random((count, 1))
    between = target[one] + share * (target[other] - target[one])
    return between, np.stack([target_folds[one, 0], target_folds[other, 0]], axis=1)
