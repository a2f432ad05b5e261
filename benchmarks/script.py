"""Code that the benchmark scripts share: options, progress, tables and JSON files."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.processes import Call, Member, ProcessError, once
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.log import Log

_WIDTH = 120  # characters, without a terminal


class Parser(argparse.ArgumentParser):
    """Parses options, reports errors in one line and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit."""
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def parser(
    description: str | None, rounds: int | None = 5, warm_up: int | None = 2
) -> Parser:
    """Return a parser with the options that all scripts share."""
    made = Parser(description=(description or "").partition("\n")[0])
    made.add_argument(
        "--json", type=new_file, metavar="FILE", help="write the figures to this file"
    )
    if rounds is not None:
        made.add_argument(
            "--rounds", type=positive, default=rounds, metavar="N",
            help=f"measured rounds (default: {rounds})",
        )  # fmt: skip
    if warm_up is not None:
        made.add_argument(
            "--warm-up", type=positive, default=warm_up, metavar="N",
            help=f"rounds before the measured ones (default: {warm_up})",
        )  # fmt: skip
    return made


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number of at least 1"
        )
    return int(text)


def new_file(text: str) -> Path:
    """Parse the path of a file to be written in an existing folder."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be written: name a file in an existing folder"
        )
    return path


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script; print an error as one line, or as a contestant's traceback."""
    with readable_errors():
        try:
            sys.exit(main())
        except ProcessError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)


def say(line: str) -> None:
    """Print a line of progress."""
    Log(Console(stderr=True)).say(line)


def environment(setup: Call) -> dict[str, Any]:
    """Describe the computer, as seen by a process with this setup."""
    about = once(Member(setup, Call("benchmarks.machine:describe", {})))
    say(f"{about['processor']}, {about['cores']} cores; {about['device']}")
    return about


def write(path: Path | None, record: dict[str, Any]) -> None:
    """Write the figures as JSON; do nothing if `path` is None."""
    if path is not None:
        text = json.dumps(record, indent=2, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def show(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | float | None]]
) -> None:
    """Print a table: numbers with three digits, None as a dash."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
