"""Loads the next wave's recordings while the current wave trains."""

import io
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console

from gammavae_jax.log import Advance, Log

T = TypeVar("T")


class _Cancelled(Exception):
    """An exception that stops loading recordings that are no longer needed."""


class _QuietLog(Log):
    """A silent log for a background thread, which only collects notes and times."""

    def __init__(self, stop: threading.Event):
        super().__init__(Console(file=io.StringIO()))
        self.stop = stop

    def shown_on(self, like: Log) -> Log:
        """Return a log for the later stages, and show the collected notes in it."""
        log = like.without_results()
        log.seconds = self.seconds
        for note in self.notes:
            log.note(note)
        return log

    @contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show no progress bar, but let the thread be cancelled."""
        del title, total, done

        def advance(text: str = "") -> None:
            del text
            if self.stop.is_set():
                raise _Cancelled

        yield advance


def load_in_turn(
    numbers: Sequence[int], load: Callable[[int, Log], T], log: Log
) -> Generator[tuple[int, T, Log], None, None]:
    """Yield each wave's number, recordings and log, while a thread loads the next wave.

    Close the generator to cancel the loading, which stops at the next clip.

    Args:
        numbers: the wave numbers.
        load: called with a number and a log, in a thread except for the first wave.
        log: the logs of the waves use its console; only the first wave shows its
            progress, since the others load in the background.

    Raises:
        Exception: whatever `load` raised, when it is that wave's turn.
    """
    if not numbers:
        return
    stop = threading.Event()
    with ThreadPoolExecutor(1, "next wave") as thread:
        try:
            first = log.without_results()
            now = numbers[0], load(numbers[0], first), first
            for number in numbers[1:]:
                quiet = _QuietLog(stop)
                upcoming = thread.submit(load, number, quiet)
                yield now
                del now  # frees its memory before waiting for the next one
                now = number, upcoming.result(), quiet.shown_on(log)
                del upcoming  # which still refers to its result
            yield now
        finally:
            stop.set()
