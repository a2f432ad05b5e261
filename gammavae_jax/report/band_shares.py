"""What mel bands add to a score, and where in time to show it: arrays only.

**Exact is the share of each band.** The distance `d` of a clip to its nearest training
clip is a root of a sum of squares over features, and every feature is of one band. So
`d` is the sum over bands of `q / d`, where `q` is a band's part of the sum of squares,
and the density score, `d` by that clip's radius, the sum of `q / (d radius)`.

**A convention is where in time a share is shown.** Statistics are over all frames. A
band is shown where its frames lie outside of what the nearest training clip is like
(beyond a deviation about its mean, squared); `peak`, where the residual has its power.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.scoring.neighbours import Reference

_SMALLEST_DEVIATION = 0.5  # dB, of a band that hardly moves
_EVENLY = 0.1  # of a frame's weight that it has in any case, in squared deviations
_NEPERS = np.log(10.0) / 10.0  # of power in a decibel


class Share(NamedTuple):
    """What bands add to a score, and how each one's is spread over frames."""

    bands: Float[np.ndarray, "mel"]
    in_time: Float[np.ndarray, "frame mel"]  # adds up to 1 over frames


class Nearest(NamedTuple):
    """The nearest training clip, and the share of each band in the distance to it."""

    bands: Float[np.ndarray, "mel"]
    features: Float[np.ndarray, "block mel"]  # of that clip, see `clip_statistics`


def nearest_clip(
    statistic: Float[np.ndarray, "feature"],
    reference: Reference,
    by_radius: bool,
    n_mels: int,
) -> Nearest:
    """Of one clip and the training clips of one member.

    `by_radius` is of the density score, else the distance is the plain one.
    """
    point = (statistic - reference.location) / reference.scale
    known = np.flatnonzero(reference.is_clip)
    apart = np.square(reference.clips[known] - point)
    unit = reference.radius[known] if by_radius else np.ones(len(known))
    distance = np.sqrt(apart.sum(-1))
    at = int(np.argmin(distance / unit))
    squares = apart[at].reshape(-1, n_mels).sum(0)
    clip = reference.clips[known[at]] * reference.scale + reference.location
    # A clip that is the nearest one itself is at no distance, in no band.
    bands = squares / max(float(distance[at]), 1e-12) / unit[at]
    return Nearest(bands, np.asarray(clip).reshape(-1, n_mels))


def where_departing(
    values: Float[np.ndarray, "frame mel"],
    mean: Float[np.ndarray, "mel"],
    deviation: Float[np.ndarray, "mel"],
    is_frame: Bool[np.ndarray, "frame"],
) -> Float[np.ndarray, "frame mel"]:
    """Each band's weight over frames: how far beyond a deviation about the mean."""
    unit = np.maximum(deviation, _SMALLEST_DEVIATION)
    beyond = np.maximum(np.abs(values - mean) - unit, 0.0) / unit
    return _over_frames(beyond**2 + _EVENLY, is_frame)


def where_powerful(
    decibels: Float[np.ndarray, "frame mel"], is_frame: Bool[np.ndarray, "frame"]
) -> Float[np.ndarray, "frame mel"]:
    """Each frame's part of a band's power."""
    level = decibels.max(axis=0, where=is_frame[:, None], initial=-np.inf)
    return _over_frames(np.exp(_NEPERS * np.minimum(decibels - level, 0.0)), is_frame)


def of_squares(
    squares: Float[np.ndarray, "frame mel"],
    total: float,
    is_frame: Bool[np.ndarray, "frame"],
) -> Share:
    """`total` spread over bands and frames by squares."""
    is_zero = not squares.any()  # then evenly
    bands = np.ones(squares.shape[1]) if is_zero else squares.sum(0)
    return Share(total * bands / bands.sum(), _over_frames(squares, is_frame))


def _over_frames(
    weights: Float[np.ndarray, "frame mel"], is_frame: Bool[np.ndarray, "frame"]
) -> Float[np.ndarray, "frame mel"]:
    """Made to add up to 1 in each band; evenly in one that has no weight."""
    weights = np.where(is_frame[:, None], weights, 0.0)
    weights = np.where(weights.sum(0) > 0, weights, is_frame[:, None] * 1.0)
    return weights / weights.sum(0)
