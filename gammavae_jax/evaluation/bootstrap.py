"""How far the official score moves when the test clips are drawn anew.

The stratified bootstrap over clips: what it spreads over is the choice of test clips,
not the training of the model. The ROC curves of all resamples are made at once, from
how often each clip was drawn.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
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


class Bootstrap(NamedTuple):
    """The official score over resamples, a fraction."""

    mean: float
    std: float
    low: float  # ends of the percentile interval
    high: float


def bootstrap(
    sections: Sequence[SectionScores],
    *,
    year: int | None = None,
    n_resamples: int = 1000,
    coverage: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Spread of the official score over test clips drawn with replacement.

    Drawn within each label and domain of each section, so that every resample has the
    same counts as the test set. A section's draws depend on the seed and its name,
    never on the order of the clips or of the sections.

    Raises:
        InputError: no sections, or one that `validate` refuses; fewer than two
            resamples, of which there is no spread; a year before the challenge.
    """
    if not sections:
        raise InputError("there are no sections to bootstrap")
    if n_resamples < 2:
        raise InputError(f"a bootstrap of {n_resamples} resamples: give at least 2")
    drawn = [_resample(s, year, n_resamples, seed) for s in sections]
    columns = {m: np.array([d[m] for d in drawn]) for m in drawn[0]}
    values = official_scores(columns, year)
    tail = (1 - coverage) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Bootstrap(
        float(values.mean()), float(values.std(ddof=1)), float(low), float(high)
    )


def _resample(
    section: SectionScores, year: int | None, n_resamples: int, seed: int
) -> dict[str, Float[np.ndarray, "resample"]]:
    """The ranking columns of one section, in each resample."""
    name = f"{section.machine} section {section.section}"
    validate(section.scores, section.is_anomaly, section.is_target, name)
    order = np.argsort(section.scores)  # so the clips' order cannot matter
    places, is_anomaly = ranks(section.scores)[order], section.is_anomaly[order]
    is_target = section.is_target[order]
    strata = 2 * is_anomaly + is_target
    counts = _draw(strata, n_resamples, [seed, *name.encode()])

    def area(clips: np.ndarray, max_fpr: float = 1.0) -> np.ndarray:
        return _roc_area(counts[:, clips], places[clips], is_anomaly[clips], max_fpr)

    def standardised_area(clips: np.ndarray) -> np.ndarray:
        chance = MAX_FPR**2 / 2
        return (1 + (area(clips, MAX_FPR) - chance) / (MAX_FPR - chance)) / 2

    columns = ranking_columns(area, standardised_area, is_anomaly, is_target, year)
    return {name: np.broadcast_to(c, n_resamples) for name, c in columns.items()}


def _draw(
    strata: Int[np.ndarray, "clip"], n_resamples: int, seed: list[int]
) -> Float[np.ndarray, "resample clip"]:
    """How often each clip is drawn, as many in all from a stratum as it has clips."""
    rng = np.random.default_rng(seed)
    counts = np.empty((n_resamples, len(strata)))
    for stratum in np.unique(strata):
        n = np.count_nonzero(strata == stratum)
        counts[:, strata == stratum] = rng.multinomial(n, np.ones(n) / n, n_resamples)
    return counts


def _roc_area(
    counts: Float[np.ndarray, "resample clip"],
    places: Int[np.ndarray, "clip"],
    is_anomaly: Bool[np.ndarray, "clip"],
    max_fpr: float,
) -> Float[np.ndarray, "resample"]:
    """Area under each resample's ROC curve up to `max_fpr`; `places` must ascend."""
    starts = np.flatnonzero(np.diff(places, prepend=-1))

    def rates(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = np.add.reduceat(counts * chosen, starts, axis=1)[:, ::-1]
        ends = np.cumsum(steps, axis=1)
        total = ends[:, -1:]
        return (ends - steps) / total, ends / total

    (left, right), (low, high) = rates(~is_anomaly), rates(is_anomaly)
    width = np.minimum(right, max_fpr) - np.minimum(left, max_fpr)
    # Where max_fpr cuts a segment, only the first part of its rise counts.
    share = np.divide(width, right - left, out=np.zeros_like(width), where=right > left)
    return np.sum(width * (low + share * (high - low) / 2), axis=1)
