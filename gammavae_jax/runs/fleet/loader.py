"""The recordings of the next wave are loaded while the models of this one train."""

import io
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

from rich.console import Console

from gammavae_jax.log import Advance, Log

T = TypeVar("T")


class Loaded(NamedTuple, Generic[T]):
    """A wave's recordings, and the log of what comes next."""

    number: int
    recordings: T
    log: Log


class _NotWanted(Exception):
    """Whoever wanted the recordings has gone."""


class _QuietLog(Log):
    """Of a thread beside another that shows its progress: notes and seconds alone."""

    def __init__(self, stop: threading.Event):
        super().__init__(Console(file=io.StringIO()))
        self.stop = stop

    def aloud(self, like: Log) -> Log:
        """The same, its notes now said, for what comes next."""
        log = like.without_results()
        log.seconds = self.seconds
        for note in self.notes:
            log.note(note)
        return log

    def say(self, message: str) -> None:
        """Nothing: notes are said later."""

    @contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """No bar, but the way to end early."""
        del title, total, done

        def advance(text: str = "") -> None:
            del text
            if self.stop.is_set():
                raise _NotWanted

        yield advance


def load_in_turn(
    numbers: Sequence[int], load: Callable[[int, Log], T], log: Log
) -> Generator[Loaded[T], None, None]:
    """What `load` gives for each wave, loaded one ahead in a thread.

    To be closed: a load that has begun is then given up at its next clip.

    Args:
        numbers: of the waves.
        load: called with a number and a log, in a thread but for the first.
        log: the logs of the waves use its console. Only the first wave shows its
            progress, since nothing else runs meanwhile.

    Raises:
        Exception: what `load` raised, when its wave's turn comes.
    """
    if not numbers:
        return
    stop = threading.Event()
    with ThreadPoolExecutor(1, "next wave") as thread:
        try:
            first = log.without_results()
            now = Loaded(numbers[0], load(numbers[0], first), first)
            for number in numbers[1:]:
                quiet = _QuietLog(stop)
                coming = thread.submit(load, number, quiet)
                yield now
                del now  # before the next one is waited for
                now = Loaded(number, coming.result(), quiet.aloud(log))
                del coming  # which holds what it gave
            yield now
        finally:
            stop.set()
