"""The challenge's metrics, as defined in each year.

Arrays have one entry per test clip, along the axis `clip`, in any order. A higher score
is more anomalous; `is_anomaly` is true for anomalous clips, `is_target` for clips of
the target domain. Every metric is a fraction. NaN marks a value that cannot be
computed, for example without target clips or decisions, and is left out of every mean.

The definitions of the official evaluators depend on the year:

- 2020: no domains. Score: the arithmetic mean of AUC and pAUC.
- 2021: a domain's AUC and pAUC use that domain's clips only. Score: the harmonic mean
  of all four values. The column `pauc` is the harmonic mean of the two pAUCs.
- Since 2022: a domain's AUC ranks its normal clips against the anomalies of *both*
  domains; pAUC uses all clips. Score: the harmonic mean of AUC (source), AUC (target)
  and pAUC.

Precision, recall, F1 and false-alarm rate always use one domain's clips only.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_auc_score, roc_curve

from gammavae_jax.errors import InputError

DOMAINS = ("source", "target")
RATES = ("precision", "recall", "f1", "fpr")  # of the decisions in one domain
MAX_FPR = 0.1  # of the pAUC, in every year
# The official lower bound of divisors, and of the values in a harmonic mean.
EPS = float(np.finfo(np.float64).eps)


class Row(NamedTuple):
    """One row of `results.csv`: a section's results for one score and one seed."""

    seed: int
    score: str
    machine: str
    section: str
    auc_source: float
    auc_target: float
    pauc: float
    auc: float  # over all clips
    precision_source: float
    precision_target: float
    recall_source: float
    recall_target: float
    f1_source: float
    f1_target: float
    threshold: float  # in units of the score
    fpr_source: float
    fpr_target: float


METRICS = tuple(name for name in Row._fields[4:] if name != "threshold")


class SectionScores(NamedTuple):
    """One section's labelled test clips, each with its score."""

    machine: str
    section: str
    scores: Float[np.ndarray, "clip"]
    is_anomaly: Bool[np.ndarray, "clip"]
    is_target: Bool[np.ndarray, "clip"]
    decisions: Bool[np.ndarray, "clip"] | None = None  # true if judged anomalous


def validate(
    scores: np.ndarray,
    is_anomaly: np.ndarray,
    is_target: np.ndarray,
    name: str = "the scores",
) -> None:
    """Raise an InputError if metrics cannot be computed; messages begin with `name`."""
    shapes = [np.shape(a) for a in (scores, is_anomaly, is_target)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        problem = f"{name}: scores, labels and domains have the shapes {shapes}"
        raise InputError(f"{problem}: pass one score, label and domain per clip")
    if is_anomaly.dtype != bool or is_target.dtype != bool:
        raise InputError(f"{name}: labels and domains must be booleans")
    if not np.isfinite(scores).all():
        at = int(np.argmin(np.isfinite(scores)))
        problem = f"{name}: the score of clip {at} is {scores[at]}"
        raise InputError(f"{problem}: scores must be finite")
    if not _has_both(is_anomaly):
        label = "anomalous" if is_anomaly.any() else "normal"
        problem = f"{name}: all {len(is_anomaly)} clips are {label}"
        raise InputError(f"{problem}: use both normal and anomalous clips")


def _has_both(is_anomaly: Bool[np.ndarray, "clip"]) -> bool:
    return bool(is_anomaly.any() and not is_anomaly.all())


def auc(
    scores: Float[np.ndarray, "clip"], is_anomaly: Bool[np.ndarray, "clip"]
) -> float:
    """Return the area under the ROC curve.

    This is the probability that an anomaly scores higher than a normal clip; ties count
    one half. Both classes must be present.
    """
    return float(roc_auc_score(is_anomaly, ranks(scores)))


def roc(
    scores: Float[np.ndarray, "clip"], is_anomaly: Bool[np.ndarray, "clip"]
) -> tuple[Float[np.ndarray, "point"], Float[np.ndarray, "point"]]:
    """Return the corners of the ROC curve: false-alarm rates and detection rates.

    Both rise from 0 to 1. Both classes must be present.
    """
    false_alarms, detected, _ = roc_curve(is_anomaly, ranks(scores))
    return false_alarms, detected


def partial_auc(
    scores: Float[np.ndarray, "clip"],
    is_anomaly: Bool[np.ndarray, "clip"],
    max_fpr: float = MAX_FPR,
) -> float:
    """Return the standardised area under the ROC curve up to `max_fpr`.

    Random scores give 0.5, and perfect ones 1 (McClish, Analyzing a Portion of the ROC
    Curve, 1989). Both classes must be present.
    """
    return float(roc_auc_score(is_anomaly, ranks(scores), max_fpr=max_fpr))


def ranks(scores: Float[np.ndarray, "clip"]) -> Int[np.ndarray, "clip"]:
    """Rank scores, starting at 0; equal scores share a rank.

    Differences between huge scores would overflow in the ROC curve; ranks never do.
    """
    return np.unique(scores, return_inverse=True)[1]


def detection_rates(
    decisions: Bool[np.ndarray, "clip"], is_anomaly: Bool[np.ndarray, "clip"]
) -> dict[str, float]:
    """Return precision, recall, F1 (`2PR / max(P + R, eps)`) and false-alarm rate.

    As in the official evaluators, the first three are 0 where their divisor is 0. The
    false-alarm rate is not official: it is NaN without normal clips, because 0 would
    look perfect.
    """
    hits = np.count_nonzero(decisions & is_anomaly)
    false_alarms = np.count_nonzero(decisions & ~is_anomaly)
    normals = np.count_nonzero(~is_anomaly)
    precision = hits / max(hits + false_alarms, EPS)
    recall = hits / max(np.count_nonzero(is_anomaly), EPS)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, EPS),
        "fpr": false_alarms / normals if normals else math.nan,
    }


def evaluate_section(
    scores: Float[np.ndarray, "clip"],
    is_anomaly: Bool[np.ndarray, "clip"],
    is_target: Bool[np.ndarray, "clip"],
    *,
    threshold: float | None = None,
    decisions: Bool[np.ndarray, "clip"] | None = None,
    year: int | None = None,
    machine: str = "",
    section: str = "00",
    score: str = "",
    seed: int = 0,
) -> Row:
    """Compute all metrics of one section.

    Decisions default to `scores > threshold`. If neither decisions nor a threshold is
    given, precision, recall, F1 and false-alarm rate are NaN. If `year` is None, the
    definitions of 2022 apply.

    Raises:
        InputError: see `validate` and `definition_of`.
    """
    name = f"{machine} section {section}" if machine else "the scores"
    validate(scores, is_anomaly, is_target, name)
    if decisions is None and threshold is not None:
        decisions = scores > threshold
    columns = ranking_columns(
        lambda clips: auc(scores[clips], is_anomaly[clips]),
        lambda clips: partial_auc(scores[clips], is_anomaly[clips]),
        is_anomaly,
        is_target,
        year,
    )
    return Row(
        seed=seed,
        score=score,
        machine=machine,
        section=section,
        threshold=math.nan if threshold is None else threshold,
        **columns,
        **_decision_columns(decisions, is_anomaly, is_target),
    )


def ranking_columns(
    auc_of: Callable[[np.ndarray], Any],
    pauc_of: Callable[[np.ndarray], Any],
    is_anomaly: Bool[np.ndarray, "clip"],
    is_target: Bool[np.ndarray, "clip"],
    year: int | None = None,
) -> dict[str, Any]:
    """Return the columns `auc_source`, `auc_target`, `pauc` and `auc`.

    `auc_of` and `pauc_of` take a mask over clips and return one number, or one number
    for each bootstrap resample.
    """
    definition = definition_of(year)
    everything = np.ones_like(is_anomaly)
    sets = {"source": ~is_target, "target": is_target}
    pauc_sets = list(sets.values()) if definition == 2021 else [everything]
    if definition != 2021:
        sets = {domain: clips | is_anomaly for domain, clips in sets.items()}
    columns = {
        f"auc_{domain}": auc_of(clips) if _has_both(is_anomaly[clips]) else math.nan
        for domain, clips in sets.items()
    }
    paucs = [pauc_of(clips) for clips in pauc_sets if _has_both(is_anomaly[clips])]
    if len(paucs) == 2:
        paucs = [2 / (1 / paucs[0] + 1 / paucs[1])]
    pauc = paucs[0] if paucs else math.nan
    return columns | {"pauc": pauc, "auc": auc_of(everything)}


def _decision_columns(
    decisions: Bool[np.ndarray, "clip"] | None,
    is_anomaly: Bool[np.ndarray, "clip"],
    is_target: Bool[np.ndarray, "clip"],
) -> dict[str, float]:
    columns = {f"{name}_{d}": math.nan for name in RATES for d in DOMAINS}
    if decisions is not None:
        for domain, clips in zip(DOMAINS, (~is_target, is_target), strict=True):
            if clips.any():
                rates = detection_rates(decisions[clips], is_anomaly[clips])
                columns |= {f"{name}_{domain}": r for name, r in rates.items()}
    return columns


def definition_of(year: int | None) -> int:
    """Return the year whose definitions apply in `year`: 2020, 2021 or 2022.

    Raises:
        InputError: the year is before 2020.
    """
    if year is not None and year < 2020:
        raise InputError(f"the year is {year}: it must be 2020 or later")
    return 2022 if year is None else min(year, 2022)
