"""Result rows and their summaries, as JSON and as tables.

Numbers are fractions in JSON, and percentages in tables.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from gammavae_jax.evaluation.metrics import (
    METRICS,
    Row,
    SectionScores,
    evaluate_section,
)
from gammavae_jax.evaluation.official import (
    arithmetic_means,
    harmonic_means,
    official_score,
)
from gammavae_jax.scoring.scored_clips import ScoredClips

# The columns to look at first.
HEADLINE = ("auc_source", "auc_target", "pauc")
TITLES = {
    "auc_source": "AUC source",
    "auc_target": "AUC target",
    "pauc": "pAUC",
    "fpr_source": "FPR source",
    "fpr_target": "FPR target",
}
_MEANS = {"arithmetic_means": arithmetic_means, "harmonic_means": harmonic_means}

# AUC source, AUC target and pAUC in percent, by system and machine.
PublishedResults = Mapping[str, Mapping[str, tuple[float, float, float]]]


def evaluate_scores(
    tables: Sequence[ScoredClips], year: int | None = None
) -> list[Row]:
    """Evaluate every score on each machine whose clips are all labelled.

    Args:
        tables: the result of `score_clips`. Machines with an unlabelled clip are left
            out.
        year: the challenge year that defines the metrics; default: the latest.

    Returns:
        A row for each seed, score and machine.
    """
    labelled = [clips for clips in tables if clips.is_anomaly is not None]
    if not labelled:
        return []
    return [
        evaluate_section(
            **section_scores(clips, score, s)._asdict(),
            threshold=float(clips.thresholds[score][s]),
            year=year,
            score=score,
            seed=seed,
        )
        for s, seed in enumerate(labelled[0].seeds)
        for score in labelled[0].scores
        for clips in labelled
    ]


def section_scores(clips: ScoredClips, score: str, s: int) -> SectionScores:
    """Return one score's values and decisions for a section's labelled clips.

    `s` is the index of the seed.
    """
    assert clips.is_anomaly is not None
    return SectionScores(
        clips.machine,
        clips.section,
        clips.scores[score][s].astype(np.float64),
        clips.is_anomaly,
        clips.is_target,
        clips.decisions(score)[s],
    )


def summarise_rows(rows: Sequence[Row], year: int | None = None) -> dict[str, Any]:
    """Summarise rows over seeds: the official score, means, and metrics by machine.

    The result has JSON types. `year` must be the year for which the rows were computed.
    If a machine has several sections, its metrics are arithmetic means over them. With
    one seed, the standard deviation is 0.
    """
    scores = dict.fromkeys(row.score for row in rows)
    of_machine: dict[str, list[Row]] = {}
    for row in rows:
        of_machine.setdefault(row.machine, []).append(row)
    return {
        **summarise_scores({s: by_seed(rows, s) for s in scores}, year),
        "machines": {
            machine: {
                score: _each_metric(arithmetic_means, by_seed(found, score))
                for score in scores
            }
            for machine, found in of_machine.items()
        },
    }


def summarise_scores(
    seeds: Mapping[str, Sequence[Sequence[Row]]], year: int | None = None
) -> dict[str, Any]:
    """Summarise each anomaly score over seeds: its official score and its means."""
    return {
        "official_score": {
            score: _spread([official_score(rows, year) for rows in of_score])
            for score, of_score in seeds.items()
        },
        **{
            name: {score: _each_metric(mean, rows) for score, rows in seeds.items()}
            for name, mean in _MEANS.items()
        },
    }


def by_seed(rows: Iterable[Row], score: str) -> list[list[Row]]:
    """Group one score's rows by seed."""
    chosen = [row for row in rows if row.score == score]
    return [
        [row for row in chosen if row.seed == seed]
        for seed in dict.fromkeys(row.seed for row in chosen)
    ]


def results_table(
    rows: Sequence[Row], score: str, title: str, published: PublishedResults
) -> Table:
    """Return a terminal table of the cells that `table_cells` returns."""
    header, *body, footer = table_cells(rows, score, published)
    table = Table(
        title=escape(title),
        title_justify="left",
        show_footer=True,
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name, foot in zip(header, footer, strict=True):
        justify = "left" if name == "machine" else "right"
        table.add_column(escape(name), escape(foot), justify=justify, overflow="fold")
    for cells in body:
        table.add_row(*map(escape, cells))
    return table


def table_cells(
    rows: Sequence[Row], score: str, published: PublishedResults
) -> list[list[str]]:
    """Format one score's results as cells: mean ± deviation over seeds, in percent.

    The rows are a header, one row per machine, and the harmonic means. Each system in
    `published` has a column of its own, with AUC source / AUC target / pAUC.
    """
    columns = (*HEADLINE, "fpr_source", "fpr_target")
    summary = summarise_rows(rows)
    machines, systems = summary["machines"], published.values()
    lines = [["machine", *(TITLES[c] for c in columns), *published]]
    for machine, scores in machines.items():
        beside = (_slashed(system[machine]) for system in systems)
        lines.append([machine, *(_tight(scores[score][c]) for c in columns), *beside])
    means = summary["harmonic_means"][score]
    foot = [_tight(means[c]) if c in HEADLINE else "" for c in columns]
    for system in systems:
        values = zip(*(system[machine] for machine in machines), strict=True)
        foot.append(_slashed(map(statistics.harmonic_mean, values)))
    return [*lines, ["harmonic mean", *foot]]


def percent(spread: Mapping[str, Any]) -> str:
    """Format a mean as `62.64 ± 0.66`, or as `62.64` if there is only one seed."""
    if not math.isfinite(spread["mean"]):
        return "-"
    text = f"{100 * spread['mean']:.2f}"
    if len(spread["per_seed"]) > 1:
        text += f" ± {100 * spread['std']:.2f}"
    return text


def _tight(spread: Mapping[str, Any]) -> str:
    """Format a mean like `percent`, but without spaces, to fit eighty columns."""
    return percent(spread).replace(" ", "")


def _slashed(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def _each_metric(
    mean: Callable[..., dict[str, float]], seeds: Sequence[Sequence[Row]]
) -> dict[str, Any]:
    """Compute each metric's `mean` over a seed's rows, and its spread over seeds."""
    means = [mean(rows) for rows in seeds]
    return {metric: _spread([m[metric] for m in means]) for metric in METRICS}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": sum(values) / len(values),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "per_seed": list(values),
    }
