"""The page of a fault check: the answer, the ROC curve and strips of all scores."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

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
from gammavae_jax.report.templates import render
from gammavae_jax.scoring.sample_size import clips_needed
from gammavae_jax.scoring.verdict import Verdict

_ROC, _LEFT, _TOP, _BELOW = 300, 44, 12, 40  # pixels
_WIDTH, _ROW, _HEAD, _SIDE, _GAP = 560, 120, 40, 12, 30
_DOT = 8.0  # diameter of a recording's dot
# The axis ends at this multiple of the distance from the lowest score to the threshold.
_LONGEST = 4.0
_ANCHORS = ("start", "middle", "middle", "middle", "end")


class Mark(NamedTuple):
    """A recording that is shown as a dot in a strip of scores."""

    name: str
    score: float
    is_alarm: bool


def plot_roc(
    rates: tuple[Float[np.ndarray, "point"], Float[np.ndarray, "point"]],
    at: tuple[float, float],
    limits: tuple[tuple[float, float], tuple[float, float]],
    nominal: float,
) -> dict[str, Any]:
    """Compute the pixel coordinates of a ROC curve.

    Args:
        rates: the curve's false-alarm rates and detection rates.
        at: both rates at the detector's threshold.
        limits: the confidence intervals of these two rates.
        nominal: the nominal false-alarm rate.
    """

    def x(rate: float) -> float:
        return _LEFT + _ROC * rate

    def y(rate: float) -> float:
        return _TOP + _ROC * (1 - rate)

    (low, high), (least, most) = limits
    return {
        "width": _LEFT + _ROC + _SIDE,
        "height": _TOP + _ROC + _BELOW,
        "left": x(0.0),
        "right": x(1.0),
        "top": y(1.0),
        "bottom": y(0.0),
        "curve": [(x(a), y(b)) for a, b in zip(*rates, strict=True)],
        "nominal": x(nominal),
        "at": (x(at[0]), y(at[1])),
        "cross": [  # the intervals at the threshold
            (x(low), y(at[1]), x(high), y(at[1])),
            (x(at[0]), y(least), x(at[0]), y(most)),
        ],
        "x_ticks": [(f"{100 * r:g}", x(r)) for r in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "y_ticks": [(f"{100 * r:g}", y(r)) for r in (0.0, 0.5, 1.0)],
    }


def plot_strips(groups: Sequence[Sequence[Mark]], threshold: float) -> dict[str, Any]:
    """Compute the pixel coordinates of a strip of dots for each group of recordings.

    Dots that would overlap are stacked. Scores far above the threshold are drawn at the
    end of the axis.
    """
    scores = [mark.score for group in groups for mark in group]
    low = min(*scores, threshold)
    most = max(*scores, threshold)
    high = min(most, threshold + _LONGEST * (threshold - low))
    if high <= low:
        high = low + 1

    def x(score: float) -> float:
        room = _WIDTH - 2 * _SIDE
        return _SIDE + room * (min(score, high) - low) / (high - low)

    ticks = [low + (high - low) * part / 4 for part in range(5)]
    labels = [f"{tick:.3g}" for tick in ticks]
    if most > high:
        labels[-1] = f"≥ {labels[-1]}"
    bases = [_HEAD + _ROW + number * (_ROW + _GAP) for number in range(len(groups))]
    at = x(threshold)
    return {
        "width": _WIDTH,
        "height": bases[-1] + 24,
        "radius": _DOT / 2,
        "threshold": at,
        "label": f"threshold {threshold:.4g}",
        "is_right": at > _WIDTH / 2,
        "rows": [
            {
                "top": base - _ROW,
                "base": base,
                "dots": _stacked([(mark, x(mark.score)) for mark in group], at, base),
            }
            for group, base in zip(groups, bases, strict=True)
        ],
        # Each label, its x coordinate and its SVG text anchor.
        "ticks": list(zip(labels, map(x, ticks), _ANCHORS, strict=True)),
    }


def _stacked(
    placed: Sequence[tuple[Mark, float]], threshold: float, base: int
) -> list[tuple[Mark, float, float]]:
    """Return each recording with its coordinates, stacked upwards from the base.

    The threshold lies between two columns, so that no dot crosses it.
    """
    columns: dict[int, list[Mark]] = {}
    for mark, x in sorted(placed, key=lambda mark: mark[0].score):
        column = math.ceil((x - threshold) / _DOT) - 1
        columns.setdefault(column, []).append(mark)
    tallest = max(map(len, columns.values()))
    step = min(_DOT, (_ROW - _DOT) / max(tallest - 1, 1))
    return [
        (mark, threshold + (column + 0.5) * _DOT, base - _DOT / 2 - 1 - step * place)
        for column, marks in columns.items()
        for place, mark in enumerate(marks)
    ]


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
