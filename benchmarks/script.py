"""What the scripts share: options, lines for people, and the file for programs."""

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

_WIDTH = 120  # characters, where there is no terminal


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and ends with status 2."""

    def error(self, message: str) -> NoReturn:
        """Print it and leave."""
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def parser(
    description: str | None, rounds: int | None = 5, warm_up: int | None = 2
) -> Parser:
    """The options of every script, with their defaults."""
    made = Parser(description=(description or "").partition("\n")[0])
    made.add_argument("--json", type=_new_file, metavar="FILE", help="where figures go")
    if rounds is not None:
        made.add_argument(
            "--rounds", type=positive, default=rounds, metavar="N",
            help=f"measured ones; {rounds}",
        )  # fmt: skip
    if warm_up is not None:
        made.add_argument(
            "--warm-up", type=positive, default=warm_up, metavar="N",
            help=f"rounds before the measured ones; {warm_up}",
        )  # fmt: skip
    return made


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: no such folder")
    return path


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script; what the user gave is one line, a contestant's failure its own."""
    with readable_errors():
        try:
            sys.exit(main())
        except ProcessError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)


def say(line: str) -> None:
    """A line of progress."""
    Log(Console(stderr=True)).say(line)


def environment(setup: Call) -> dict[str, Any]:
    """The machine as a process of ours sees it that is so set up."""
    found = once(Member(setup, Call("benchmarks.machine:describe", {})))
    say(f"{found['processor']}, {found['cores']} cores; {found['device']}")
    return found


def write(path: Path | None, record: dict[str, Any]) -> None:
    """Write the figures, if a file was named."""
    if path is not None:
        text = json.dumps(record, indent=2, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def show(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | float | None]]
) -> None:
    """Print a table; numbers get three digits, what there is not a dash."""
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
