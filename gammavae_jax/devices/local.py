"""Lists this process's devices and prevents the use of JAX in a forked process."""

import os
import sys
from typing import Any

from gammavae_jax.errors import InputError

_jax_started_in: int | None = None  # the id of the process that JAX ran in at a fork


def _note_fork() -> None:
    global _jax_started_in
    bridge: Any = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        _jax_started_in = _jax_started_in or os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note_fork)


def local_devices() -> list[Any]:
    """Return the devices that JAX can use in this process.

    Raises:
        InputError: JAX has no device of the requested kind, or this process was forked
            after JAX had started and so lacks JAX's threads.
    """
    if _jax_started_in not in (None, os.getpid()):
        raise InputError(
            "this process was forked after JAX had started, so JAX would wait forever: "
            "start processes with multiprocessing.get_context('spawn')"
        )
    import jax

    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        # JAX raises AssertionError for some devices.
        asked = f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
        reason = " ".join(str(error).split()) or "no reason given"
        raise InputError(
            f"JAX finds no usable device for {asked} ({reason}): set "
            "JAX_PLATFORMS=cpu, or install the software that the device needs"
        ) from error
