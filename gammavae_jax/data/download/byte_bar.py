"""A bar of bytes and their rate on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gammavae_jax.log import Log

Show = Callable[[int, int | None], None]  # bytes so far, bytes in all if known

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def byte_bar(log: Log, title: str) -> Iterator[Show]:
    """Show how a file grows; it may also shrink, where it is begun again."""
    if not log.console.is_terminal:
        yield _lines(log, title)
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=log.console,
        transient=True,
    ) as bar:
        task = None

        def show(done: int, total: int | None) -> None:
            nonlocal task
            if task is None:  # its rate counts from the bytes of earlier tries on
                task = bar.add_task(title, total=total, completed=done)
                return
            bar.update(task, total=total, completed=done)

        yield show


def _lines(log: Log, title: str) -> Show:
    last, before = time.monotonic(), None

    def show(done: int, total: int | None) -> None:
        nonlocal last, before
        now = time.monotonic()
        before = done if before is None or done < before else before
        passed = now - last
        if passed < _SECONDS_BETWEEN_LINES:
            return
        rate = (done - before) / passed
        of_all = "" if total is None else f" of {decimal(total)}"
        log.say(f"{title}: {decimal(done)}{of_all}, {decimal(round(rate))}/s")
        last, before = now, done

    return show
