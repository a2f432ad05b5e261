"""`report.html`: what a run has to say, on one page that needs no other file.

Everything that comes from outside, names above all, is escaped.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gammavae_jax.evaluate import Row
from gammavae_jax.published import PUBLISHED_SCORE
from gammavae_jax.report import Published, percent, summarise_rows, table_cells


class CodeUse(NamedTuple):
    """How much of a latent code is in use: means over a machine's models."""

    n_active: float  # latents whose posterior mean varies over held-out windows
    nats: Sequence[float]  # KL divergence of each latent


def report_html(
    rows: Sequence[Row],
    scores: Sequence[str],
    notes: Sequence[str],
    published: Published,
    losses: Mapping[str, Sequence[float]],
    year: int | None = None,
    codes: Mapping[str, CodeUse] | None = None,
) -> str:
    """`report.html`: one self-contained page with the tables and training curves.

    Args:
        rows: of all seeds and machines.
        scores: names, the headline score first.
        notes: sentences that must be read with the numbers.
        published: results to stand beside ours.
        losses: by machine, the mean loss over seeds of each epoch.
        year: the one that the rows were made with.
        codes: by machine, what the latent code tells after the last epoch.
    """
    summary = summarise_rows(rows, year) if rows else {"official_score": {}}
    parts = [f"<p>{html.escape(note)}</p>" for note in notes]
    for score in scores if rows else ():
        official = percent(summary["official_score"][score])
        beside = published if score == PUBLISHED_SCORE else {}
        header, *lines, footer = table_cells(rows, score, beside)
        parts.append(
            f"<h2>{html.escape(score)}: official score {html.escape(official)}</h2>"
            + _html_table(header, lines, footer)
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
    if codes:
        parts.append("<h2>What the latent code tells</h2>" + _CODE_NOTE)
        header, *lines = _code_cells(codes)
        parts.append(_html_table(header, lines))
    return _PAGE.replace("BODY", "\n".join(parts))


def _code_cells(codes: Mapping[str, CodeUse]) -> list[list[str]]:
    lines = [["machine", "active latents", "KL divergence of each latent, nats"]]
    for machine, code in codes.items():
        nats = ", ".join(f"{nats:.2f}" for nats in code.nats)
        lines.append([machine, f"{code.n_active:.1f} of {len(code.nats)}", nats])
    return lines


def _html_table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    footer: Sequence[str] | None = None,
) -> str:
    """A header, lines, and below them a foot if there is one."""
    head = _html_row(header, "th")
    body = "".join(_html_row(line, "td") for line in lines)
    foot = f"<tfoot>{_html_row(footer, 'th')}</tfoot>" if footer else ""
    return (
        f"<div class='wide'><table><thead>{head}</thead><tbody>{body}</tbody>{foot}"
        "</table></div>"
    )


def _html_row(cells: Sequence[str], tag: str) -> str:
    inside = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inside}</tr>"


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


_CODE_NOTE = """<p>Of clips that were held out. A latent is active where its mean
varies over windows by more than 0.01; a latent of no nats has fallen back to its
prior. A code without active latents has collapsed: every window is told the same.
</p>"""

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
