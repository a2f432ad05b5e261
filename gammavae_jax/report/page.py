"""The report page: its tables, and the data that its script plots."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import finite
from gammavae_jax.data.features import band_corners
from gammavae_jax.data.machines import unit_name
from gammavae_jax.evaluation.intervals import Bootstrap, bootstrap
from gammavae_jax.evaluation.metrics import MAX_FPR, Row
from gammavae_jax.evaluation.official import PUBLISHED_SCORE
from gammavae_jax.evaluation.tables import (
    PublishedResults,
    percent,
    section_scores,
    summarise_rows,
    table_cells,
)
from gammavae_jax.report.figures import CodeUse, Curve, error_bar, plot_curve
from gammavae_jax.report.templates import render
from gammavae_jax.scoring.scored_clips import ScoredClips


def error_bars(
    machines: Sequence[ScoredClips], scores: Sequence[str], year: int | None = None
) -> dict[str, Bootstrap]:
    """Bootstrap the first seed's official score for each anomaly score.

    Return an empty dict if no machine is labelled.
    """
    labelled = [clips for clips in machines if clips.is_anomaly is not None]
    return {
        score: bootstrap(
            [section_scores(clips, score, 0) for clips in labelled], year=year
        )
        for score in scores
        if labelled
    }


def scores_payload(
    config: Config,
    machines: Sequence[ScoredClips],
    rows: Sequence[Row],
    scores: Sequence[str],
    least_p: Mapping[str, float],
) -> dict[str, Any]:
    """Return the data for `report.js`.

    Numbers are rounded, and those that are not finite are replaced by None. `least_p`
    gives the smallest possible p-value of some machines.
    """
    metrics = {(r.machine, r.section, r.score, r.seed): r for r in rows}
    return {
        "preset": config.preset,
        "falseAlarmRate": config.scoring.false_alarm_rate,
        "maxFpr": MAX_FPR,
        "scores": list(scores),
        "seeds": list(config.seeds),
        "corners": _short(band_corners(config.features), 6),
        "machines": [
            {
                "name": unit_name(clips.machine, clips.section),
                "clips": list(clips.names),
                "labels": list(clips.labels),
                "domains": list(clips.domains),
                "leastP": finite(least_p.get(clips.machine, math.nan)),
                "scores": {
                    score: [
                        _scores_of_seed(clips, score, s, metrics, seed)
                        for s, seed in enumerate(config.seeds)
                    ]
                    for score in scores
                },
            }
            for clips in machines
        ],
    }


def _scores_of_seed(
    clips: ScoredClips, score: str, s: int, metrics: dict, seed: int
) -> dict[str, Any]:
    row = metrics.get((clips.machine, clips.section, score, seed))
    decisions = clips.decisions(score)[s]
    # There is no single threshold to draw if each domain has its own.
    pooled = float(clips.thresholds[score][s])
    threshold = pooled if clips.rate_by_domain is None else math.nan
    names = ("auc_source", "auc_target", "pauc", "auc")
    return {
        "values": _short(clips.scores[score][s], 8),
        "p": _short(clips.p_values[score][s], 8) if score in clips.p_values else None,
        "alarms": "".join("1" if alarm else "0" for alarm in decisions),
        "threshold": _rounded(threshold, 8),
        "metrics": row and {name: _rounded(getattr(row, name), 5) for name in names},
    }


def _short(values: Iterable[float] | np.ndarray, digits: int) -> list[float | None]:
    return [_rounded(float(value), digits) for value in values]


def _rounded(value: float, digits: int) -> float | None:
    return finite(float(f"{value:.{digits}g}"))


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
