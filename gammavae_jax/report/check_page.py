"""The page of a fault check: the answer, the ROC curve and all recordings."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.fault_check import (
    LEAST_AUC,
    LEAST_DETECTED,
    MOST_FALSE_ALARMS,
    FaultCheck,
    margin,
)
from gammavae_jax.evaluation.fault_check_text import (
    advice,
    auc_limits,
    conclusion,
    counted,
    percent_limits,
)
from gammavae_jax.evaluation.metrics import roc
from gammavae_jax.files import write_text
from gammavae_jax.report.check_figures import Mark, plot_roc, plot_strips
from gammavae_jax.report.templates import render
from gammavae_jax.scoring.sample_size import clips_needed
from gammavae_jax.scoring.verdict import Verdict

_NUMBERS = ("score", "p-value", "alarm above")


def write_check_page(path: Path, check: FaultCheck) -> None:
    """Write the page that shows the results of a fault check.

    Raises:
        InputError: the page cannot be written.
    """
    try:
        write_text(path, check_html(check))
    except OSError as error:
        problem = f"{str(path)!r} cannot be written: {error.strerror}"
        raise InputError(f"{problem}: choose another path") from error


def check_html(check: FaultCheck) -> str:
    """Render the page of a fault check as HTML."""
    detection, groups = check.detection, (check.normal, check.faulty)
    margins = np.array([margin(v) for group in groups for v in group])
    is_faulty = np.repeat([False, True], [len(group) for group in groups])
    shares = detection.false_alarms, detection.detected
    kind, _, answer = conclusion(check).partition(": ")
    return render(
        "check.html",
        title=f"{check.machine}: is the detector good enough for this fault?",
        notes=[],
        kind=kind,
        answer=answer[:1].upper() + answer[1:],
        outcome=detection.outcome.name.lower().replace("_", "-"),
        advice=advice(check),
        facts=list(_facts(check)),
        rate=f"{100 * detection.false_alarm_rate:g}",
        auc=f"{detection.area.value:.3f}",
        counts=[counted(share) for share in shares],
        roc=plot_roc(
            roc(margins, is_faulty),
            (shares[0].rate, shares[1].rate),
            (shares[0].interval, shares[1].interval),
            detection.false_alarm_rate,
        ),
        is_margin=check.threshold is None,
        strips=plot_strips(
            [[_mark(v, check.threshold) for v in group] for group in groups],
            check.threshold or 0.0,
        ),
        header=["recording", "machine was", *_NUMBERS, "result"],
        rows=list(_rows(check)),
        least_auc=LEAST_AUC,
        least_detected=100 * LEAST_DETECTED,
        most_false_alarms=MOST_FALSE_ALARMS,
        least_normal=clips_needed(detection.false_alarm_rate),
    )


def _mark(verdict: Verdict, threshold: float | None) -> Mark:
    """Return a recording's mark.

    The mark is at the score or, without a single threshold, at the margin.
    """
    at = margin(verdict) if threshold is None else verdict.score
    return Mark(verdict.name, at, verdict.is_anomaly)


def _facts(check: FaultCheck) -> Iterator[tuple[str, str, str]]:
    """Return the headline numbers as (name, value, detail) rows."""
    detection = check.detection
    for name, share in (
        ("faults detected", detection.detected),
        ("false alarms", detection.false_alarms),
    ):
        limits = " to ".join(percent_limits(share))
        detail = f"{100 * share.rate:.0f} %; 95 % interval: {limits} %"
        yield name, counted(share), detail
    limits = " to ".join(auc_limits(detection.area))
    yield "AUC", f"{detection.area.value:.3f}", f"95 % interval: {limits}"


def _rows(check: FaultCheck) -> Iterator[tuple[str, ...]]:
    """Return the table of recordings, with the most anomalous first."""
    named = [
        *(
            (v, "healthy", "false alarm" if v.is_anomaly else "no alarm")
            for v in check.normal
        ),
        *(
            (v, "faulty", "detected" if v.is_anomaly else "missed")
            for v in check.faulty
        ),
    ]
    for verdict, condition, result in sorted(named, key=lambda row: -margin(row[0])):
        numbers = (
            f"{verdict.score:.4g}",
            "-" if math.isnan(verdict.p_value) else f"{verdict.p_value:.3g}",
            f"{verdict.threshold:.4g}",
        )
        yield verdict.name, condition, *numbers, result
    for verdict in check.left_out:
        yield verdict.name, "not running", *("",) * len(_NUMBERS), "left out"
