"""Rows of results -> CSV, JSON, a table on the terminal and a page.

Numbers in files are fractions; on the terminal and on the page they are percent.
"""

import csv
import html
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from gammavae_jax.evaluate import (
    METRICS,
    Row,
)
from gammavae_jax.official import (
    arithmetic_means,
    harmonic_means,
    official_score,
)
from gammavae_jax.published import PUBLISHED_SCORE

# The columns people look at first.
HEADLINE = ("auc_source", "auc_target", "pauc")
TITLES = {
    "auc_source": "AUC source",
    "auc_target": "AUC target",
    "pauc": "pAUC",
    "fpr_source": "FPR source",
    "fpr_target": "FPR target",
}

Published = Mapping[str, Mapping[str, tuple[float, float, float]]]


def results_csv(rows: Sequence[Row]) -> str:
    """`results.csv`: a header and a line a row; empty where there is no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    for row in rows:
        writer.writerow(
            "" if isinstance(v, float) and math.isnan(v) else v for v in row
        )
    return text.getvalue()


def summarise_rows(rows: Sequence[Row], year: int | None = None) -> dict[str, Any]:
    """Official score, means and each machine's metrics, over seeds, as JSON types.

    `year` is the one that the rows were made with. A machine with several sections is
    the arithmetic mean over them. Of one seed the standard deviation is 0.
    """
    scores = _unique(row.score for row in rows)
    machines = _unique(row.machine for row in rows)
    means = {"arithmetic_means": arithmetic_means, "harmonic_means": harmonic_means}
    return {
        "official_score": {
            score: _spread(
                [official_score(r, year) for r in by_seed(rows, score=score)]
            )
            for score in scores
        },
        **{
            name: {
                score: _each_metric(mean, by_seed(rows, score=score))
                for score in scores
            }
            for name, mean in means.items()
        },
        "machines": {
            machine: {
                score: _each_metric(
                    arithmetic_means, by_seed(rows, score=score, machine=machine)
                )
                for score in scores
            }
            for machine in machines
        },
    }


def by_seed(
    rows: Iterable[Row], score: str, machine: str | None = None
) -> list[list[Row]]:
    """The rows of a score, and of a machine if given: a list for each seed."""
    chosen = [
        row for row in rows if row.score == score and machine in (None, row.machine)
    ]
    return [
        [row for row in chosen if row.seed == seed]
        for seed in _unique(row.seed for row in chosen)
    ]


def to_json(tree: Any) -> str:
    """Indented JSON in which what is not finite is null."""
    return json.dumps(_finite(tree), indent=2) + "\n"


def results_table(
    rows: Sequence[Row], score: str, title: str, published: Published
) -> Table:
    """One score's results for the terminal, in percent, mean ± std over seeds."""
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
    rows: Sequence[Row], score: str, published: Published
) -> list[list[str]]:
    """Header, a line a machine, and the harmonic means, as text in percent.

    `published` results stand beside ours as source / target / pAUC.
    """
    columns = (*HEADLINE, "fpr_source", "fpr_target")
    summary = summarise_rows(rows)
    lines = [["machine", *(TITLES[c] for c in columns), *published]]
    for machine, scores in summary["machines"].items():
        beside = (
            " / ".join(f"{value:.2f}" for value in system[machine])
            for system in published.values()
        )
        lines.append([machine, *(_tight(scores[score][c]) for c in columns), *beside])
    means = summary["harmonic_means"][score]
    beside = [
        " / ".join(
            f"{statistics.harmonic_mean(values):.2f}"
            for values in zip(
                *(system[machine] for machine in summary["machines"]), strict=True
            )
        )
        for system in published.values()
    ]
    foot = [_tight(means[c]) if c in HEADLINE else "" for c in columns]
    return [*lines, ["harmonic mean", *foot, *beside]]


def percent(spread: Mapping[str, Any]) -> str:
    """`62.64 ± 0.66`; without the deviation for one seed."""
    if not math.isfinite(spread["mean"]):
        return "-"
    text = f"{100 * spread['mean']:.2f}"
    if len(spread["per_seed"]) > 1:
        text += f" ± {100 * spread['std']:.2f}"
    return text


def _tight(spread: Mapping[str, Any]) -> str:
    """The same without spaces: eighty columns hold a table of several seeds."""
    return percent(spread).replace(" ", "")


def report_html(
    rows: Sequence[Row],
    scores: Sequence[str],
    notes: Sequence[str],
    published: Published,
    losses: Mapping[str, Sequence[float]],
    year: int | None = None,
) -> str:
    """`report.html`: one self-contained page with the tables and training curves.

    Args:
        rows: of all seeds and machines.
        scores: names, the headline score first.
        notes: sentences that must be read with the numbers.
        published: results to stand beside ours.
        losses: by machine, the mean loss over seeds of each epoch.
        year: the one that the rows were made with.
    """
    summary = summarise_rows(rows, year) if rows else {"official_score": {}}
    parts = [f"<p>{html.escape(note)}</p>" for note in notes]
    for score in scores if rows else ():
        official = percent(summary["official_score"][score])
        beside = published if score == PUBLISHED_SCORE else {}
        parts.append(
            f"<h2>{html.escape(score)}: official score {html.escape(official)}</h2>"
            + _html_table(table_cells(rows, score, beside))
        )
    curves = "".join(
        f"<figure>{_curve(values)}<figcaption>{html.escape(machine)}: "
        f"{values[0]:.3g} to {values[-1]:.3g}</figcaption></figure>"
        for machine, values in losses.items()
    )
    if curves:
        parts.append(
            f"<h2>Training loss by epoch</h2><div class='curves'>{curves}</div>"
        )
    return _PAGE.replace("BODY", "\n".join(parts))


def _html_table(lines: Sequence[Sequence[str]]) -> str:
    header, *body, footer = (
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
        for line, tag in zip(
            lines, ["th", *["td"] * (len(lines) - 2), "th"], strict=True
        )
    )
    rows = "".join(f"<tr>{line}</tr>" for line in body)
    return (
        f"<div class='wide'><table><thead><tr>{header}</tr></thead><tbody>{rows}"
        f"</tbody><tfoot><tr>{footer}</tr></tfoot></table></div>"
    )


def _curve(values: Sequence[float], width: int = 220, height: int = 80) -> str:
    """A line of an SVG, on a logarithmic scale where the values allow it."""
    heights = [math.log(v) if min(values) > 0 else v for v in values]
    low, high = min(heights), max(heights)
    scale = (height - 4) / ((high - low) or 1.0)
    step = width / max(len(values) - 1, 1)
    points = " ".join(
        f"{i * step:.1f},{2 + (high - h) * scale:.1f}" for i, h in enumerate(heights)
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='loss curve'>"
        f"<polyline points='{points}'/></svg>"
    )


def _each_metric(mean: Any, seeds: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Each metric's mean over rows (NaN left out), and its spread over seeds."""
    means = [mean(rows) for rows in seeds]
    return {metric: _spread([m[metric] for m in means]) for metric in METRICS}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": sum(values) / len(values),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "per_seed": list(values),
    }


def _finite(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Anomalous sound detection: results</title>
<style>
:root { color-scheme: light dark; --line: #8886; --ink: light-dark(#064, #6d9); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem;
  padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
@media (max-width: 40rem) {
  th, td { padding: .25rem .2rem; font-size: .78rem; }
  thead th, tfoot th:first-child { white-space: normal; vertical-align: bottom; }
}
.curves { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 220px; } figcaption { font-size: .85rem; }
svg { width: 100%; border: 1px solid var(--line); }
polyline { fill: none; stroke: var(--ink); stroke-width: 1.5; }
</style></head><body>
<h1>Anomalous sound detection: results</h1>
BODY
</body></html>
"""
