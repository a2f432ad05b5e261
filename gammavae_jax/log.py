"""Shows messages, progress and tables to the user, and keeps notes for result files."""

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from gammavae_jax.errors import printable

Advance = Callable[..., None]


class Log:
    """Prints messages, times stages, and keeps notes for the result files.

    Args:
        console: shows messages and progress; default: standard error.
        output: shows tables and results; default: standard output.
    """

    def __init__(self, console: Console | None = None, output: Console | None = None):
        self.console = console or Console(stderr=True)
        self.output = output or Console()
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}

    def without_results(self) -> "Log":
        """Return a log that uses the same console but discards tables and results."""
        return Log(self.console, Console(file=io.StringIO()))

    def say(self, message: str) -> None:
        """Print a message literally, without wrapping, markup or escape sequences."""
        _print_lines(self.console, message)

    def show(self, result: Table | str) -> None:
        """Print a table or a line of results to the output console."""
        if isinstance(result, str):
            _print_lines(self.output, result)
        else:
            self.output.print(result)

    def note(self, message: str) -> None:
        """Print a message and keep it as a note for the result files."""
        self.say(message)
        self.notes.append(message)

    @property
    def _is_live(self) -> bool:
        """Whether the console can replace a line.

        While Rich does so, it sends everything that is printed to this console, so a
        quiet console must not.
        """
        console = self.console
        return console.is_interactive and not (console.quiet or console.is_jupyter)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure the block's duration and add it to the total time of a stage."""
        start = time.perf_counter()
        yield
        passed = time.perf_counter() - start
        self.seconds[stage] = self.seconds.get(stage, 0.0) + passed

    @contextmanager
    def busy(self, work: str) -> Iterator[None]:
        """Say what the block does; on a terminal, also show the time that has passed.

        Use it for work whose progress cannot be measured, such as compilation.
        """
        if not self._is_live:
            self.say(work)
            yield
            return
        text = TextColumn("{task.description}", markup=False)
        columns = text, TimeElapsedColumn(), SpinnerColumn()
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(printable(work), total=1)
            yield
            bar.update(task, completed=1)

    @contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show progress as a bar on a terminal, or as one changing line in a notebook.

        Elsewhere, a line is printed every 15 seconds.

        Yields the function `advance(text="")`, to be called after each step. `done` is
        the number of steps that are already finished.
        """
        if self.console.is_jupyter and not self.console.quiet:
            # Rich's bar would need ipywidgets.
            yield _lines(title, total, done, _changing_line(), seconds_between=0.5)
            return
        if not self._is_live:
            yield _lines(title, total, done, self.say)
            return
        with Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
        ) as bar:
            task = bar.add_task(title, total=total, completed=done, text="")
            yield lambda text="": bar.update(task, advance=1, text=text)


def _lines(
    title: str,
    total: int,
    done: int,
    show: Callable[[str], None],
    seconds_between: float = 15.0,
) -> Advance:
    """Return a function that shows progress from time to time, and at the end."""
    start = last = time.monotonic()
    first = done

    def advance(text: str = "") -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if done < total and now - last < seconds_between:
            return
        last = now
        left = (now - start) / (done - first) * (total - done)
        rest = f", {left:.0f} s left" if done < total else ""
        show(f"{title} {done}/{total}{rest}  {text}".rstrip())

    return advance


def _changing_line() -> Callable[[str], None]:
    """Return a function that replaces a line below a notebook's current cell."""
    from IPython.display import display

    line = display({"text/plain": ""}, raw=True, display_id=True)

    def show(text: str) -> None:
        if line is not None:  # IPython cannot display here
            line.update({"text/plain": printable(text)}, raw=True)

    return show


def _print_lines(console: Console, message: str) -> None:
    lines = "\n".join(map(printable, message.split("\n")))
    console.print(lines, markup=False, emoji=False, highlight=False, soft_wrap=True)


LONG_WAIT_S = 600.0


@contextmanager
def waiting_for(what: str, remedy: str) -> Iterator[Callable[[], None]]:
    """Print a line on standard error after every ten minutes that the block waits.

    Use it for a wait that may be long for good reasons, but may also never end.
    Calling the yielded function restarts the ten minutes.
    """
    ended, n_steps = threading.Event(), 0

    def step() -> None:
        nonlocal n_steps
        n_steps += 1

    def watch() -> None:
        seen, waited = 0, 0.0
        while not ended.wait(LONG_WAIT_S):
            waited = waited + LONG_WAIT_S if seen == n_steps else 0.0
            seen = n_steps
            if waited:
                minutes = f"{waited / 60:.0f} minutes"
                print(
                    f"still waiting for {what} after {minutes}: {remedy}",
                    file=sys.stderr,
                )

    threading.Thread(target=watch, name="waiting", daemon=True).start()
    try:
        yield step
    finally:
        ended.set()
