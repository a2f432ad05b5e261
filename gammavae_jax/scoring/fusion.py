"""Combines several scores, after standardising each one on held-out clips.

Scores differ in their units and in the faults they detect. No statistic of test clips
is used, so a clip gets the same score whether it is scored alone or with others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from gammavae_jax.config import DIRECT_SCORES

# Held-out scores that differ by less than these limits are equal up to rounding. The
# first limit is relative to the mean; the other two are absolute, for a mean near 0.
# The distance between copies is the square root of a rounding error, whereas squared
# errors and divergences are squares of rounding errors and so get a smaller limit.
# Mahalanobis distances are squares, too, but they are divided by variances that may be
# just as small.
_ROUNDING = 1e-3
_ROUNDING_AT_ZERO, _ROUNDING_OF_SQUARES = 1e-2, 1e-5
_SQUARES = frozenset(DIRECT_SCORES) - {"mahalanobis", "mahalanobis_framewise"}

Scores = dict[str, Float[np.ndarray, "seed machine clip"]]


def smooth_max(parts: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    """Return a smooth maximum of standardised scores: the log of the mean exponential.

    If one score is much larger than the others, the result is close to this score minus
    the log of the number of scores. If all are similar, it is close to their mean. A
    fault that only one score detects is therefore not averaged away, and a score that
    detects nothing hardly changes the result.
    """
    return logsumexp(parts, axis=axis) - np.log(len(parts))


_RULES: dict[str, Callable[..., np.ndarray]] = {
    "fusion_mean": np.mean,
    "fusion_max": np.max,
    "fusion_min": np.min,
    "fusion_smooth_max": smooth_max,
}


def fuse(
    scores: Mapping[str, Float[np.ndarray, "seed machine clip"]],
    calibration: Mapping[str, Float[np.ndarray, "seed machine held_out"]],
    names: Sequence[str],
    fused: Sequence[str],
) -> Scores:
    """Return the scores listed in `names`, after computing the fusion scores.

    Args:
        scores: the clips' scores, by name.
        calibration: the held-out clips' scores; NaN for clips that were not held out.
        names: the scores to return.
        fused: the scores that fusion scores combine.
    """
    result = {}
    for name in names:
        if name in _RULES:
            standards = [standard_of(n, calibration[n]) for n in fused]
            parts = [
                (scores[n] - standard.mean) / standard.unit
                for n, standard in zip(fused, standards, strict=True)
            ]
            result[name] = _RULES[name](parts, axis=0)
        else:
            result[name] = scores[name]
    return result


class Standard(NamedTuple):
    """The mean and the scale used to standardise a score."""

    mean: Float[np.ndarray, "*model 1"]
    unit: Float[np.ndarray, "*model 1"]


def standard_of(
    name: str, calibration: Float[np.ndarray, "*model held_out"]
) -> Standard:
    """Return a score's mean and unit on held-out clips, ignoring NaN.

    The unit is the standard deviation, but at least a thousandth of the mean. If all
    held-out scores are equal, it is also at least the rounding error of scores near 0.
    """
    held_out = ~np.isnan(calibration)
    # A diverged model has no scores, so its count would be 0.
    count = np.maximum(held_out.sum(-1, keepdims=True), 1)
    mean = np.sum(calibration, axis=-1, keepdims=True, where=held_out) / count
    centred = np.where(held_out, calibration - mean, 0.0)
    deviation = np.sqrt(np.sum(centred**2, axis=-1, keepdims=True) / count)
    most, least = _extremes(calibration)
    usual = np.maximum(deviation, _ROUNDING * np.abs(mean))
    # The deviation of equal numbers may not be 0, because their mean is rounded.
    unit = np.where(most > least, usual, _rounding(name, mean))
    return Standard(mean, unit + 1e-12)


def equalise_ties(
    name: str,
    calibration: Float[np.ndarray, "*model held_out"],
) -> Float[np.ndarray, "*model held_out"]:
    """Make held-out scores equal if they differ only by rounding.

    Copies of one sound, such as digital silence, have such scores. All of them are set
    to slightly more than the largest one. If the same sound is scored again together
    with other clips, a rounding error in its score then raises no alarm.
    """
    held_out = ~np.isnan(calibration)
    several = held_out.sum(-1, keepdims=True) > 1
    most, least = (np.where(several, x, 0.0) for x in _extremes(calibration))
    rounding = _rounding(name, most)
    copies = several & (most - least < 0.5 * rounding)
    return np.where(held_out & copies, most + 0.25 * rounding, calibration)


def _extremes(
    calibration: Float[np.ndarray, "*model held_out"],
) -> tuple[Float[np.ndarray, "*model 1"], Float[np.ndarray, "*model 1"]]:
    """Return the largest and smallest non-NaN scores, or -inf and inf if none exist."""
    held_out = ~np.isnan(calibration)
    most = np.max(calibration, -1, keepdims=True, where=held_out, initial=-np.inf)
    least = np.min(calibration, -1, keepdims=True, where=held_out, initial=np.inf)
    return most, least


def _rounding(name: str, size: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return how much rounding may change a score of this size."""
    at_zero = _ROUNDING_OF_SQUARES if name in _SQUARES else _ROUNDING_AT_ZERO
    return np.maximum(_ROUNDING * np.abs(size), at_zero)
