"""Process-wide setup: threads, caches and signal handling."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_MIN_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_MAX_PROGRAMS = 500  # a run adds about five, of some 200 KB each
# On many CPUs, older releases print long errors whenever they load a program (JAX issue
# 38445), and crashes on macOS have been reported.
_FIRST_SOUND_CACHE = "0.10.2"  # of jaxlib


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


def prepare(n_models: int) -> None:
    """Configure threads and the compilation cache, then import JAX."""
    limit_blas_threads()
    give_cores_to_models(n_models)
    keep_compiled_programs()
    import_jax()


def import_jax() -> None:
    """Import JAX, and defer Ctrl-C and SIGTERM until the import is complete.

    An exception raised inside its extension modules would abort the process.
    """
    with deferred_signals():
        import jax  # noqa: F401


def cache_folder() -> Path:
    """Return `GAMMAVAE_CACHE_DIR`, or by default a folder in the user's cache."""
    import pooch

    cache = os.environ.get("GAMMAVAE_CACHE_DIR") or pooch.os_cache("gammavae_jax")
    return Path(cache).expanduser()


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
    folder = cache_folder() / "compiled"
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
    # Whoever may write to it can run code as this user.
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
    """Count the models in a checkpoint; return 1 if unreadable, 2 for any fleet."""
    if (folder / "fleet.json").is_file():
        return 2
    try:
        about = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
        config = about["config"]
        folds = config["train"]["n_folds"] if config["train"]["split"] == "folds" else 1
        return len(about["machines"]) * int(config["n_seeds"]) * int(folds)
    except (OSError, ValueError, KeyError, TypeError):
        return 1


LONG_WAIT_S = 600.0


@contextmanager
def waiting_for(what: str, remedy: str) -> Iterator[Callable[[], None]]:
    """Print a line on standard error for every ten minutes that the block waits.

    For waits that may rightly take long, but might never end. The yielded function
    starts the ten minutes again.
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


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STANDARD_ERROR = 2


class Terminated(KeyboardInterrupt):
    """An exception raised on SIGTERM, so that cleanup runs as it does after Ctrl-C."""


class Stop:
    """The first signal that arrived, if any."""

    first: signal.Signals | None = None

    @property
    def signal_name(self) -> str:
        """The first signal's name; "" if none arrived."""
        return self.first.name if self.first else ""

    def deliver(self) -> None:
        """Raise the first signal again, if any."""
        if self.first:
            signal.raise_signal(self.first)


@contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` if SIGTERM arrives in the block, unless SIGTERM is ignored."""

    def terminate(*_: Any) -> None:
        raise Terminated

    with _handled((signal.SIGTERM,), terminate):
        yield


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM until the block ends.

    Interrupting a write or a compilation can print pages of warnings, or crash the
    interpreter.
    """
    stop = Stop()

    def defer(number: int, _: Any) -> None:
        stop.first = stop.first or signal.Signals(number)

    with _handled(_SIGNALS, defer):
        yield
    stop.deliver()


@contextmanager
def stoppable(message: str) -> Iterator[Stop]:
    """Record the first signal for the block to query; a second signal ends the block.

    Args:
        message: the line printed on standard error when the first signal arrives.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        if stop.first is not None:
            signal.signal(number, before[number])
            signal.raise_signal(number)
            return
        stop.first = signal.Signals(number)
        # Not `print`: the signal may have interrupted one.
        os.write(_STANDARD_ERROR, f"{message}\n".encode())

    with _handled(_SIGNALS, note) as previous:
        before.update(previous)
        yield stop
    stop.deliver()


def end_of(signal_name: str) -> KeyboardInterrupt:
    """Return the exception for a signal that another process received."""
    return Terminated() if signal_name == "SIGTERM" else KeyboardInterrupt()


def exit_status(end: KeyboardInterrupt) -> int:
    """Return the exit status that a shell uses for this signal."""
    number = signal.SIGTERM if isinstance(end, Terminated) else signal.SIGINT
    return 128 + number


@contextmanager
def _handled(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], None]
) -> Iterator[dict[int, Any]]:
    """Install a signal handler for the block, and yield the previous handlers.

    It does nothing outside the main thread. Ignored signals stay ignored.
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
