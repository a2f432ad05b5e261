"""What `metrics.jsonl` tells of a training: curves, and what the code is used for."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


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
