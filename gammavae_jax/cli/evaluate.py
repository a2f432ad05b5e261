"""`gammavae evaluate`: score files of any system, by the challenge's metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gammavae_jax.cli.shared import table_console, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from gammavae_jax.evaluation.metrics import Row

_RANKING = {
    "auc_source": "AUC source",
    "auc_target": "AUC target",
    "pauc": "pAUC",
    "auc": "AUC",
}
_DECISIONS = {
    f"{stem}_{domain}": f"{title} {domain}"
    for stem, title in (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))
    for domain in ("source", "target")
}


@dataclass(frozen=True)
class Evaluate:
    """Evaluate score files as the challenge does."""

    scores_dir: tyro.conf.Positional[Path]
    """Folder of anomaly_score_<machine>_section_<id>_test.csv and, for precision,
    recall and F1, decision_result_...csv."""
    ground_truth: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder of an official evaluator, with ground_truth_data and the like, or an
    eval_data_list_<year>.csv; without it, labels and domains are read from the clips'
    names."""
    year: Annotated[int | None, tyro.conf.arg(metavar="YYYY")] = None
    """The challenge whose definitions hold; unless given, 2020 or 2021 if the files
    are named as then, else 2022 on."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results as fractions; '-' is standard output, and the table then goes
    to standard error."""
    bootstrap: Annotated[int, tyro.conf.arg(metavar="N")] = 1000
    """Resamples of the test clips, two at least, or 0 for none."""

    def run(self) -> int:
        """Print a table of the score files in the folder, and write JSON if asked for.

        Raises:
            InputError: score files, ground truth, a year or a number of resamples that
                cannot be used, or JSON that cannot be written.
        """
        from gammavae_jax.evaluation.official import bootstrap
        from gammavae_jax.evaluation.rows import year_of_files
        from gammavae_jax.evaluation.score_files import (
            evaluate_sections,
            read_directory,
            summarise,
        )

        sections = read_directory(self.scores_dir, self.ground_truth)
        year = year_of_files(self.scores_dir) if self.year is None else self.year
        rows = evaluate_sections(sections, year)
        summary = {"year": year, **summarise(rows, year), "bootstrap": None}
        if self.bootstrap:
            spread = bootstrap(sections, year=year, n_resamples=self.bootstrap)
            summary["bootstrap"] = spread._asdict() | {"n_resamples": self.bootstrap}
        if self.json:
            write_json(self.json, summary)
        console = table_console(stderr=self.json == Path("-"))
        console.print(_table(rows, summary, year))
        console.print("\n".join([*_conclusions(summary), *_gaps(rows, year)]))
        return 0


def _table(
    rows: Sequence["Row"], summary: Mapping[str, Any], year: int | None
) -> "Table":
    """A line for each section and both means, in percent."""
    from rich import box
    from rich.table import Table

    columns = dict(_RANKING)
    if any(not math.isnan(getattr(row, c)) for row in rows for c in _DECISIONS):
        columns |= _DECISIONS
    rules = f"of {year}" if year is not None and year < 2022 else "of 2022 on"
    table = Table(
        title=f"In percent, by the definitions {rules}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for title in ("machine", "section"):
        table.add_column(title)
    for title in columns.values():
        table.add_column(title.replace(" ", "\n"), justify="right")
    for row in rows:
        values = (getattr(row, c) for c in columns)
        table.add_row(row.machine, row.section, *map(_percent, values))
    table.add_section()
    for mean in ("arithmetic", "harmonic"):
        values = (summary[f"{mean}_means"][c] for c in columns)
        table.add_row(f"{mean} mean", "", *map(_percent, values))
    return table


def _conclusions(summary: Mapping[str, Any]) -> list[str]:
    """The official score and its bootstrap, as lines."""
    score, spread = summary["official_score"], summary["bootstrap"]
    lines = [f"official score: {score:.16f} ({_percent(score)} %)"]
    if spread:
        mean, std, low, high = (
            _percent(spread[name]) for name in ("mean", "std", "low", "high")
        )
        lines.append(
            f"stratified bootstrap over clips ({spread['n_resamples']} resamples): "
            f"{mean} +- {std} %, 95 % interval {low} to {high} %"
        )
    return lines


def _gaps(rows: Sequence["Row"], year: int | None) -> list[str]:
    """What the means leave out, which from 2021 on no set of the challenge lacks."""
    lacking = [
        f"{row.machine} section {row.section} has no AUC {domain}"
        for row in rows
        for domain in ("source", "target")
        if year != 2020 and math.isnan(getattr(row, f"auc_{domain}"))
    ]
    return [f"left out of the means: {'; '.join(lacking)}"] if lacking else []


def _percent(fraction: float | None) -> str:
    if fraction is None or math.isnan(fraction):
        return "-"
    return f"{100 * fraction:.2f}"
