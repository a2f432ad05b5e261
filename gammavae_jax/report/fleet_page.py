"""The page of a fleet: an index of its machines, the worst first, no script."""

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
from gammavae_jax.report import markup
from gammavae_jax.report.markup import text

_SHOWN = (*HEADLINE, "fpr_source", "fpr_target")


class MachineLine(NamedTuple):
    """One machine: where its page is, and what became of its test clips."""

    machine: str
    section: str
    link: str  # relative to the page of the fleet
    n_clips: int
    n_alarms: int  # by the headline score, of the first seed
    rows: Sequence[Row]  # by the headline score, of each seed; none without labels


def write_fleet_page(
    path: Path,
    config: Config,
    machines: Sequence[MachineLine],
    means: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    """Write the page.

    Args:
        path: of the page.
        config: of the run.
        machines: what there is.
        means: see `report.summarise_scores`; of no score where nothing has labels.
        notes: sentences that must be read with the numbers.

    Raises:
        OSError: it cannot be written.
    """
    judged = sorted(((_mean(line), line) for line in machines), key=_worst_first)
    lines = "".join(_row(mean, line) for mean, line in judged)
    titles = ["", *(TITLES[name] for name in _SHOWN), "harmonic mean", "alarms"]
    head = "".join(f'<th scope="col">{text(title)}</th>' for title in titles)
    caption = (
        f"{config.score}, in percent; the harmonic mean is of the two AUCs and the "
        "pAUC. Alarms are test clips above the threshold, of all test clips"
    )
    parts = {
        "policy": text(markup.policy("")),
        "style": markup.resource("report.css"),
        "lead": (
            f"Preset <b>{text(config.preset)}</b>, score <b>{text(config.score)}</b>. "
            "Each machine's name leads to the page of its wave."
        ),
        "notes": "".join(f'<p class="note">{text(note)}</p>' for note in notes),
        "facts": _facts(config, machines, means),
        "caption": text(caption),
        "head": head,
        "lines": lines,
    }
    write_text(path, markup.fill(markup.resource("fleet.html"), parts))


def _mean(line: MachineLine) -> dict[str, float]:
    """A machine's metrics over seeds, and one number to sort by."""
    if not line.rows:
        return {"score": math.nan}
    mean = arithmetic_means(line.rows)
    return mean | {"score": harmonic_mean(mean[name] for name in HEADLINE)}


def _worst_first(judged: tuple[dict[str, float], MachineLine]) -> tuple[Any, ...]:
    """Machines without labels last, by their share of alarms."""
    mean, line = judged
    share = line.n_alarms / max(line.n_clips, 1)
    if math.isnan(mean["score"]):
        return 1, -share, line.machine, line.section
    return 0, mean["score"], line.machine, line.section


def _row(mean: Mapping[str, float], line: MachineLine) -> str:
    numbers = [_percent(mean.get(name, math.nan)) for name in (*_SHOWN, "score")]
    cells = "".join(
        f"<td>{text(cell)}</td>"
        for cell in (*numbers, f"{line.n_alarms} of {line.n_clips}")
    )
    name = unit_name(line.machine, line.section)
    link = f'<a href="{text(line.link)}">{text(name)}</a>'
    return f'<tr><th scope="row">{link}</th>{cells}</tr>\n'


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.2f}"


def _facts(
    config: Config, machines: Sequence[MachineLine], means: Mapping[str, Any]
) -> str:
    official = means["official_score"].get(config.score)
    facts = [("official score", percent(official))] if official else []
    facts += [
        ("machines", f"{len(machines):,}"),
        ("test clips", f"{sum(line.n_clips for line in machines):,}"),
        ("alarms", f"{sum(line.n_alarms for line in machines):,}"),
    ]
    return "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"
        for name, value in facts
    )
