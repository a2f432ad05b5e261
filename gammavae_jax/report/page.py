"""`report.html`: tables that any browser shows, and what a script makes of the rest."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from gammavae_jax.config import Config
from gammavae_jax.evaluation.bootstrap import Bootstrap
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.evaluation.official import PUBLISHED_SCORE
from gammavae_jax.evaluation.tables import (
    Published,
    percent,
    summarise_rows,
    table_cells,
)
from gammavae_jax.report import markup
from gammavae_jax.report.figures import CodeUse, Curve, error_bar, training_curve
from gammavae_jax.report.markup import text
from gammavae_jax.report.payload import scores_payload
from gammavae_jax.scoring.scored_clips import ScoredClips


class Report(NamedTuple):
    """What a page is made of; all but the first two may be missing."""

    config: Config
    machines: Sequence[ScoredClips]
    rows: Sequence[Row] = ()  # of labelled machines, all seeds and scores
    notes: Sequence[str] = ()  # sentences that must be read with the numbers
    published: Published = MappingProxyType({})  # results to stand beside ours
    year: int | None = None  # the one that the rows were made with
    curves: Mapping[str, Curve] = {}
    codes: Mapping[str, CodeUse] = {}
    error_bars: Mapping[str, Bootstrap] = {}  # by score, over test clips
    about: Mapping[str, Any] = {}  # timing and environment
    title: str = "Anomalous sound detection"
    # How pictures of further clips are had, a command line with {clip} in it.
    how_to_show: str = ""


def report_html(report: Report, shown: Iterable[tuple[int, int, str]] = ()) -> str:
    """The page.

    Args:
        report: its content.
        shown: the clips with pictures: machine's and clip's number on this page, and
            what `picture_payload` makes, as JSON.
    """
    script = markup.resource("report.js")
    blocks = [markup.json_block(f"clip-{m}-{c}", payload) for m, c, payload in shown]
    data = scores_payload(report.config, report.machines, report.rows, _scores(report))
    data["howToShow"] = report.how_to_show
    parts = {
        "title": text(report.title),
        "policy": text(markup.policy(script)),
        "style": markup.resource("report.css"),
        "lead": _lead(report),
        "notes": "".join(f'<p class="note">{text(n)}</p>' for n in report.notes),
        "facts": _facts(report),
        "results": _results(report),
        "training": _training(report),
        "about": _about(report),
        "data": markup.data_block("data", data),
        "clips": "\n".join(blocks),
        "script": script,
    }
    return markup.fill(markup.resource("report.html"), parts)


def _scores(report: Report) -> list[str]:
    """The headline score first."""
    config = report.config
    return sorted(config.scores, key=lambda name: name != config.score)


def _lead(report: Report) -> str:
    config = report.config
    rate = 100 * config.scoring.false_alarm_rate
    seeds = f"{len(config.seeds)} seeds" if config.n_seeds > 1 else "one seed"
    percent_note = "Results are in percent. " if report.rows else ""
    return (
        f"Preset <b>{text(config.preset)}</b>, score <b>{text(config.score)}</b>, "
        f"{seeds}. {percent_note}Thresholds are meant for a false-alarm "
        f"rate of at most {rate:g} %."
    )


def _facts(report: Report) -> str:
    """The few numbers to be seen first."""
    labels = [label for clips in report.machines for label in clips.labels]
    facts = []
    if report.rows:
        summary = summarise_rows(report.rows, report.year)
        score = report.config.score
        official = summary["official_score"][score]
        bars = report.error_bars.get(score)
        interval = f"{_spread_words(official)}{_interval_words(bars)}"
        facts.append(("official score", percent(official), interval))
        means = summary["arithmetic_means"][score]
        rates = [means[f"fpr_{d}"]["mean"] for d in ("source", "target")]
        told = " / ".join(f"{100 * r:.1f}" for r in rates if math.isfinite(r))
        domains = "source / target, " if "/" in told else ""
        rate = 100 * report.config.scoring.false_alarm_rate
        if told:
            facts.append(("false alarms", told, f"{domains}meant: at most {rate:g}"))
    else:
        score = report.config.score
        alarms = sum(int(c.decisions(score)[0].sum()) for c in report.machines)
        facts.append(("alarms", str(alarms), f"by {score}"))
    facts.append(("machines", str(len(report.machines)), ""))
    n_anomalies = labels.count("anomaly")
    detail = f"{n_anomalies} anomalous" if all(labels) else "not all labelled"
    facts.append(("clips", str(len(labels)), detail if any(labels) else "unlabelled"))
    return "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}"
        f"{f'<small>{text(detail)}</small>' if detail else ''}</dd></div>"
        for name, value, detail in facts
    )


def _spread_words(official: Mapping[str, Any]) -> str:
    n_seeds = len(official["per_seed"])
    return f"± deviation over {n_seeds} seeds; " if n_seeds > 1 else ""


def _interval_words(bars: Bootstrap | None) -> str:
    if bars is None:
        return ""
    return f"{_interval(bars)} in 95 % of draws of test clips"


def _interval(bars: Bootstrap) -> str:
    return f"{100 * bars.low:.1f} to {100 * bars.high:.1f}"


def _results(report: Report) -> str:
    """Tables: the headline score by machine, all scores, the others by machine."""
    if not report.rows:
        return (
            "<p>No machine has labels for all of its clips: they are scored below, not "
            "evaluated.</p>"
        )
    headline, *others = _scores(report)
    folded = "".join(
        f"<details><summary>{text(score)}</summary>{_machines(report, score)}</details>"
        for score in others
    )
    return (
        f'<div class="tables"><div><h3>By machine</h3>{_machines(report, headline)}'
        f"</div><div><h3>By score</h3>{_official(report)}</div></div>"
        + (f"<h3>Other scores by machine</h3>{folded}" if folded else "")
    )


def _machines(report: Report, score: str) -> str:
    beside = report.published if score == PUBLISHED_SCORE else {}
    header, *lines, footer = table_cells(report.rows, score, beside)
    caption = f"{score}, in percent"
    if beside:
        caption += "; published results are AUC source / AUC target / pAUC"
    return markup.table(header, lines, footer, caption)


def _official(report: Report) -> str:
    """A line a score, with error bars."""
    officials = summarise_rows(report.rows, report.year)["official_score"]
    lines = []
    for score in _scores(report):
        official, bars = officials[score], report.error_bars.get(score)
        mean = official["mean"]
        ends = (bars.low, bars.high) if bars else (mean, mean)
        lines.append((score, percent(official), _interval(bars) if bars else ""))
        lines[-1] += (error_bar(mean, *ends),)
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td data-kind="number">{text(value)}'
        f'</td><td data-kind="number">{text(interval)}</td><td class="bars">{bar}</td>'
        "</tr>"
        for name, value, interval, bar in lines
    )
    caption = (
        "Official score in percent. The interval holds 95 % of 1000 draws of the test "
        "clips with replacement, of the first seed"
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="official scores">'
        f'<table class="sortable official"><caption>{caption}</caption><thead><tr>'
        '<th scope="col" data-kind="text">score</th>'
        '<th scope="col" data-kind="number">official score</th>'
        '<th scope="col" data-kind="number">95 % interval</th>'
        '<th scope="col" class="bars" data-kind="none">0 to 100</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _training(report: Report) -> str:
    """Curves, and what the code is used for; nothing where nothing was trained."""
    parts = []
    if report.curves:
        curves = "".join(training_curve(*item) for item in report.curves.items())
        parts.append(
            '<section id="training"><h2>Training</h2><p>Loss by epoch, mean over '
            'models: <span class="key train">training clips</span>, <span class="key '
            'held">clips that were held out</span>.</p>'
            f'<div class="curves">{curves}</div>{_codes(report.codes)}</section>'
        )
    return "".join(parts)


def _codes(codes: Mapping[str, CodeUse]) -> str:
    if not codes:
        return ""
    lines = [
        [
            machine,
            f"{code.n_active:.1f} of {len(code.nats)}",
            ", ".join(f"{nats:.2f}" for nats in code.nats),
        ]
        for machine, code in codes.items()
    ]
    header = ["machine", "active latents", "KL divergence of each latent, nats"]
    return (
        "<details><summary>What the latent code tells</summary><p>Of clips that were "
        "held out. A latent is active where its mean varies over windows by more than "
        "0.01; a latent of no nats has fallen back to its prior. A code without active "
        "latents has collapsed: every window is told the same.</p>"
        + markup.table(header, lines, caption="latents in use after the last epoch")
        + "</details>"
    )


def _about(report: Report) -> str:
    """Versions and times, folded away."""
    lines = [[".".join(path), str(value)] for path, value in _leaves(report.about)]
    if not lines:
        return ""
    inside = markup.table(["what", "value"], lines, caption="made with", texts=(0, 1))
    return (
        "<details><summary>How this was made: seconds of each stage, versions, device"
        f"</summary>{inside}</details>"
    )


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[tuple, Any]]:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves(branch, (*path, str(name)))
    elif tree is not None:
        yield path, f"{tree:.4g}" if isinstance(tree, float) else tree
