"""Processes that prepare once, then repeat their work whenever they are told to.

Each is a fresh one, set up before JAX, NumPy or PyTorch is imported; so this module,
the first that a process imports, imports none of them.
"""

import importlib
import multiprocessing
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

REPEAT, FINISH = "repeat", "finish"  # what a process can be told
_SECONDS_TO_END = 10.0
_SPAWN = multiprocessing.get_context("spawn")


class ProcessError(RuntimeError):
    """A process failed; the message has its traceback."""


class Call(NamedTuple):
    """A function by its name, `module:function`, and its keyword arguments."""

    target: str
    settings: Mapping[str, Any]

    def __call__(self) -> Any:
        """Import the module and call the function."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)(**self.settings)


class Member(NamedTuple):
    """One process: how it is set up, and the call that gives its `Prepared`."""

    setup: Call
    prepare: Call


class Prepared(NamedTuple):
    """What a process has to offer once it is prepared."""

    repeat: Callable[[], Any]  # returns when all work is done, also on a device
    work: float  # of a repetition
    facts: Mapping[str, Any]  # seconds of compilation and the like
    finish: Callable[[], Mapping[str, Any]] = dict  # more facts, after the last round


def once(member: Member) -> Any:
    """What a call returns, made in a process of its own.

    Raises:
        ProcessError: the process failed.
    """
    process = Process(member.prepare.target, _answer_once, member)
    try:
        return process.answer()
    finally:
        process.end()


def peak_memory(usage: resource.struct_rusage) -> int:
    """The most memory that a process has held, in bytes; systems count differently."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Used(NamedTuple):
    """What a command took."""

    wall_s: float
    peak_memory_bytes: int


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Used:
    """Run a command to its end; where it fails, its own words end the script.

    What it says goes to the file `log`.
    """
    with log.open("w+", encoding="utf-8") as said:
        start = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_s = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            print(said.read(), end="", file=sys.stderr)
            sys.exit(process.returncode if process.returncode > 0 else 1)
    return Used(wall_s, peak_memory(usage))


class _Failure(NamedTuple):
    traceback: str


class Process:
    """The parent's side of one process."""

    def __init__(self, name: str, function: Callable, member: Member):
        self.name = name
        self.connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=function, args=(theirs, member))
        self.process.start()
        theirs.close()

    def tell(self, message: str) -> None:
        """Say `REPEAT` or `FINISH`."""
        # Where the process is gone, `answer` says so, with its last words.
        with suppress(BrokenPipeError):
            self.connection.send(message)

    def answer(self) -> Any:
        """Wait for what the process sends next.

        Raises:
            ProcessError: the process failed, or is gone.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            status = self.process.exitcode
            raise ProcessError(
                f"{self.name}: its process ended, status {status}"
            ) from None
        if isinstance(answer, _Failure):
            raise ProcessError(f"{self.name}:\n{answer.traceback}")
        return answer

    def end(self) -> None:
        """A process that waits ends when its connection does; one that works, late."""
        self.connection.close()
        self.process.join(_SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _set_up(setup: Call) -> None:
    """What all processes share, then their own."""
    # Else a compilation that is timed may be read from a file.
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    # Several processes wait on one accelerator; none may take all of its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    setup()


def serve(connection: Connection, member: Member) -> None:
    """The life of a contestant's process."""
    try:
        _set_up(member.setup)
        prepared = member.prepare()
        connection.send((prepared.work, dict(prepared.facts)))
        while connection.recv() == REPEAT:
            # The system's clock: the same in all processes.
            start = time.monotonic()
            prepared.repeat()
            connection.send((start, time.monotonic()))
        peak = peak_memory(resource.getrusage(resource.RUSAGE_SELF))
        connection.send({"peak_memory_bytes": peak, **prepared.finish()})
    except (EOFError, KeyboardInterrupt):
        pass  # the parent has no more use for it
    except Exception:
        connection.send(_Failure(traceback.format_exc()))


def _answer_once(connection: Connection, member: Member) -> None:
    try:
        _set_up(member.setup)
        connection.send(member.prepare())
    except KeyboardInterrupt:
        pass
    except Exception:
        connection.send(_Failure(traceback.format_exc()))
