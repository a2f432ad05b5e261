"""The overview page of a fleet: a static table of its machines, worst first."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gammavae_jax.config import Config
from gammavae_jax.data.machines import unit_name
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.evaluation.official import arithmetic_means, harmonic_mean
from gammavae_jax.evaluation.tables import HEADLINE, TITLES, percent
from gammavae_jax.files import write_text
from gammavae_jax.report.templates import render

_COLUMNS = (*HEADLINE, "fpr_source", "fpr_target")


class MachineLine(NamedTuple):
    """One machine's row in the table: a link to its page, and its results."""

    machine: str
    section: str
    link: str  # relative to the page of the fleet
    n_clips: int
    n_alarms: int  # by the headline score of the first seed
    rows: Sequence[Row]  # one per seed, for the headline score; empty if unlabelled


def write_fleet_page(
    path: Path,
    config: Config,
    machines: Sequence[MachineLine],
    means: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    """Write a fleet's overview page, with a table of all machines.

    Args:
        path: the file to write.
        config: the configuration of the run.
        machines: one row per machine, in any order.
        means: the result of `summarise_scores`, without scores if no clip is labelled.
        notes: warnings to show above the numbers.
    """
    lines = sorted(((_means(line), line) for line in machines), key=_worst_first)
    page = render(
        "fleet.html",
        title="A fleet of machines",
        config=config,
        notes=notes,
        facts=_facts(config, machines, means),
        header=["", *(TITLES[c] for c in _COLUMNS), "harmonic mean", "alarms"],
        rows=[
            (
                unit_name(line.machine, line.section),
                line.link,
                [
                    *(_percent(mean.get(c, math.nan)) for c in (*_COLUMNS, "score")),
                    f"{line.n_alarms} of {line.n_clips}",
                ],
            )
            for mean, line in lines
        ],
    )
    write_text(path, page)


def _means(line: MachineLine) -> dict[str, float]:
    """Return a machine's metrics, averaged over seeds.

    The entry "score" is the harmonic mean of the headline metrics.
    """
    if not line.rows:
        return {"score": math.nan}
    means = arithmetic_means(line.rows)
    return means | {"score": harmonic_mean(means[name] for name in HEADLINE)}


def _worst_first(judged: tuple[dict[str, float], MachineLine]) -> tuple[Any, ...]:
    """Return a key that sorts the worst score first, and unlabelled machines last.

    Unlabelled machines are sorted by their share of alarms, with the highest first.
    """
    means, line = judged
    is_unlabelled = math.isnan(means["score"])
    share = line.n_alarms / max(line.n_clips, 1)
    value = -share if is_unlabelled else means["score"]
    return is_unlabelled, value, line.machine, line.section


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.2f}"


def _facts(
    config: Config, machines: Sequence[MachineLine], means: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Return the headline numbers as (name, value, detail) rows."""
    official = means["official_score"].get(config.score)
    return [
        *([("official score", percent(official), "")] if official else []),
        ("machines", f"{len(machines):,}", ""),
        ("test clips", f"{sum(line.n_clips for line in machines):,}", ""),
        ("alarms", f"{sum(line.n_alarms for line in machines):,}", ""),
    ]
