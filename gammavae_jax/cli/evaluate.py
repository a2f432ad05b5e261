"""Commands about score files: `gammavae evaluate` and `gammavae submit`."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gammavae_jax.cli.shared import new_table, table_console, write_json
from gammavae_jax.errors import names_text, printable

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
    """Evaluate any system's score files with the challenge's metrics."""

    scores_dir: tyro.conf.Positional[Path]
    """Folder with the files anomaly_score_<machine>_section_<id>_test.csv. Precision,
    recall and F1 also require the files decision_result_...csv."""
    ground_truth: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Source of labels and domains: the folder of an official evaluator (it contains
    ground_truth_data) or a file eval_data_list_<year>.csv. Default: the clip names."""
    year: Annotated[int | None, tyro.conf.arg(metavar="YYYY")] = None
    """Challenge year whose metrics are used. Default: 2020 or 2021 if the files are
    named as in that year, otherwise the metrics used since 2022."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results as JSON, with metrics as fractions. With '-', the JSON goes to
    standard output, and the table to standard error."""
    bootstrap: Annotated[int, tyro.conf.arg(metavar="N")] = 1000
    """Number of bootstrap resamples of the test clips: at least 2, or 0 for no
    bootstrap."""

    def run(self) -> int:
        """Print a table of the results and write JSON if requested."""
        from gammavae_jax.evaluation.intervals import bootstrap
        from gammavae_jax.evaluation.metrics import evaluate_section
        from gammavae_jax.evaluation.name_value_files import (
            left_out_files,
            year_of_files,
        )
        from gammavae_jax.evaluation.score_files import read_score_files, summarise

        sections = read_score_files(self.scores_dir, self.ground_truth)
        if names := left_out_files(self.scores_dir):
            some = printable(names_text(names, 3))
            count = f"in {printable(self.scores_dir)}, these files are named like"
            remedy = "evaluate each folder separately, and use the suffix .csv"
            print(
                f"{count} score files but were not read: {some}: {remedy}",
                file=sys.stderr,
            )
        year = year_of_files(self.scores_dir) if self.year is None else self.year
        rows = [evaluate_section(**s._asdict(), year=year) for s in sections]
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


@dataclass(frozen=True)
class Submit:
    """Write and check the package of a challenge submission."""

    run_out: tyro.conf.Positional[Path]
    """Run folder with the scores to submit."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder in which to create the package DIR/LABEL, which must not exist yet."""
    label: Annotated[str, tyro.conf.arg(metavar="LABEL")]
    """Name of the entry, such as Author_Affiliation_task2_1."""
    score: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Score to submit. Default: the run's headline score."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="S")] = None
    """Seed to submit. Default: the run's first seed."""

    def run(self) -> int:
        """Write the package and print what the user still has to do."""
        from gammavae_jax.evaluation.submission import write_submission

        package = write_submission(
            self.run_out, self.out, self.label, self.score, self.seed
        )
        print(
            f"written to {package.folder}: score {package.score}, seed {package.seed}, "
            f"sections of all machines: {package.n_sections}\n"
            f"next: replace each FILL IN in {self.label}.meta.yaml, and add a report"
        )
        return 0


def _table(
    rows: Sequence["Row"], summary: Mapping[str, Any], year: int | None
) -> "Table":
    """Build a table of percentages, with one row per section and one per mean."""
    columns = dict(_RANKING)
    if any(not math.isnan(getattr(row, c)) for row in rows for c in _DECISIONS):
        columns |= _DECISIONS
    rules = str(year) if year is not None and year < 2022 else "2022 and later"
    numbers = [title.replace(" ", "\n") for title in columns.values()]
    title = f"In percent, with the metrics of {rules}"
    table = new_table(("machine", "section", *numbers), numbers, title)
    for row in rows:
        values = (getattr(row, c) for c in columns)
        table.add_row(row.machine, row.section, *map(_percent, values))
    table.add_section()
    for mean in ("arithmetic", "harmonic"):
        values = (summary[f"{mean}_means"][c] for c in columns)
        table.add_row(f"{mean} mean", "", *map(_percent, values))
    return table


def _conclusions(summary: Mapping[str, Any]) -> list[str]:
    """Return the official score as text and, if computed, its bootstrap interval."""
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
    """Return a line that lists the missing AUCs, or no line if there are none.

    No AUC is missing in the official data sets since 2021.
    """
    missing = [
        f"AUC {domain} of {row.machine} section {row.section}"
        for row in rows
        for domain in ("source", "target")
        if year != 2020 and math.isnan(getattr(row, f"auc_{domain}"))
    ]
    problem = "these cannot be computed and are left out of the means"
    return [f"{problem}: {'; '.join(missing)}"] if missing else []


def _percent(fraction: float | None) -> str:
    if fraction is None or math.isnan(fraction):
        return "-"
    return f"{100 * fraction:.2f}"
