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
    """The exception that stops loading recordings that are no longer needed."""


class _QuietLog(Log):
    """A log for a background thread: prints nothing, but stores notes and timings."""

    def __init__(self, stop: threading.Event):
        super().__init__(Console(file=io.StringIO()))
        self.stop = stop

    def shown_on(self, like: Log) -> Log:
        """Return a log that prints its messages, for the later stages of the wave.

        It uses the console of `like` and begins with the notes collected so far.
        """
        log = like.without_results()
        log.seconds = self.seconds
        for note in self.notes:
            log.note(note)
        return log

    @contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show no progress bar, but allow the thread to be cancelled."""
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

    `load` loads a wave, given its number and a log. The thread loads all waves but the
    first, so only the first wave shows progress. The waves' logs use the console of
    `log`. Close the generator to cancel the loading, which stops at the next clip.

    Raises:
        Exception: `load` failed for a wave; its error is raised when the wave is due.
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
                del now  # frees the memory of this wave before waiting for the next
                now = number, upcoming.result(), quiet.shown_on(log)
                del upcoming  # the future still refers to its result
            yield now
        finally:
            stop.set()
