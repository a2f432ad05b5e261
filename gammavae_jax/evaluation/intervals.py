"""Confidence intervals of a share, of a ROC area, and of the official score."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import Bool, Float, Int

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import (
    MAX_FPR,
    SectionScores,
    ranking_columns,
    ranks,
    validate,
)
from gammavae_jax.evaluation.official import official_scores

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
        """Return a share with the same rate among a different number of recordings."""
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
    """Return the unbiased variance, or 0 for a single value (variance unknown)."""
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


class Bootstrap(NamedTuple):
    """The distribution of the official score over resamples of the test clips."""

    mean: float
    std: float
    low: float  # ends of the percentile interval
    high: float


def bootstrap(
    sections: Sequence[SectionScores],
    *,
    year: int | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """Bootstrap the official score by resampling test clips, without retraining.

    Clips are drawn with replacement within each label and domain of each section, so
    every resample has the same counts as the test set. A section's draws depend on the
    seed and the section's name, not on the order of clips or sections.

    Raises:
        InputError: there are no sections, `validate` rejects one, there are fewer than
            two resamples, or the year is before 2020.
    """
    if not sections:
        raise InputError("a bootstrap needs at least one section")
    if n_resamples < 2:
        raise InputError(f"too few bootstrap resamples ({n_resamples}): use at least 2")
    drawn = [_resample(s, year, n_resamples, seed) for s in sections]
    columns = {m: np.array([d[m] for d in drawn]) for m in drawn[0]}
    values = official_scores(columns, year)
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    spread = (values.mean(), values.std(ddof=1), low, high)
    return Bootstrap(*map(float, spread))


def _resample(
    section: SectionScores, year: int | None, n_resamples: int, seed: int
) -> dict[str, Float[np.ndarray, "resample"]]:
    """Compute the metrics of one section for each bootstrap resample."""
    name = f"{section.machine} section {section.section}"
    validate(section.scores, section.is_anomaly, section.is_target, name)
    order = np.argsort(section.scores)  # so that the order of the clips does not matter
    rank, is_anomaly = ranks(section.scores)[order], section.is_anomaly[order]
    is_target = section.is_target[order]
    strata = 2 * is_anomaly + is_target
    counts = _draw(strata, n_resamples, [seed, *name.encode()])

    def area(clips: np.ndarray, max_fpr: float = 1.0) -> np.ndarray:
        return _roc_area(counts[:, clips], rank[clips], is_anomaly[clips], max_fpr)

    def standardised_area(clips: np.ndarray) -> np.ndarray:
        chance = MAX_FPR**2 / 2
        return (1 + (area(clips, MAX_FPR) - chance) / (MAX_FPR - chance)) / 2

    columns = ranking_columns(area, standardised_area, is_anomaly, is_target, year)
    return {name: np.broadcast_to(c, n_resamples) for name, c in columns.items()}


def _draw(
    strata: Int[np.ndarray, "clip"], n_resamples: int, seed: list[int]
) -> Float[np.ndarray, "resample clip"]:
    """Draw how often each resample uses each clip; every stratum keeps its size."""
    rng = np.random.default_rng(seed)
    counts = np.empty((n_resamples, len(strata)))
    for stratum in np.unique(strata):
        n = np.count_nonzero(strata == stratum)
        counts[:, strata == stratum] = rng.multinomial(n, np.ones(n) / n, n_resamples)
    return counts


def _roc_area(
    counts: Float[np.ndarray, "resample clip"],
    rank: Int[np.ndarray, "clip"],
    is_anomaly: Bool[np.ndarray, "clip"],
    max_fpr: float,
) -> Float[np.ndarray, "resample"]:
    """Return each resample's ROC area up to `max_fpr`; `rank` must be sorted."""
    starts = np.flatnonzero(np.diff(rank, prepend=-1))

    def rates(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = np.add.reduceat(counts * chosen, starts, axis=1)[:, ::-1]
        ends = np.cumsum(steps, axis=1)
        total = ends[:, -1:]
        return (ends - steps) / total, ends / total

    (left, right), (low, high) = rates(~is_anomaly), rates(is_anomaly)
    width = np.minimum(right, max_fpr) - np.minimum(left, max_fpr)
    # Where max_fpr divides a segment, only the part to the left of it counts.
    share = np.divide(width, right - left, out=np.zeros_like(width), where=right > left)
    return np.sum(width * (low + share * (high - low) / 2), axis=1)
