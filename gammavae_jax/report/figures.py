"""Pictures that do not change, as SVG: training curves, scores with error bars."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.report.markup import text


class Curve(NamedTuple):
    """Losses of one machine by epoch, means over its models; NaN where unknown."""

    loss: tuple[float, ...]
    held_out_loss: tuple[float, ...]


class CodeUse(NamedTuple):
    """How much of a latent code is in use: means over a machine's models."""

    n_active: float  # latents whose posterior mean varies over held-out windows
    nats: Sequence[float]  # KL divergence of each latent


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """By machine, where any loss is known; `metrics` holds an entry an epoch."""
    names = dict.fromkeys(name for line in metrics for name in line["machines"])
    curves = {
        name: Curve(*(_by_epoch(metrics, name, of) for of in Curve._fields))
        for name in names
    }
    return {n: c for n, c in curves.items() if np.isfinite(c.loss).any()}


def code_use(metrics: Sequence[Mapping[str, Any]]) -> dict[str, CodeUse]:
    """By machine, after the last epoch, where it is known."""
    codes = {}
    for machine, values in (metrics[-1]["machines"] if metrics else {}).items():
        active = np.array(values.get("active_units", ()), float)
        nats = np.array(values.get("kl_per_latent", ()), float)
        known = np.isfinite(active)
        if known.any():
            codes[machine] = CodeUse(
                float(active[known].mean()), nats[known].mean(0).tolist()
            )
    return codes


def _by_epoch(
    metrics: Sequence[Mapping[str, Any]], machine: str, of: str
) -> tuple[float, ...]:
    means = []
    for line in metrics:
        values = line["machines"].get(machine, {}).get(of, ())
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else float("nan"))
    return tuple(means)


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
