"""Computes the distances from a clip to its machine's training clips.

A `Reference`, or reference set, holds a statistic (see `data.statistics`) of the
training clips of both domains. Each clip's statistic is computed by a model that was
not trained on the clip.

If a domain has few training clips, its normal clips lie far from all training clips.
Two rules therefore divide the distance to a training clip by a function of its radius,
the mean distance between this training clip and its own neighbours. `density` divides
by the radius itself (Wilkinghoff et al. 2025, "Keeping the balance: anomaly score
calculation for domain generalization"), which over-corrects if one domain has hundreds
of clips and the other has ten. `varmin` divides by the radius raised to a power between
0 and 1, chosen to minimise the variance of the training clips' own log distances
(Matsumoto et al. 2025).

Linked clips (clips that contain the same audio, come from one recording or belong to
one group) are never compared with each other. Neither are clips with the same
attributes. See `training.links`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gammavae_jax.config import RULES, ScoringConfig
from gammavae_jax.data.arrays import AnyArray
from gammavae_jax.scoring.radii import (
    Shortlist,
    fit_radii,
    radii_without,
    related_places,
    shortlist,
)

_SMALLEST_SCALE = 0.05  # the lowest scale of a feature, relative to the mean scale
_SMALLEST_SPREAD = 1e-2  # dB, averaged over features; below this, the clips are copies
_TINY = 1e-6


class Reference(NamedTuple):
    """The training clips that a model compares clips with: its reference set.

    They are stored as a standardised statistic. Each entry along the axis `clip` is a
    training clip, a synthetic clip between two of them, or padding.
    """

    location: Float[AnyArray, "*model feature"]
    scale: Float[AnyArray, "*model feature"]
    clips: Float[AnyArray, "*model clip feature"]
    is_clip: Bool[AnyArray, "*model clip"]
    radius: Float[AnyArray, "*model clip"]  # mean distance to the nearest other clips
    exponent: Float[AnyArray, "*model"]  # the power of the radius in the rule `varmin`
    # The one or two training clips that each entry is made from; -1 for padding.
    parents: Int[AnyArray, "*model clip 2"]


def fit_reference(
    statistic: Float[np.ndarray, "clip feature"],
    is_related: Bool[np.ndarray, "clip clip"],
    is_clip: Bool[np.ndarray, "clip"],
    is_target: Bool[np.ndarray, "clip"],
    config: ScoringConfig,
    n_places: int,
    rng: np.random.Generator,
) -> Reference:
    """Fit the reference set of one model.

    Args:
        statistic: each training clip's statistic, from a model not trained on it.
        is_related: marks pairs of clips that are never neighbours, because they are
            linked or in the same fold.
        is_clip: excludes padding, and clips that the reference set must not contain.
        is_target: whether a clip is from the target domain.
        config: the settings for radii and synthetic clips.
        n_places: the number of entries, including padding; see `places_enough`.
        rng: the generator that draws synthetic clips.
    """
    used = statistic[is_clip]
    location, spread = used.mean(0), used.std(0)
    if spread.mean() < _SMALLEST_SPREAD:
        spread = np.ones_like(spread)  # one clip, or copies: distances stay in dB
    scale = np.maximum(spread, _SMALLEST_SCALE * spread.mean()) + _TINY
    real = (used - location) / scale
    numbers = np.flatnonzero(is_clip)
    extra, pairs = _synthetic(real, is_target[is_clip], config, rng)
    parents = np.concatenate([np.stack([numbers, numbers], axis=1), numbers[pairs]])
    n_clips = len(real) + len(extra)
    missing = n_places - n_clips
    clips = np.concatenate([real, extra, np.zeros((missing, real.shape[1]))])
    parents = np.concatenate([parents, np.full((missing, 2), -1)]).astype(np.int32)
    is_used = np.arange(n_places) < n_clips
    radius, exponent = fit_radii(
        jnp.asarray(clips, jnp.float32),
        jnp.asarray(related_places(parents, is_related)),
        jnp.asarray(is_used),
        config.n_density_neighbours,
    )
    return Reference(
        location.astype(np.float32),
        scale.astype(np.float32),
        clips.astype(np.float32),
        is_used,
        np.asarray(radius),
        np.asarray(exponent),
        parents,
    )


def places_enough(n_clips: int, config: ScoringConfig) -> int:
    """Return the capacity needed for a machine's training and synthetic clips."""
    return n_clips + int(config.smote_ratio * n_clips)


def distances(
    statistic: Float[Array, "feature"],
    reference: Reference,
    is_excluded: Bool[Array, "train"] | None = None,
    nearest: Shortlist | None = None,
) -> dict[str, Float[Array, ""]]:
    """Return a clip's distance to the nearest reference clip, under each distance rule.

    The rule "neighbour" is the Euclidean distance, in standard deviations. The other
    rules divide each distance by a function of the radius and return the smallest
    quotient.

    Args:
        statistic: the clip's statistic.
        reference: the reference set.
        is_excluded: if the clip is itself a training clip, marks the training clips
            that it must not be compared with, and that must not influence the scale. If
            no reference clip would be left, all of them are used.
        nearest: the result of `nearest_clips`. If it is passed, the excluded clips do
            not influence the radii either.
    """
    gaps = reference.clips - (statistic - reference.location) / reference.scale
    is_other, radius = reference.is_clip, reference.radius
    if is_excluded is not None:
        kept = is_other & ~is_excluded[reference.parents].any(-1)
        is_other = jnp.where(kept.any(), kept, is_other)
        wider = reference.scale / _scale_of(reference, is_other)
        gaps = gaps * wider
        if nearest is not None:
            radius = radii_without(nearest, is_other, radius)
            radius = radius / jnp.sqrt(jnp.mean(wider**-2))  # convert to the new scale
    # Expanding the square would lose the small differences between similar clips.
    distance = jnp.sqrt(jnp.sum(gaps**2, axis=-1))
    distance = jnp.where(is_other, distance, jnp.inf)
    reference = reference._replace(radius=radius)
    return {rule: jnp.min(distance / divisor(reference, rule)) for rule in RULES}


def nearest_clips(
    reference: Reference, is_excluded: Bool[Array, "train train"], n_neighbours: int
) -> Shortlist:
    """Return the clips nearest to each reference clip, for use by `distances`.

    Args:
        reference: the reference set of a statistic of the log-mel.
        is_excluded: the pairs of training clips that are never compared.
        n_neighbours: the number of neighbours that determine a radius.
    """
    places = reference.clips, reference.parents, reference.is_clip
    return shortlist(*places, is_excluded, n_neighbours)


def _scale_of(
    reference: Reference, is_used: Bool[Array, "clip"]
) -> Float[Array, "feature"]:
    """Return a reference set's scale, computed only from clips that `is_used` marks.

    A new clip has no influence on the scale. A training clip that is scored as if it
    were new must have none either, or it would look too normal. If at most half of the
    clips are used, they are too few: return the scale of all clips.
    """
    is_real = reference.is_clip & (reference.parents[:, 0] == reference.parents[:, 1])
    n_used = (is_used & is_real).sum()
    used = (is_used & is_real)[:, None] / jnp.maximum(n_used, 1)
    centred = reference.clips - jnp.sum(used * reference.clips, axis=0)
    spread = jnp.sqrt(jnp.sum(used * centred**2, axis=0)) * reference.scale
    spread = jnp.where(spread.mean() < _SMALLEST_SPREAD, 1.0, spread)
    scale = jnp.maximum(spread, _SMALLEST_SCALE * spread.mean()) + _TINY
    return jnp.where(2 * n_used > is_real.sum(), scale, reference.scale)


def divisor(reference: Reference, rule: str) -> Float[AnyArray, "*model clip"]:
    """Return the divisor that a rule applies to the distance to each reference clip."""
    if rule == "neighbour":
        return jnp.ones_like(reference.radius)
    if rule == "density":
        return reference.radius
    return reference.radius**reference.exponent


def _synthetic(
    clips: Float[np.ndarray, "clip feature"],
    is_target: Bool[np.ndarray, "clip"],
    config: ScoringConfig,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "new feature"], Int[np.ndarray, "new 2"]]:
    """Make synthetic clips by interpolating between neighbouring target clips.

    Return the clips, and the indices of the pair that each was made from. Source: SMOTE
    (Chawla et al. 2002), with two neighbours per clip.
    """
    at = np.flatnonzero(is_target)
    target = clips[at]
    n_source = len(clips) - len(target)
    count = int(config.smote_ratio * n_source) - len(target)
    if len(target) < 2 or count <= 0:
        return clips[:0], np.zeros((0, 2), int)
    gaps = np.linalg.norm(target[:, None] - target, axis=-1)
    np.fill_diagonal(gaps, np.inf)
    nearest = np.argsort(gaps, axis=1)[:, : min(2, len(target) - 1)]
    one = rng.integers(len(target), size=count)
    other = nearest[one, rng.integers(nearest.shape[1], size=count)]
    share = rng.random((count, 1))
    between = target[one] + share * (target[other] - target[one])
    return between, np.stack([at[one], at[other]], axis=1)
