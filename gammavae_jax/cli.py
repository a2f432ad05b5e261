"""The `gammavae` command: one function and one parser for each subcommand.

Nothing slow (NumPy, scikit-learn, JAX) is imported before the command line is parsed.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gammavae_jax.command_line import readable_errors
from gammavae_jax.errors import InputError
from gammavae_jax.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

    from gammavae_jax.evaluate import Row

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


class Command(NamedTuple):
    """A subcommand."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]  # the exit status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `gammavae` command; the exit status.

    Raises:
        SystemExit: with status 2 for what the user must change, after one line on
            standard error.
    """
    options = parse(arguments)
    with readable_errors():
        return options.command.run(options)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; its `command` is the `Command` to run."""
    parser = argparse.ArgumentParser(
        prog="gammavae", description="Anomalous sound detection for machines."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = subparsers.add_parser(
            name, help=command.help, description=f"{command.help}."
        )
        command.add_options(sub)
        sub.set_defaults(command=command)
    return parser.parse_args(arguments)


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """The options of `gammavae evaluate`."""
    parser.add_argument(
        "scores_dir",
        type=Path,
        metavar="SCORES_DIR",
        help="folder of anomaly_score_<machine>_section_<id>_test.csv and, for "
        "precision, recall and F1, decision_result_...csv",
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        metavar="PATH",
        help="folder of an official evaluator, with ground_truth_data and the like, "
        "or an eval_data_list_<year>.csv; without it, labels and domains are read from "
        "the clips' names",
    )
    parser.add_argument(
        "--year",
        type=int,
        metavar="YYYY",
        help="the challenge whose definitions hold; unless given, 2020 or 2021 if the "
        "files are named as then, else 2022 on",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the results as fractions; '-' is standard output, and the table "
        "then goes to standard error",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples of the test clips, two at least; 1000 unless given, 0 for none",
    )


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate the score files in a folder: a table, and JSON if asked for.

    Raises:
        InputError: score files, ground truth, a year or a number of resamples that
            cannot be used, or JSON that cannot be written.
    """
    from rich.console import Console

    from gammavae_jax.bootstrap import bootstrap
    from gammavae_jax.score_files import evaluate_sections, read_directory, summarise
    from gammavae_jax.section_files import year_of_files

    sections = read_directory(options.scores_dir, options.ground_truth)
    year = options.year
    if year is None:
        year = year_of_files(options.scores_dir)
    rows = evaluate_sections(sections, year)
    summary = {"year": year, **summarise(rows, year)}
    summary["bootstrap"] = None
    if options.bootstrap:
        n = options.bootstrap
        spread = bootstrap(sections, year=year, n_resamples=n)
        summary["bootstrap"] = spread._asdict() | {"n_resamples": n}
    to_stdout = options.json == Path("-")
    if options.json:
        _write_json(options.json, summary)
    # Names are not markup, and a table that is cut off to fit would hide numbers.
    console = Console(
        stderr=to_stdout, width=1000, markup=False, emoji=False, highlight=False
    )
    console.print(_table(rows, summary, year))
    console.print("\n".join([*_conclusions(summary), *_gaps(rows, year)]))
    return 0


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """The options of `gammavae submit`."""
    parser.add_argument(
        "run", type=Path, metavar="RUN_OUT", help="folder that a run wrote"
    )
    parser.add_argument(
        "--score", metavar="NAME", help="the run's headline score unless given"
    )
    parser.add_argument(
        "--seed", type=int, metavar="S", help="the run's first seed unless given"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of packages; DIR/LABEL must not exist",
    )
    parser.add_argument(
        "--label",
        required=True,
        metavar="LABEL",
        help="name of the entry, such as Author_Affiliation_task2_1",
    )


def submit(options: argparse.Namespace) -> int:
    """Write and check the package of a challenge entry.

    Raises:
        InputError: see `write_submission`.
    """
    from gammavae_jax.submission import write_submission

    package = write_submission(
        options.run, options.out, options.label, options.score, options.seed
    )
    print(
        f"written to {package.folder}: score {package.score}, seed {package.seed}, "
        f"machines and sections: {package.n_sections}\n"
        f"left to you: each FILL IN in {options.label}.meta.yaml, and the report"
    )
    return 0


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    text = json.dumps(tree, indent=2, allow_nan=False) + "\n"
    if path == Path("-"):
        sys.stdout.write(text)
        return
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}: give another --json"
        ) from error


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


COMMANDS = {
    "evaluate": Command(
        "Evaluate score files as the challenge does", add_evaluate_options, evaluate
    ),
    "submit": Command(
        "Write and check the package of a challenge entry", add_submit_options, submit
    ),
}


if __name__ == "__main__":
    sys.exit(main())
