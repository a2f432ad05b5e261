"""Ctrl-C and SIGTERM: when they end a program at once, and when they have to wait."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STANDARD_ERROR = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; whoever cleans up after Ctrl-C does so now."""


class Stop:
    """Whether the end was asked for, by the first signal that came."""

    first: signal.Signals | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.first is not None

    @property
    def signal_name(self) -> str:
        """Of the first signal that has come; "" if none has."""
        return "" if self.first is None else self.first.name


@contextmanager
def heeded_termination() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in a block, unless it is ignored."""

    def end(*_: Any) -> None:
        raise Terminated

    with _handled((signal.SIGTERM,), end):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait for the end of a block.

    What is interrupted in the middle of a write, or of a compilation, may end in pages
    of warnings, or in a crash of the interpreter.
    """
    stop = Stop()

    def wait(number: int, _: Any) -> None:
        stop.first = stop.first or signal.Signals(number)

    with _handled(_SIGNALS, wait):
        yield
    _deliver(stop)


@contextmanager
def stoppable(message: str) -> Iterator[Stop]:
    """Let the first signal wait for the end of a block, which looks whether it came.

    A second one ends the block at once.

    Args:
        message: a line for standard error when the first one comes.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        if stop.asked:
            signal.signal(number, before[number])
            signal.raise_signal(number)
            return
        stop.first = signal.Signals(number)
        # Not `print`: the signal may have come in the middle of one.
        os.write(_STANDARD_ERROR, f"{message}\n".encode())

    with _handled(_SIGNALS, note) as found:
        before.update(found)
        yield stop
    _deliver(stop)


def end_of(signal_name: str) -> KeyboardInterrupt:
    """What a signal raises that another process has had."""
    return Terminated() if signal_name == "SIGTERM" else KeyboardInterrupt()


def exit_status(end: KeyboardInterrupt) -> int:
    """What a shell gives for the signal."""
    number = signal.SIGTERM if isinstance(end, Terminated) else signal.SIGINT
    return 128 + number


def _deliver(stop: Stop) -> None:
    if stop.first is not None:
        signal.raise_signal(stop.first)


@contextmanager
def _handled(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], None]
) -> Iterator[dict[int, Any]]:
    """A handler for the time of a block, in the thread where signals arrive.

    Yields the handlers before; a signal that is ignored stays so.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        now = {number: signal.getsignal(number) for number in numbers}
        before = {n: h for n, h in now.items() if h not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)
