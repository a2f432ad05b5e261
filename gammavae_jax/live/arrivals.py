"""Finds new recordings in a watched folder, and logs which have been scored.

The folder is polled, because network shares send no change notifications. A recording
is complete once its size and modification time have not changed for a while.
"""

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from gammavae_jax.data.names import AUDIO_SUFFIXES
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import write_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LINE_START = '{"file": "'
_KEPT_SECONDS = 30 * 24 * 3600


class Stamp(NamedTuple):
    """The size and time that identify one version of a file."""

    size: int  # bytes
    mtime_ns: int


class Arrival(NamedTuple):
    """A complete recording in the watched folder."""

    name: str  # path relative to the watched folder
    stamp: Stamp


class Arrivals:
    """A finder of complete new recordings in a folder and its subfolders."""

    def __init__(
        self,
        folder: Path,
        settle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._folder = folder
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._waiting: dict[str, tuple[Stamp, float]] = {}

    @property
    def growing(self) -> list[str]:
        """The names of recordings that were incomplete at the last poll."""
        return sorted(self._waiting)

    def poll(self, is_known: Callable[[str, Stamp], bool]) -> list[Arrival]:
        """Return the new recordings that are complete, oldest first."""
        now, before = self._clock(), self._waiting
        self._waiting, complete = {}, []
        for name, stamp in recordings_in(self._folder).items():
            if is_known(name, stamp):
                continue
            old, since = before.get(name, (stamp, now))
            since = since if old == stamp else now
            if now - since >= self._settle_seconds:
                complete.append(Arrival(name, stamp))
            else:
                self._waiting[name] = stamp, since
        return sorted(complete, key=lambda a: (a.stamp.mtime_ns, a.name))


def recordings_in(folder: Path) -> dict[str, Stamp]:
    """Find the WAV and FLAC files in a folder and its subfolders, with their stamps.

    Links are followed; hidden files and unreadable subfolders are left out. An OSError
    is raised if the folder itself cannot be listed.
    """
    recordings: dict[str, Stamp] = {}
    seen, todo = set(), [""]
    while todo:
        prefix = todo.pop()
        try:
            names = os.listdir(folder / prefix)
        except OSError:
            if not prefix:
                raise
            continue
        for name in names:
            status = None if name.startswith(".") else _status(folder / prefix / name)
            if status is None:
                continue
            identity = status.st_dev, status.st_ino
            if not stat.S_ISDIR(status.st_mode):
                if name.lower().endswith(AUDIO_SUFFIXES):
                    stamp = Stamp(status.st_size, status.st_mtime_ns)
                    recordings[prefix + name] = stamp
            elif identity not in seen:  # a link may lead back to a parent
                seen.add(identity)
                todo.append(f"{prefix}{name}/")
    return recordings


def stamp_of(path: Path) -> Stamp | None:
    """Return a file's stamp, or None if it does not exist."""
    status = _status(path)
    return None if status is None else Stamp(status.st_size, status.st_mtime_ns)


def _status(path: Path) -> os.stat_result | None:
    """Return a file's status; None if it no longer exists or is a dangling link."""
    try:
        return os.stat(path)
    except OSError:
        return None


class ScoredLog:
    """A JSON Lines file of the recordings that have been scored.

    A recording is identified by name, size and modification time, so a rewritten file
    is new. Recordings that no longer exist are dropped 30 days after they were scored.
    A file that cannot be used, is in use or is no such log raises an InputError.
    """

    def __init__(self, path: Path):
        self._path = path
        self._scored: dict[str, tuple[Stamp, float]] = {}
        self._file: IO[str] | None = None
        try:
            path.touch()
            self._scored = _read(path)
            self._rewrite()
        except OSError as error:
            problem = f"{printable(path)} cannot be used ({error.strerror})"
            remedy = "pass --state with a file that this user may write"
            raise InputError(f"{problem}: {remedy}") from error

    def __enter__(self) -> "ScoredLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def contains(self, name: str, stamp: Stamp) -> bool:
        """Return whether this version of a recording has been scored."""
        return name in self._scored and self._scored[name][0] == stamp

    def add(self, arrival: Arrival) -> None:
        """Log a recording as scored, only in memory if writing raises an OSError."""
        now = time.time()
        self._scored[arrival.name] = arrival.stamp, now
        if self._file is None:
            self._rewrite()
            return
        try:
            self._file.write(_line(*arrival, now))
            self._file.flush()
        except OSError:
            # The buffered part of the line would precede the next line.
            self._close()
            raise

    def forget_gone(self, present: dict[str, Stamp]) -> None:
        """Drop recordings that were scored long ago and no longer exist.

        Nothing is dropped if no known recording is present, because the network share
        is probably disconnected then. Raises an OSError as `add` does.
        """
        if not present.keys() & self._scored.keys():
            return
        oldest = time.time() - _KEPT_SECONDS
        self._scored = {
            name: (stamp, when)
            for name, (stamp, when) in self._scored.items()
            if name in present or when > oldest
        }
        self._rewrite()

    def _rewrite(self) -> None:
        """Rewrite the file, and lock the new one."""
        self._close()
        with _locked(self._path):
            lines = [_line(n, s, when) for n, (s, when) in self._scored.items()]
            write_text(self._path, "".join(lines))
            self._file = _locked(self._path)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # of lines that cannot be written
                file.close()


def _locked(path: Path) -> IO[str]:
    """Open a file for appending, and lock it against other watches."""
    file = path.open("a", encoding="utf-8", newline="")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            remedy = "stop that watch, or choose another file with --state"
            message = f"{printable(path)} is in use by another watch: {remedy}"
            raise InputError(message) from error
        except OSError:  # the file system has no locks
            pass
    return file


def _read(path: Path) -> dict[str, tuple[Stamp, float]]:
    """Read the logged recordings; skip truncated lines."""
    scored = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            stamp = Stamp(int(entry["size"]), int(entry["mtime_ns"]))
            scored[str(entry["file"])] = stamp, float(entry["time"])
        except (ValueError, TypeError, KeyError) as error:
            if number == 0 and not (len(lines) == 1 and _is_truncated(line)):
                problem = f"{printable(path)} is not the state file of a watch"
                remedy = "choose another file with --state"
                raise InputError(f"{problem}: {remedy}") from error
    return scored


def _is_truncated(line: str) -> bool:
    """Return whether a line is the beginning of a valid log line."""
    return line[: len(_LINE_START)] == _LINE_START[: len(line)] and line[-1:] != "}"


def _line(name: str, stamp: Stamp, when: float) -> str:
    entry = {"file": name, **stamp._asdict(), "time": round(when, 3)}
    return json.dumps(entry) + "\n"
