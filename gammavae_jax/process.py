"""Settings of the process that must be made before JAX and NumPy are imported."""

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
_MOST_PROGRAMS = 500  # a run keeps about five, of some 200 KB each
# Earlier ones print long errors whenever they load a program on many CPUs (JAX issue
# 38445), and crashes on macOS are reported of them.
_FIRST_SOUND_CACHE = (0, 10, 2)


def limit_blas_threads() -> None:
    """Keep BLAS to the thread that calls it: ours run side by side already.

    To be called before NumPy is imported; a limit that the user has set stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def give_cores_to_models(n_models: int) -> None:
    """With two runs or more, let each core of a CPU work on a run of its own.

    Small matrices gain little from a second thread, and much from none to wait for.
    Flags that the user has set stay; accelerators are not concerned. To be called
    before JAX is imported; does nothing after that.

    Args:
        n_models: machines times seeds.
    """
    if "jax" in sys.modules:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if min(n_models, available_cores()) > 1 and "multi_thread_eigen" not in flags:
        flags += " --xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = flags.strip()


def prepare(n_models: int) -> None:
    """All three settings, and JAX; see `limit_blas_threads`, `give_cores_to_models`.

    Compiled programs are kept: see `keep_compiled_programs`.
    """
    limit_blas_threads()
    give_cores_to_models(n_models)
    keep_compiled_programs()
    import_jax()


def import_jax() -> None:
    """Import JAX, while Ctrl-C and SIGTERM wait: within, they abort the process.

    Its extension modules do not expect an exception where they make their types.
    """
    with deferred_signals():
        import jax  # noqa: F401


def cache_folder() -> Path:
    """What `GAMMAVAE_CACHE_DIR` names, else a folder in the user's cache."""
    import pooch

    cache = os.environ.get("GAMMAVAE_CACHE_DIR") or pooch.os_cache("gammavae_jax")
    return Path(cache).expanduser()


def keep_compiled_programs() -> None:
    """Let JAX keep what it compiles for the next run, in our cache folder.

    JAX itself tells programs of other versions, flags and CPUs apart. A folder that
    the user has set in `JAX_COMPILATION_CACHE_DIR` stays; an empty one means none. To
    be called before JAX is imported; does nothing after that.
    """
    if "jax" in sys.modules:
        return
    if _CACHE_VARIABLE in os.environ:
        if not os.environ[_CACHE_VARIABLE]:
            del os.environ[_CACHE_VARIABLE]  # JAX would take it for a folder
        return
    if _release("jaxlib") < _FIRST_SOUND_CACHE:
        return
    folder = cache_folder() / "compiled"
    try:
        _make_private(folder)
        _remove_oldest(folder)
    except OSError as error:
        print(
            f"{str(folder)!r}: {error.strerror}: compiled programs are not kept; set "
            f"{_CACHE_VARIABLE} to a folder of your own, or to nothing",
            file=sys.stderr,
        )
        return
    os.environ[_CACHE_VARIABLE] = str(folder)
    os.environ.setdefault(_MIN_SECONDS_VARIABLE, "0.1")


def _release(package: str) -> tuple[int, ...]:
    from importlib.metadata import version

    return tuple(int(n) for n in version(package).split(".")[:3] if n.isdecimal())


def _make_private(folder: Path) -> None:
    """Make a folder that this user alone may write: what is in it will be run.

    Raises:
        OSError: it cannot be made or written, or is open to others.
    """
    import tempfile

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    status = folder.stat()
    is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not is_own or (os.name == "posix" and status.st_mode & 0o022):
        raise PermissionError(None, "others may write to it")


def _remove_oldest(folder: Path) -> None:
    """Keep the programs that were compiled last."""
    programs = sorted(folder.glob("*-cache"), key=lambda path: path.stat().st_mtime)
    for path in programs[:-_MOST_PROGRAMS]:
        path.unlink(missing_ok=True)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def models_in_checkpoint(folder: Path) -> int:
    """Models of the detector in a checkpoint folder; 1 if unreadable.

    Of a fleet in waves, which has many, it is 2.
    """
    if (folder / "fleet.json").is_file():
        return 2
    try:
        about = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
        config = about["config"]
        folds = config["train"]["n_folds"] if config["train"]["split"] == "folds" else 1
        return len(about["machines"]) * int(config["n_seeds"]) * int(folds)
    except (OSError, ValueError, KeyError, TypeError):
        return 1


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
def deferred_signals() -> Iterator[None]:
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
