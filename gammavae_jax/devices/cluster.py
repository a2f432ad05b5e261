"""Several processes as one: they start together, agree, and fail together.

JAX finds the others and connects them. Every process runs the same program on the same
recordings, and trains the models of its own devices. What is said and written is the
first one's alone.

Imports JAX and NumPy only where they are used: the settings of `runtime` come before.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from gammavae_jax.errors import InputError
from gammavae_jax.files import unusable, unwritable

Value = TypeVar("Value")

_BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class AgreedError(InputError):
    """An error that every process of the run has raised."""


def start() -> None:
    """Become one of the processes of the cluster that JAX detects.

    That are Slurm, Open MPI, Kubernetes and TPU pods; elsewhere three variables of
    the environment tell: `JAX_COORDINATOR_ADDRESS` (`host:port` of the first process),
    `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`. To be called before JAX computes.

    Raises:
        InputError: no cluster is detected, a variable is no number, or the others do
            not answer within five minutes.
    """
    import jax

    if "JAX_ENABLE_PREEMPTION_SERVICE" not in os.environ:
        # Or JAX would take SIGTERM for itself, and the process would not heed it.
        jax.config.update("jax_enable_preemption_service", False)
    n_processes, process_id = (_number(name) for name in _BY_HAND[1:])
    try:
        jax.distributed.initialize(num_processes=n_processes, process_id=process_id)
    except (ValueError, TypeError, IndexError) as error:  # missing, or out of range
        raise InputError(
            f"--distributed: no cluster was found ({_first_line(error)}): start the "
            f"processes with srun or mpirun, or set {', '.join(_BY_HAND)} for each"
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"--distributed: the processes could not be connected "
            f"({_first_line(error)}): start all of them within five minutes, and let "
            "them reach the first one's host and port"
        ) from error


def is_joined() -> bool:
    """Whether this process is one of a cluster, if the only one."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether files, logs and tables are this process's."""
    return _number_and_count()[0] == 0


def together(function: Callable[[], Value]) -> Value:
    """What `function` returns, once it has returned in every process.

    Raises:
        InputError: of the first process where it failed, in all of them; of several
            processes also where a file could not be read or written.
    """
    if _number_and_count()[1] == 1:
        return function()
    value, message = _tried(function, unusable)
    _raise_first(_from_all(message))
    return value  # pyright: ignore[reportReturnType]


def on_first(function: Callable[[], Value]) -> Value:
    """What `function` returns in the first process, the only one to call it.

    The value, which JSON must know, is the same in all processes.

    Raises:
        InputError: the first one's, in all of them; of several processes also where a
            file could not be written.
    """
    number, count = _number_and_count()
    if count == 1:
        return function()
    value, message = _tried(function, unwritable) if number == 0 else (None, "")
    told = json.loads(_from_all(json.dumps([value, message]))[0])
    _raise_first([told[1]])
    return told[0]


def any_process(text: str) -> str:
    """The text of the first process that has one; "" if none has."""
    return next(filter(None, _from_all(text)), "")


def require_same(value: Any, message: str) -> None:
    """Refuse to go on where processes do not have the same value.

    Args:
        value: which JSON must know.
        message: what is wrong, and the remedy.

    Raises:
        InputError: the message, in all processes, with the number of the first one
            that differs.
    """
    digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
    digests = _from_all(digest)
    for number, other in enumerate(digests):
        if other != digests[0]:
            raise AgreedError(f"process {number} of {len(digests)}: {message}")


def others_lost(error: BaseException) -> str | None:
    """What to say if an error only tells that another process is gone, else None."""
    text = str(error)
    if not isinstance(error, RuntimeError | ValueError) or not any(
        word in text for word in ("Gloo", "NCCL", "oordination service")
    ):
        return None
    number, count = _number_and_count()
    return (
        f"process {number} of {count} has lost another one ({_first_line(error)}): see "
        "what that one said, then go on with --resume"
    )


def _number_and_count() -> tuple[int, int]:
    if not is_joined():
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def _from_all(text: str) -> list[str]:
    """The text of each process, in order."""
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
    function: Callable[[], Value], told: Callable[[OSError], InputError]
) -> tuple[Value | None, str]:
    """What `function` returns, and why it could not."""
    try:
        return function(), ""
    except InputError as error:
        return None, str(error)
    except BrokenPipeError:  # of what was printed
        raise
    except OSError as error:  # or the others would wait for this process
        return None, str(told(error))


def _raise_first(messages: list[str]) -> None:
    """Raise the first message, told from whom if some had none."""
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
        raise InputError(f"{variable} is {text!r}: give a number")
    return int(text)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
