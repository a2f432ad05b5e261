"""What a job tells its user: lines, progress, and notes that stay with the results."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from gammavae_jax.errors import printable

Advance = Callable[..., None]

_SECONDS_BETWEEN_LINES = 15.0


class Log:
    """Messages to a console, notes for the files, and the seconds of each stage."""

    def __init__(self, console: Console):
        self.console = console
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}

    def say(self, message: str) -> None:
        """Print lines: neither wrapped nor read as markup or a terminal's commands."""
        lines = "\n".join(map(printable, message.split("\n")))
        self.console.print(
            lines, markup=False, emoji=False, highlight=False, soft_wrap=True
        )

    def note(self, message: str) -> None:
        """Print a line, and keep it with the results."""
        self.say(message)
        self.notes.append(message)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of a block to a stage."""
        start = time.perf_counter()
        yield
        passed = time.perf_counter() - start
        self.seconds[stage] = self.seconds.get(stage, 0.0) + passed

    @contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """A bar on a terminal, now and then a line elsewhere.

        Yields `advance(text="")`, to be called once a step; `done` steps of the total
        were made before.
        """
        if not self.console.is_terminal:
            yield self._lines(title, total, done)
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

    def _lines(self, title: str, total: int, done: int) -> Advance:
        """Print after some seconds, and at the end in any case."""
        start = last = time.monotonic()
        first = done

        def advance(text: str = "") -> None:
            nonlocal done, last
            done += 1
            now = time.monotonic()
            if done < total and now - last < _SECONDS_BETWEEN_LINES:
                return
            last = now
            left = (now - start) / (done - first) * (total - done)
            rest = f", {left:.0f} s left" if done < total else ""
            self.say(f"{title} {done}/{total}{rest}  {text}".rstrip())

        return advance
