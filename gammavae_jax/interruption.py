"""Handles Ctrl-C, SIGTERM and SIGHUP: they end a program at once or after a block."""

import contextlib
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Sent when the terminal or the ssh session is closed; Windows has none.
HANGUP = tuple(filter(None, [getattr(signal, "SIGHUP", None)]))
_TERMINATION = (signal.SIGTERM, *HANGUP)
_SIGNALS = (signal.SIGINT, *_TERMINATION)
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2


class Terminated(KeyboardInterrupt):
    """The exception for SIGTERM or SIGHUP, so that programs clean up as on Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__()
        self.number = number


class Stop:
    """The first signal that has arrived, if any."""

    first: signal.Signals | None = None

    @property
    def signal_name(self) -> str:
        """The name of the first signal; "" if none has arrived."""
        return self.first.name if self.first else ""

    def deliver(self) -> None:
        """Raise the first signal again, if one has arrived."""
        if self.first:
            signal.raise_signal(self.first)


@contextmanager
def raising_on_termination() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM or SIGHUP in the block, unless they are ignored."""

    def terminate(number: int, _: Any) -> None:
        raise Terminated(number)

    with handled(_TERMINATION, terminate):
        yield


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer Ctrl-C, SIGTERM and SIGHUP until the block ends.

    Interrupting a write or a compilation can print pages of warnings, or crash the
    interpreter.
    """
    stop = Stop()

    def defer(number: int, _: Any) -> None:
        stop.first = stop.first or signal.Signals(number)

    with handled(_SIGNALS, defer):
        yield
    stop.deliver()


@contextmanager
def stoppable(message: str) -> Iterator[Stop]:
    """Defer the first signal, which the block can query; a second one ends the block.

    Args:
        message: a line for standard error when the first signal arrives.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        if stop.first is not None:
            signal.signal(number, before[number])
            signal.raise_signal(number)
            return
        stop.first = signal.Signals(number)
        # Not `print`, because the signal may have interrupted a call of `print`.
        os.write(_STANDARD_ERROR, f"{message}\n".encode())

    with handled(_SIGNALS, note) as previous:
        before.update(previous)
        yield stop
    stop.deliver()


def end_of(signal_name: str) -> KeyboardInterrupt:
    """Return the exception that ends this process after another received a signal."""
    number = signal.Signals[signal_name]
    return Terminated(number) if number in _TERMINATION else KeyboardInterrupt()


def exit_status(end: KeyboardInterrupt) -> int:
    """Return the exit status that shells report for the signal."""
    return 128 + (end.number if isinstance(end, Terminated) else signal.SIGINT)


@contextmanager
def handled(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], None]
) -> Iterator[dict[int, Any]]:
    """Install a signal handler for the block, and yield the previous handlers.

    It does nothing outside the main thread. Ignored signals stay ignored.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        now = {number: signal.getsignal(number) for number in numbers}
        before = {n: h for n, h in now.items() if h not in (None, signal.SIG_IGN)}

    def handle(number: int, frame: Any) -> None:
        if number in HANGUP:
            _drop_lost_terminal()
        handler(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _drop_lost_terminal() -> None:
    """Discard further output if its terminal was closed, because writing would fail."""
    for number in (_STANDARD_OUTPUT, _STANDARD_ERROR):
        with contextlib.suppress(OSError):
            is_device = stat.S_ISCHR(os.fstat(number).st_mode)
            if is_device and not os.isatty(number):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


LONG_WAIT_S = 600.0


@contextmanager
def waiting_for(what: str, remedy: str) -> Iterator[Callable[[], None]]:
    """Print a line on standard error whenever the block has waited another ten minutes.

    This is for waits that may legitimately take long, but might never end. Calling the
    yielded function restarts the ten minutes.
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
