"""Several scores made one: standardised on clips that no model was trained on.

Scores differ in unit and in which faults they hear. Nothing here looks at test clips:
a clip scored alone has the score that it has among others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import DIRECT_SCORES

# Held-out scores within this are alike but for rounding: as a share of their mean, and
# where that is next to nothing. Distances of copies are the root of what rounding
# leaves; errors and divergences are its square. So are Mahalanobis distances, but over
# variances that may be as small.
_ROUNDING = 1e-3
_ROUNDING_AT_ZERO, _ROUNDING_OF_SQUARES = 1e-2, 1e-5
_SQUARES = frozenset(DIRECT_SCORES) - {"mahalanobis", "mahalanobis_framewise"}

Scores = dict[str, Float[np.ndarray, "seed machine clip"]]

_RULES: dict[str, Callable[..., np.ndarray]] = {
    "fusion_mean": np.mean,
    "fusion_max": np.max,
    "fusion_min": np.min,
}


def fuse(
    scores: Mapping[str, Float[np.ndarray, "seed machine clip"]],
    calibration: Mapping[str, Float[np.ndarray, "seed machine held_out"]],
    names: Sequence[str],
    fused: Sequence[str],
) -> Scores:
    """The named scores, those that fuse others computed from those they fuse.

    Args:
        scores: of clips, by name.
        calibration: of the clips that were held out, NaN where there is none.
        names: of the scores that are wanted.
        fused: what the fusion scores fuse.
    """
    made = {}
    for name in names:
        if name in _RULES:
            parts = [_standardised(n, scores[n], calibration[n]) for n in fused]
            made[name] = _RULES[name](parts, axis=0)
        else:
            made[name] = scores[name]
    return made


class Standard(NamedTuple):
    """Mean and unit of a score on held-out clips."""

    mean: Float[np.ndarray, "*model 1"]
    unit: Float[np.ndarray, "*model 1"]


def standard_of(
    name: str, calibration: Float[np.ndarray, "*model held_out"]
) -> Standard:
    """Mean and deviation of what is not NaN, of the score of that name.

    Where held-out clips are all alike but for rounding, a thousandth of their mean is
    the unit, or what rounding makes of zeros if that is more.
    """
    known = ~np.isnan(calibration)
    count = np.maximum(known.sum(-1, keepdims=True), 1)  # 0 where a model broke down
    mean = np.sum(calibration, axis=-1, keepdims=True, where=known) / count
    centred = np.where(known, calibration - mean, 0.0)
    deviation = np.sqrt(np.sum(centred**2, axis=-1, keepdims=True) / count)
    most, least = _extremes(calibration)
    usual = np.maximum(deviation, _ROUNDING * np.abs(mean))
    # The deviation of equal numbers is not always 0: their mean may be rounded.
    unit = np.where(most > least, usual, _rounding(name, mean))
    return Standard(mean, unit + 1e-12)


def equalise_ties(
    name: str,
    calibration: Float[np.ndarray, "*model held_out"],
) -> Float[np.ndarray, "*model held_out"]:
    """Scores of held-out clips, made equal where they are alike but for rounding.

    So are those of copies, such as of digital silence. Each is then the largest and a
    little more: the same sound once more, scored beside other clips, may come out
    higher by rounding, and must be no alarm.
    """
    known = ~np.isnan(calibration)
    several = known.sum(-1, keepdims=True) > 1
    most, least = (np.where(several, x, 0.0) for x in _extremes(calibration))
    rounding = _rounding(name, most)
    alike = several & (most - least < 0.5 * rounding)
    return np.where(known & alike, most + 0.25 * rounding, calibration)


def _extremes(
    calibration: Float[np.ndarray, "*model held_out"],
) -> tuple[Float[np.ndarray, "*model 1"], Float[np.ndarray, "*model 1"]]:
    """The largest and the smallest of what is not NaN; infinite where all are."""
    known = ~np.isnan(calibration)
    most = np.max(calibration, -1, keepdims=True, where=known, initial=-np.inf)
    least = np.min(calibration, -1, keepdims=True, where=known, initial=np.inf)
    return most, least


def _rounding(name: str, size: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """By how much scores of this size may differ and be the same."""
    at_zero = _ROUNDING_OF_SQUARES if name in _SQUARES else _ROUNDING_AT_ZERO
    return np.maximum(_ROUNDING * np.abs(size), at_zero)


def _standardised(
    name: str,
    scores: Float[np.ndarray, "seed machine clip"],
    calibration: Float[np.ndarray, "seed machine held_out"],
) -> Float[np.ndarray, "seed machine clip"]:
    """In units from the mean of held-out clips."""
    standard = standard_of(name, calibration)
    return (scores - standard.mean) / standard.unit
