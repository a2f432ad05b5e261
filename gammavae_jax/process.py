"""Sets up threads, caches and devices of the process before JAX computes anything."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from gammavae_jax.errors import InputError
from gammavae_jax.interruption import deferred_signals

_CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_MIN_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_MAX_PROGRAMS = 500  # a run adds about five, of some 200 KB each
# On many CPUs, older releases of jaxlib print long errors whenever they load a program
# (JAX issue 38445), and crashes on macOS have been reported.
_FIRST_SOUND_CACHE = "0.10.2"


def limit_blas_threads() -> None:
    """Limit BLAS to one thread, because our own threads already use every core.

    Call it before NumPy is imported. A limit set by the user stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def give_cores_to_models(n_models: int) -> None:
    """Use one XLA thread per model instead of all cores, if there are several models.

    A second thread hardly speeds up small matrices, and synchronising costs time.
    Call it before JAX is imported; afterwards it has no effect. Accelerators are not
    affected, and flags set by the user stay.

    Args:
        n_models: the number of machines times the number of seeds.
    """
    if "jax" in sys.modules:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if min(n_models, available_cores()) > 1 and "multi_thread_eigen" not in flags:
        flags += " --xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = flags.strip()


def prepare(n_models: int, in_cluster: bool = False) -> None:
    """Configure threads and the compilation cache, then import JAX.

    Raises:
        InputError: see `local_devices`, which a cluster calls after it has been joined.
    """
    limit_blas_threads()
    give_cores_to_models(n_models)
    keep_compiled_programs()
    import_jax()
    if not in_cluster:
        local_devices()


def import_jax() -> None:
    """Import JAX, and defer Ctrl-C and SIGTERM until the import is complete.

    An exception raised inside its extension modules would abort the process.
    """
    with deferred_signals():
        import jax  # noqa: F401


_jax_started_in: int | None = None  # the id of the process, set at a fork


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
    except (RuntimeError, AssertionError) as error:  # AssertionError: some devices
        asked = f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
        reason = " ".join(str(error).split()) or "there is none"
        raise InputError(
            f"JAX cannot use a device of {asked} ({reason}): set it to cpu, or install "
            "what the device needs"
        ) from error


def cache_folder() -> Path:
    """Return `GAMMAVAE_CACHE_DIR`, or by default a folder in the user's cache.

    Raises:
        InputError: this user has no home folder.
    """
    import pooch

    try:
        cache = os.environ.get("GAMMAVAE_CACHE_DIR") or pooch.os_cache("gammavae_jax")
        return Path(cache).expanduser()
    except RuntimeError as error:
        raise InputError(
            "this user has no home folder for caches: set HOME or GAMMAVAE_CACHE_DIR"
        ) from error


def keep_compiled_programs() -> None:
    """Make JAX keep compiled programs in our cache folder for later processes.

    JAX itself distinguishes versions, flags and CPUs. If the user has set
    `JAX_COMPILATION_CACHE_DIR`, that folder is used; an empty value disables the cache.
    Call it before JAX is imported; afterwards it does nothing.
    """
    from importlib import metadata

    from packaging.version import Version

    if "jax" in sys.modules:
        return
    if _CACHE_VARIABLE in os.environ:
        if not os.environ[_CACHE_VARIABLE]:
            del os.environ[_CACHE_VARIABLE]  # JAX would use it as a path
        return
    if Version(metadata.version("jaxlib")) < Version(_FIRST_SOUND_CACHE):
        return
    try:
        folder = cache_folder() / "compiled"
    except InputError as error:
        print(f"compiled programs are not cached: {error}", file=sys.stderr)
        return
    try:
        _make_private(folder)
        _remove_oldest(folder)
    except OSError as error:
        remedy = f"set {_CACHE_VARIABLE} to a folder of your own, or to an empty value"
        problem = f"cannot cache compiled programs in {str(folder)!r}"
        print(f"{problem} ({error.strerror}): {remedy}", file=sys.stderr)
        return
    os.environ[_CACHE_VARIABLE] = str(folder)
    os.environ.setdefault(_MIN_SECONDS_VARIABLE, "0.1")


def _make_private(folder: Path) -> None:
    """Create a folder that only this user may write to, or raise an OSError."""
    import tempfile

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    status = folder.stat()
    # Anyone who may write to this folder can run code as this user.
    is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not is_own or (os.name == "posix" and status.st_mode & 0o022):
        raise PermissionError(None, "other users may write to it")


def _remove_oldest(folder: Path) -> None:
    """Remove the oldest compiled programs until `_MAX_PROGRAMS` are left."""
    programs = sorted(folder.glob("*-cache"), key=lambda path: path.stat().st_mtime)
    for path in programs[:-_MAX_PROGRAMS]:
        path.unlink(missing_ok=True)


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def models_in_checkpoint(folder: Path) -> int:
    """Count a checkpoint's models; return 1 if it is unreadable, 2 for any fleet."""
    if (folder / "fleet.json").is_file():
        return 2
    try:
        about = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
        config = about["config"]
        folds = config["train"]["n_folds"] if config["train"]["split"] == "folds" else 1
        return len(about["machines"]) * int(config["n_seeds"]) * int(folds)
    except (OSError, ValueError, KeyError, TypeError):
        return 1
