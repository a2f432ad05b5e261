"""The geometry of static figures: training curves and interval bars."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Curve(NamedTuple):
    """One machine's losses by epoch, averaged over its models, or NaN where unknown."""

    loss: tuple[float, ...]
    held_out_loss: tuple[float, ...]


class CodeUse(NamedTuple):
    """The part of the latent code that a machine's models use, on average."""

    n_active: float  # latents whose posterior mean varies over held-out windows
    nats: Sequence[float]  # KL divergence of each latent


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Build training curves from epoch metrics, for machines whose losses are known."""
    names = dict.fromkeys(name for line in metrics for name in line["machines"])
    curves = {
        name: Curve(*(_by_epoch(metrics, name, of) for of in Curve._fields))
        for name in names
    }
    return {n: c for n, c in curves.items() if np.isfinite(c.loss).any()}


def code_use(metrics: Sequence[Mapping[str, Any]]) -> dict[str, CodeUse]:
    """Return the `CodeUse` after the last epoch, for the machines where it is known."""
    codes = {}
    for machine, values in (metrics[-1]["machines"] if metrics else {}).items():
        active = np.array(values.get("active_units", ()), float)
        nats = np.array(values.get("kl_per_latent", ()), float)
        known = np.isfinite(active)
        if known.any():
            n_active = float(active[known].mean())
            codes[machine] = CodeUse(n_active, nats[known].mean(0).tolist())
    return codes


def _by_epoch(
    metrics: Sequence[Mapping[str, Any]], machine: str, of: str
) -> tuple[float, ...]:
    """Return one machine's mean loss in each epoch, or NaN where it is unknown."""
    values = (line["machines"].get(machine, {}).get(of, ()) for line in metrics)
    known = ([v for v in of_epoch if v is not None] for of_epoch in values)
    return tuple(sum(losses) / len(losses) if losses else math.nan for losses in known)


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 300, 150, 46, 22, 8


def plot_curve(machine: str, curve: Curve) -> dict[str, Any]:
    """Compute a curve's pixel coordinates; the scale is logarithmic if possible."""
    known = [v for values in curve for v in values if math.isfinite(v)]
    low, high = min(known), max(known)
    scale = math.log if low > 0 else float
    span = (scale(high) - scale(low)) or 1.0
    n_epochs = len(curve.loss)

    def x(epoch: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - 6) * epoch / max(n_epochs - 1, 1)

    def y(value: float) -> float:
        room = _HEIGHT - _TOP - _BOTTOM
        return _TOP + room * (1 - (scale(value) - scale(low)) / span)

    losses = [v for v in curve.loss if math.isfinite(v)]
    ends = dict.fromkeys(((0, "start"), (n_epochs - 1, "end")))
    return {
        "machine": machine,
        "scale": "log" if low > 0 else "linear",
        "first": _short(losses[0]),
        "last": _short(losses[-1]),
        # The labels and y coordinates of the highest and the lowest loss.
        "ticks": [(_short(v), y(v)) for v in dict.fromkeys((high, low))],
        "ends": [(epoch + 1, x(epoch), anchor) for epoch, anchor in ends],
        "lines": [  # CSS class and points
            (name, [(x(i), y(v)) for i, v in enumerate(values) if math.isfinite(v)])
            for name, values in zip(("train", "held"), curve, strict=True)
        ],
        **{"width": _WIDTH, "height": _HEIGHT, "left": _LEFT},
    }


def error_bar(mean: float, low: float, high: float) -> dict[str, str]:
    """Return the length of a bar, and the start and width of its interval, in percent.

    The interval is at least 0.4 % wide, so that it is visible.
    """
    value, left, right = (f"{100 * min(max(v, 0), 1):.2f}" for v in (mean, low, high))
    width = f"{max(float(right) - float(left), 0.4):.2f}"
    return {"value": value, "low": left, "width": width}


def _short(value: float) -> str:
    """Format a loss with three significant digits, or as a whole number if large."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"
