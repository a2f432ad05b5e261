"""Confidence intervals of a share and of the area under the ROC curve."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import Float

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_Z = float(scipy.stats.norm.ppf(1 - _TAIL))
_NEARLY_1 = 1 - 1e-9

Interval = tuple[float, float]  # the lower and the upper limit


class Share(NamedTuple):
    """A count of recordings with a property, such as an alarm, and the total count."""

    count: float  # fractional if the share was scaled to another total
    total: int  # at least 1

    @property
    def rate(self) -> float:
        """The share as a fraction."""
        return self.count / self.total

    @property
    def interval(self) -> Interval:
        """The exact 95 % Clopper-Pearson interval (1934) of the rate."""
        rest = self.total - self.count
        low, high = 0.0, 1.0
        if self.count > 0:
            low = float(scipy.stats.beta.ppf(_TAIL, self.count, rest + 1))
        if rest > 0:
            high = float(scipy.stats.beta.ppf(1 - _TAIL, self.count + 1, rest))
        return low, high

    def of_total(self, total: int) -> "Share":
        """Return the same rate, but for a different total number of recordings."""
        return Share(self.rate * total, total)


class RocArea(NamedTuple):
    """An area under the ROC curve, and the values that determine its interval.

    A recording's placement is the share of the other group against which it is ranked
    correctly: a faulty recording above a normal one. Ties count one half.
    """

    value: float
    n_normal: int
    n_faulty: int
    normal_spread: float  # variance of the placements of the normal recordings
    faulty_spread: float

    @property
    def interval(self) -> Interval:
        """The 95 % interval by Newcombe's method, using the larger of two variances.

        Each limit is 1.96 standard errors away from the value; the standard error is
        computed *at the limit* (Newcombe 2006, method 5). The limits therefore stay
        between 0 and 1, and an area of 1 has a lower limit below 1. Newcombe uses the
        Hanley-McNeil variance, which assumes similar distributions. If some faulty
        recordings are obvious and others sound normal, DeLong's variance of the
        placements is larger and is used instead; it is 0 if the area is 0 or 1.
        """
        value, low, high = self.value, 0.0, 1.0
        of_normal = self.normal_spread / self.n_normal
        measured = of_normal + self.faulty_spread / self.n_faulty
        scale = measured / _binary_variance(value) if 0 < value < 1 else 0.0

        def error(area: float) -> float:
            assumed = _assumed_variance(area, self.n_normal, self.n_faulty)
            return _Z * math.sqrt(max(assumed, scale * _binary_variance(area)))

        # A value of 0 or 1 would itself be a trivial root.
        if value > 0:
            low = _root(lambda a: value - a - error(a), 0.0, min(value, _NEARLY_1))
        if value < 1:
            high = _root(lambda a: a - value - error(a), max(value, 1 - _NEARLY_1), 1.0)
        return low, high

    def of_totals(self, n_normal: int, n_faulty: int) -> "RocArea":
        """Return the same area and variances for different numbers of recordings."""
        return self._replace(n_normal=n_normal, n_faulty=n_faulty)


def roc_area(
    normal: Float[np.ndarray, "normal"], faulty: Float[np.ndarray, "faulty"]
) -> RocArea:
    """Compute the area under the ROC curve from the scores of both groups."""
    of_faulty = _share_below(faulty, normal)
    of_normal = 1 - _share_below(normal, faulty)
    return RocArea(
        float(of_faulty.mean()),
        len(normal),
        len(faulty),
        _variance(of_normal),
        _variance(of_faulty),
    )


def _share_below(
    scores: Float[np.ndarray, "score"], others: Float[np.ndarray, "other"]
) -> Float[np.ndarray, "score"]:
    """Return the share of `others` below each score; ties count one half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, "left")
    return (below + np.searchsorted(ordered, scores, "right")) / 2 / len(others)


def _variance(values: Float[np.ndarray, "_"]) -> float:
    """Return the unbiased variance; 0 for a single value, whose variance is unknown."""
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _binary_variance(rate: float) -> float:
    return rate * (1 - rate)


def _assumed_variance(area: float, n_normal: int, n_faulty: int) -> float:
    """Return the Hanley-McNeil variance (1982), with Newcombe's symmetric counts."""
    n = (n_normal + n_faulty) / 2 - 1
    more = n * (1 - area) / (2 - area) + n * area / (1 + area)
    return _binary_variance(area) * (1 + more) / (n_normal * n_faulty)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    root: Any = scipy.optimize.brentq(function, low, high)
    return float(root)
