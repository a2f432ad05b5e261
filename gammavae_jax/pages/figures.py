"""Pictures that do not change, as SVG: training curves, scores with error bars."""

import math
from collections.abc import Sequence

from gammavae_jax.pages.markup import text
from gammavae_jax.training_record import Curve

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 300, 150, 46, 22, 8


def training_curve(machine: str, curve: Curve) -> str:
    """Losses by epoch, on a logarithmic scale where the values allow it."""
    known = [v for values in curve for v in values if math.isfinite(v)]
    is_log = min(known) > 0
    low, high = min(known), max(known)
    scale = math.log if is_log else float
    span = (scale(high) - scale(low)) or 1.0
    n_epochs = len(curve.loss)

    def x(place: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - 6) * place / max(n_epochs - 1, 1)

    def y(value: float) -> float:
        free = _HEIGHT - _TOP - _BOTTOM
        return _TOP + free * (1 - (scale(value) - scale(low)) / span)

    lines = "".join(
        _line([(x(i), y(v)) for i, v in enumerate(values) if math.isfinite(v)], name)
        for values, name in zip(curve, ("train", "held"), strict=True)
    )
    ticks = "".join(
        f'<text x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{_short(v)}</text>'
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y(v):.1f}" '
        f'y2="{y(v):.1f}"/>'
        for v in dict.fromkeys((high, low))
    )
    ends = "".join(
        f'<text x="{x(i):.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{i + 1}</text>'
        for i, anchor in dict.fromkeys(((0, "start"), (n_epochs - 1, "end")))
    )
    last = next(v for v in reversed(curve.loss) if math.isfinite(v))
    first = next(v for v in curve.loss if math.isfinite(v))
    unit = "log scale" if is_log else "linear scale"
    return (
        f'<figure class="curve"><svg width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Loss of '
        f'{text(machine)} by epoch, {unit}: from {_short(first)} to {_short(last)}">'
        f"{ticks}{ends}{lines}</svg>"
        f"<figcaption>{text(machine)}: {_short(first)} to {_short(last)}</figcaption>"
        "</figure>"
    )


def error_bar(mean: float, low: float, high: float) -> str:
    """A fraction as a bar from 0 to 1, and an interval about it."""
    at, left, right = (f"{100 * min(max(v, 0), 1):.2f}" for v in (mean, low, high))
    width = f"{max(float(right) - float(left), 0.4):.2f}"
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" '
        'aria-hidden="true"><rect class="ground" width="100" height="10"/>'
        f'<rect class="value" y="2" width="{at}" height="6"/>'
        f'<rect class="interval" x="{left}" y="4" width="{width}" height="2"/></svg>'
    )


def _short(value: float) -> str:
    """Three digits, or whole numbers, without an exponent for any usual loss."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def _line(points: Sequence[tuple[float, float]], name: str) -> str:
    if len(points) == 1:
        (x, y) = points[0]
        return f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{name}" points="{path}"/>' if points else ""
