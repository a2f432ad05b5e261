"""The report page: its tables and the data for its script."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from gammavae_jax.config import Config
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.evaluation.official import PUBLISHED_SCORE, Bootstrap
from gammavae_jax.evaluation.tables import (
    PublishedResults,
    percent,
    summarise_rows,
    table_cells,
)
from gammavae_jax.report.figures import CodeUse, Curve, error_bar, plot_curve
from gammavae_jax.report.payload import scores_payload
from gammavae_jax.report.templates import render
from gammavae_jax.scoring.scored_clips import ScoredClips


class Report(NamedTuple):
    """A page's content; only the first two fields are required."""

    config: Config
    machines: Sequence[ScoredClips]
    rows: Sequence[Row] = ()  # of labelled machines, for all seeds and scores
    notes: Sequence[str] = ()  # warnings to read with the numbers
    published: PublishedResults = MappingProxyType({})  # for comparison
    year: int | None = None  # the challenge year whose metrics are in the rows
    curves: Mapping[str, Curve] = {}
    codes: Mapping[str, CodeUse] = {}
    error_bars: Mapping[str, Bootstrap] = {}  # by score, from resampled test clips
    about: Mapping[str, Any] = {}  # timing and environment
    title: str = "Anomalous sound detection"
    is_evaluated: bool = True  # false for a user's own recordings, without labels
    least_p: Mapping[str, float] = {}  # the smallest possible p-value, by machine
    # The command that adds the pictures of a clip; {clip} stands for its name.
    how_to_show: str = ""


def report_html(report: Report, shown: Iterable[tuple[int, int, str]] = ()) -> str:
    """Render the page as HTML.

    `shown` lists the clips that have pictures: for each, the index of its machine, the
    index of the clip, and its `picture_payload` as JSON text.
    """
    config = report.config
    scores = sorted(config.scores, key=lambda name: name != config.score)
    content = report.machines, report.rows, scores, report.least_p
    data = scores_payload(config, *content)
    data["howToShow"] = report.how_to_show
    data["isEvaluated"] = report.is_evaluated
    officials, means = {}, {}
    if report.rows:
        summary = summarise_rows(report.rows, report.year)
        officials = summary["official_score"]
        means = summary["arithmetic_means"][config.score]
    return render(
        "report.html",
        script="report.js",
        title=report.title,
        config=config,
        is_evaluated=report.is_evaluated,
        rate=100 * config.scoring.false_alarm_rate,
        notes=report.notes,
        facts=[*_results_facts(report, officials, means), *_size_facts(report)],
        by_machine=[_machines_table(report, s) for s in scores if report.rows],
        officials=[
            _official_line(score, officials[score], report.error_bars.get(score))
            for score in scores
            if officials
        ],
        curves=[plot_curve(*item) for item in report.curves.items()],
        codes=[
            (
                machine,
                f"{code.n_active:.1f} of {len(code.nats)}",
                ", ".join(f"{nats:.2f}" for nats in code.nats),
            )
            for machine, code in report.codes.items()
        ],
        about=list(_leaves(report.about)),
        data=json.dumps(data, allow_nan=False, separators=(",", ":")),
        clips=[(f"clip-{m}-{c}", payload) for m, c, payload in shown],
    )


def _results_facts(
    report: Report, officials: Mapping[str, Any], means: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Return the main results as (name, value, detail) rows."""
    config = report.config
    if not officials:
        alarms = sum(int(c.decisions(config.score)[0].sum()) for c in report.machines)
        detail = f"by {config.score}" if report.is_evaluated else ""
        yield "alarms", str(alarms), detail
        return
    official, bars = officials[config.score], report.error_bars.get(config.score)
    n_seeds = len(official["per_seed"])
    spread = f"± standard deviation over {n_seeds} seeds" if n_seeds > 1 else ""
    interval = f"95 % interval over test clips: {_interval(bars)}" if bars else ""
    detail = "; ".join(filter(None, [spread, interval]))
    yield "official score", percent(official), detail
    rates = [means[f"fpr_{domain}"]["mean"] for domain in ("source", "target")]
    known = [f"{100 * rate:.1f}" for rate in rates if math.isfinite(rate)]
    if known:
        domains = "source / target, " if len(known) > 1 else ""
        most = 100 * config.scoring.false_alarm_rate
        yield "false alarms", " / ".join(known), f"{domains}aim: at most {most:g}"


def _size_facts(report: Report) -> Iterator[tuple[str, str, str]]:
    """Return the machine and clip counts as (name, value, detail) rows."""
    labels = [label for clips in report.machines for label in clips.labels]
    detail = f"{labels.count('anomaly')} anomalous"
    if not all(labels):
        detail = "not all labelled" if any(labels) else "unlabelled"
    detail = detail if report.is_evaluated else ""
    yield "machines", str(len(report.machines)), ""
    yield "clips", str(len(labels)), detail


def _interval(bars: Bootstrap) -> str:
    return f"{100 * bars.low:.1f} to {100 * bars.high:.1f}"


def _machines_table(report: Report, score: str) -> dict[str, Any]:
    """Return a table of one score's results, alongside any published results."""
    published = report.published if score == PUBLISHED_SCORE else {}
    header, *rows, footer = table_cells(report.rows, score, published)
    table = {"header": header, "rows": rows, "footer": footer}
    return {"score": score, "is_published": bool(published), **table}


def _official_line(
    score: str, official: Mapping[str, Any], bars: Bootstrap | None
) -> dict[str, Any]:
    """Format one official score, with its interval if there is one."""
    mean = official["mean"]
    low, high = (bars.low, bars.high) if bars else (mean, mean)
    return {
        "score": score,
        "value": percent(official),
        "interval": _interval(bars) if bars else "",
        "bar": error_bar(mean, low, high),
    }


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Flatten nested mappings to (dotted path, text) pairs, omitting None."""
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves(branch, (*path, str(name)))
    elif tree is not None:
        yield ".".join(path), f"{tree:.4g}" if isinstance(tree, float) else str(tree)
