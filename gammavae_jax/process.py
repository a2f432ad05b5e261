"""Sets up threads and caches before JAX is imported and handles signals."""

import atexit
import contextlib
import gc
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gammavae_jax.errors import InputError

_CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_MIN_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_OBJECTS_BEFORE_COLLECTING = 50_000  # Python's default is 700
_MAX_PROGRAMS = 500  # a run adds about five, of some 200 KB each
# On many CPUs, older releases of jaxlib print long errors whenever they load a cached
# program (JAX issue 38445), and crashes on macOS have been reported.
_FIRST_SOUND_CACHE = "0.10.2"


def limit_blas_threads() -> None:
    """Limit BLAS to one thread, because our own threads already use every core.

    Call it before NumPy is imported. A limit that the user has set is kept.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def give_cores_to_models(n_models: int) -> None:
    """If there are several models, give each one XLA thread instead of all cores.

    A second thread hardly speeds up small matrices, and synchronising costs time.
    Call it before JAX is imported; afterwards it has no effect. Accelerators are not
    affected, and flags that the user has set are kept.

    Args:
        n_models: the number of machines times the number of seeds.
    """
    if "jax" in sys.modules:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if min(n_models, available_cores()) > 1 and "multi_thread_eigen" not in flags:
        flags += " --xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = flags.strip()


def collect_garbage_less_often() -> None:
    """Collect garbage less often, and not at all when the process ends.

    Otherwise, garbage collection takes a quarter of the CPU time of a short command,
    because JAX creates many objects when it is imported.
    """
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTING, 10, 10)
    atexit.register(gc.freeze)


def import_jax() -> None:
    """Import JAX and defer Ctrl-C and SIGTERM until the import is complete.

    An exception raised inside JAX's extension modules would abort the process.
    """
    with deferred_signals():
        import jax  # noqa: F401


def cache_folder() -> Path:
    """Return the cache folder: `GAMMAVAE_CACHE_DIR`, or else one in the user's cache.

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

    JAX does not reuse them for other versions, flags or CPUs. If the user has set
    `JAX_COMPILATION_CACHE_DIR`, that folder is used; an empty value disables the cache.
    Call it before JAX is imported; afterwards it does nothing.
    """
    from importlib import metadata

    from packaging.version import Version

    if "jax" in sys.modules:
        return
    if _CACHE_VARIABLE in os.environ:
        if not os.environ[_CACHE_VARIABLE]:
            del os.environ[_CACHE_VARIABLE]  # JAX would take the empty value as a path
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


# Sent when the terminal or the ssh session is closed; Windows has no such signal.
HANGUP = tuple(filter(None, [getattr(signal, "SIGHUP", None)]))
_TERMINATION = (signal.SIGTERM, *HANGUP)
_SIGNALS = (signal.SIGINT, *_TERMINATION)
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2


class Terminated(KeyboardInterrupt):
    """The exception for SIGTERM and SIGHUP, so that commands clean up as on Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__()
        self.number = number


class Stop:
    """The first signal that has arrived, if any."""

    first: signal.Signals | None = None

    @property
    def signal_name(self) -> str:
        """The name of the first signal, or "" if none has arrived."""
        return self.first.name if self.first else ""

    def deliver(self) -> None:
        """Raise the first signal again, if one has arrived."""
        if self.first:
            signal.raise_signal(self.first)


@contextmanager
def raising_on_termination() -> Iterator[None]:
    """Raise `Terminated` in the block on SIGTERM or SIGHUP, unless they are ignored."""

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
    """Defer the first signal, so that the block can check for it.

    A second signal ends the block.

    Args:
        message: a line to print on standard error when the first signal arrives.
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
    """Return the exception to raise here if another process received this signal."""
    number = signal.Signals[signal_name]
    return Terminated(number) if number in _TERMINATION else KeyboardInterrupt()


def exit_status(end: KeyboardInterrupt) -> int:
    """Return the exit status for the signal, as in shells: 128 plus its number."""
    return 128 + (end.number if isinstance(end, Terminated) else signal.SIGINT)


@contextmanager
def handled(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], None]
) -> Iterator[dict[int, Any]]:
    """Install a signal handler for the block and yield the previous handlers.

    Outside the main thread, this does nothing. Ignored signals stay ignored.
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


def open_closed_streams() -> None:
    """Discard what is written to standard streams that were closed at the start.

    Otherwise, printing would fail, or the next file to be opened would get the file
    descriptor of a closed stream, and the output of libraries would end up in it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, mode, encoding="utf-8"))


def drop_output() -> None:
    """Discard further output, which Python would otherwise try to write at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _drop_lost_terminal() -> None:
    """Discard further output to a closed terminal, because writing to it would fail."""
    for number in (_STANDARD_OUTPUT, _STANDARD_ERROR):
        with contextlib.suppress(OSError):
            is_device = stat.S_ISCHR(os.fstat(number).st_mode)
            if is_device and not os.isatty(number):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
