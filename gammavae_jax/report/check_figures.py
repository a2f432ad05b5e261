"""The geometry of a fault check's figures: a ROC curve and strips of scores."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

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
