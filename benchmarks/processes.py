"""Processes that prepare once, then repeat their work on each request.

Each process is new and is set up before JAX, NumPy or PyTorch is imported. It imports
this module first, so this module imports none of these libraries.
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

REPEAT, FINISH = "repeat", "finish"  # requests to a process
_SECONDS_TO_END = 10.0
_SPAWN = multiprocessing.get_context("spawn")


class ProcessError(RuntimeError):
    """The error for a failed process; the message contains its traceback."""


class Call(NamedTuple):
    """A function, named as `module:function`, and its keyword arguments."""

    target: str
    settings: Mapping[str, Any]

    def __call__(self) -> Any:
        """Import the module and call the function."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)(**self.settings)


class Member(NamedTuple):
    """One process: its setup, and the call that returns its `Prepared`."""

    setup: Call
    prepare: Call


class Prepared(NamedTuple):
    """The work of a process that is ready to begin."""

    repeat: Callable[[], Any]  # returns when all work is done, on devices too
    work: float  # per repetition
    facts: Mapping[str, Any]  # such as compile time
    finish: Callable[[], Mapping[str, Any]] = dict  # more facts, after the last round


def once(member: Member) -> Any:
    """Make a call in a new process and return its result.

    Raises:
        ProcessError: the process failed.
    """
    process = Process(member.prepare.target, _respond_once, member)
    try:
        return process.receive()
    finally:
        process.end()


def peak_memory(usage: resource.struct_rusage) -> int:
    """Return the peak memory of a process in bytes, whatever unit the system uses."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Used(NamedTuple):
    """The time and memory that a command used."""

    wall_s: float
    peak_memory_bytes: int


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Used:
    """Run a command to its end; write its output to the file `log`.

    If the command fails, print its output and exit.
    """
    with log.open("w+", encoding="utf-8") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_s = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            print(output.read(), end="", file=sys.stderr)
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

    def send(self, message: str) -> None:
        """Send `REPEAT` or `FINISH`."""
        # If the process has ended, `receive` raises an error with its traceback.
        with suppress(BrokenPipeError):
            self.connection.send(message)

    def receive(self) -> Any:
        """Wait for the next message from the process.

        Raises:
            ProcessError: the process failed or has ended.
        """
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            status = self.process.exitcode
            raise ProcessError(
                f"{self.name}: its process ended with status {status}"
            ) from None
        if isinstance(message, _Failure):
            raise ProcessError(f"{self.name}:\n{message.traceback}")
        return message

    def end(self) -> None:
        """Close the connection, which ends a waiting process; kill a busy one."""
        self.connection.close()
        self.process.join(_SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _set_up(setup: Call) -> None:
    """Apply the setup that all processes share, then this process's own."""
    # Otherwise a timed compilation could be read from the cache.
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    # Several processes share one accelerator; none may take all of its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    setup()


def serve(connection: Connection, member: Member) -> None:
    """Prepare, then work on each request; called in a contestant's process."""
    try:
        _set_up(member.setup)
        prepared = member.prepare()
        connection.send((prepared.work, dict(prepared.facts)))
        while connection.recv() == REPEAT:
            # The monotonic clock is the same in all processes.
            start = time.monotonic()
            prepared.repeat()
            connection.send((start, time.monotonic()))
        peak = peak_memory(resource.getrusage(resource.RUSAGE_SELF))
        connection.send({"peak_memory_bytes": peak, **prepared.finish()})
    except (EOFError, KeyboardInterrupt):
        pass  # the parent has ended the contest
    except Exception:
        connection.send(_Failure(traceback.format_exc()))


def _respond_once(connection: Connection, member: Member) -> None:
    try:
        _set_up(member.setup)
        connection.send(member.prepare())
    except KeyboardInterrupt:
        pass
    except Exception:
        connection.send(_Failure(traceback.format_exc()))
