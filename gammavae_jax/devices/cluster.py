"""Coordinates the processes of a distributed run.

JAX connects the processes. All of them run the same code on the same recordings, and
each one trains the models that are assigned to its own devices. Only the first process
prints and writes, except that all processes write checkpoints. If a file cannot be read
or written in one process, all processes raise the same error.

The processes synchronise after loading the inputs (`runs.run`); when training starts,
after each epoch and when saving a checkpoint (`runs.resume`); and when publishing the
results (`runs.publication`).

JAX and NumPy are imported only inside the functions that use them, because the settings
in `process` must take effect first.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gammavae_jax.errors import InputError, unusable, unwritable
from gammavae_jax.files import text_checksum
from gammavae_jax.log import waiting_for

Value = TypeVar("Value")

_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class AgreedError(InputError):
    """An InputError that every process raises with the same message."""


def start() -> None:
    """Join the cluster that JAX detects; call this before JAX computes anything.

    JAX detects Slurm, Open MPI, Kubernetes and TPU pods. On other systems, three
    environment variables must be set: `JAX_COORDINATOR_ADDRESS` (`host:port` of the
    first process), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Raises:
        InputError: no cluster is detected, a variable is not a number, or the other
            processes do not answer within five minutes.
    """
    import jax

    if "JAX_ENABLE_PREEMPTION_SERVICE" not in os.environ:
        # Otherwise JAX would handle SIGTERM itself.
        jax.config.update("jax_enable_preemption_service", False)
    n_processes, process_id = (_number(name) for name in _BY_HAND[1:])
    try:
        jax.distributed.initialize(num_processes=n_processes, process_id=process_id)
    except (ValueError, TypeError, IndexError) as error:
        # A setting is missing or out of range.
        raise InputError(
            f"--distributed: no cluster was found ({_first_line(error)}): start the "
            f"processes with srun or mpirun, or set {', '.join(_BY_HAND)} in each"
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"--distributed: the processes could not be connected "
            f"({_first_line(error)}): start all of them within five minutes, and make "
            "sure that they can reach the host and port of the first process"
        ) from error


def is_joined() -> bool:
    """Return whether this process has joined a cluster, even as its only process."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Return whether this is the first process, which writes files and messages."""
    return _number_and_count()[0] == 0


def together(function: Callable[[], Value]) -> Value:
    """Call `function` in every process and wait until every call has returned.

    Raises:
        InputError: a call failed, or (in a cluster) a file could not be read or
            written; every process raises the error of the first process that failed.
    """
    if _number_and_count()[1] == 1:
        return function()
    value, message = _tried(function, unusable)
    _raise_first(_from_all(message))
    return value  # pyright: ignore[reportReturnType]


def on_first(function: Callable[[], Value]) -> Value:
    """Call `function` in the first process only; return its result in every process.

    In a cluster the result is broadcast as JSON.

    Raises:
        InputError: the call failed, or (in a cluster) a file could not be written;
            every process raises the error.
    """
    number, count = _number_and_count()
    if count == 1:
        return function()
    to_run = partial(unwritable, resumable=True)
    value, message = _tried(function, to_run) if number == 0 else (None, "")
    value, message = json.loads(_from_all(json.dumps([value, message]))[0])
    _raise_first([message])
    return value


def any_process(text: str) -> str:
    """Collect a string from every process; return the first non-empty one, or ""."""
    return next(filter(None, _from_all(text)), "")


def require_same(value: Any, message: str) -> None:
    """Raise an InputError unless all processes pass the same value.

    Args:
        value: a value that can be written as JSON.
        message: the error's message, with the problem and the remedy.

    Raises:
        InputError: the values differ. Every process raises the error, which names the
            first process whose value differs from process 0's.
    """
    digests = _from_all(text_checksum(json.dumps(value)))
    for number, other in enumerate(digests):
        if other != digests[0]:
            raise AgreedError(f"process {number} of {len(digests)}: {message}")


def others_lost(error: BaseException) -> str | None:
    """Return a message if the error means that a process was lost, or else None."""
    text = str(error)
    if not isinstance(error, RuntimeError | ValueError) or not any(
        word in text for word in ("Gloo", "NCCL", "oordination service")
    ):
        return None
    number, count = _number_and_count()
    return (
        f"process {number} of {count} lost contact with another process "
        f"({_first_line(error)}): see that process's error, then resume with --resume"
    )


def _number_and_count() -> tuple[int, int]:
    if not is_joined():
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


@waiting_for(
    "the other processes",
    "check that all of them are running; if not, stop them and resume with --resume",
)
def _from_all(text: str) -> list[str]:
    """Gather a string from every process, in the order of the processes."""
    if _number_and_count()[1] == 1:
        return [text]
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    own = np.frombuffer(text.encode(), np.uint8)
    lengths = process_allgather(np.array([len(own)], np.int32), tiled=True)
    padded = np.zeros((1, max(lengths)), np.uint8)
    padded[0, : len(own)] = own
    rows = process_allgather(padded, tiled=True)
    pairs = zip(rows, lengths, strict=True)
    return [row[:length].tobytes().decode() for row, length in pairs]


def _tried(
    function: Callable[[], Value], as_input_error: Callable[[OSError], InputError]
) -> tuple[Value | None, str]:
    """Call `function`; return its result and "", or None and the error's message."""
    try:
        return function(), ""
    except InputError as error:
        return None, str(error)
    except BrokenPipeError:  # from printing, not from writing files
        raise
    except OSError as error:  # if raised here, the other processes would wait forever
        return None, str(as_input_error(error))


def _raise_first(messages: list[str]) -> None:
    """Raise the first error, if any; name its process unless all processes failed."""
    failed = [number for number, message in enumerate(messages) if message]
    if not failed:
        return
    only = "" if len(failed) == len(messages) else f"process {failed[0]}: "
    raise AgreedError(only + messages[failed[0]])


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal():
        raise InputError(f"{variable} is {text!r}: set it to a number")
    return int(text)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
