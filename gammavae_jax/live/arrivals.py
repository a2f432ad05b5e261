"""New recordings in a watched folder, and the log of those already scored.

The folder is polled, because network shares send no change notifications. A recording
is complete once its size and modification time have not changed for a while. If its
header has no length yet, its recorder must also have closed it, or the while is longer.
"""

import contextlib
import glob
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from gammavae_jax.data.audio_header import lacks_samples
from gammavae_jax.data.names import AUDIO_SUFFIXES
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import FolderInUse, FolderLock, write_text

_LINE_START = '{"file": "'
_KEPT_SECONDS = 30 * 24 * 3600
OPEN_SETTLES = 3  # times as long must a file be unchanged whose header has no length


class Stamp(NamedTuple):
    """Identifies one version of a file."""

    size: int  # bytes
    mtime_ns: int


class Arrival(NamedTuple):
    """A complete recording."""

    name: str  # path relative to the watched folder
    stamp: Stamp


class Arrivals:
    """Finds complete new recordings in a folder and its subfolders."""

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
        self.held: set[str] = set()  # a process was seen to write to these

    @property
    def growing(self) -> list[str]:
        """Names of the recordings that were incomplete at the last poll."""
        return sorted(self._waiting)

    def poll(self, is_known: Callable[[str, Stamp], bool]) -> list[Arrival]:
        """Return the complete recordings that are not known yet, oldest first."""
        now, before = self._clock(), self._waiting
        self._waiting, complete = {}, []
        for name, stamp in recordings_in(self._folder).items():
            if is_known(name, stamp):
                continue
            old, since = before.get(name, (stamp, now))
            since = since if old == stamp else now
            if self._is_complete(name, now - since):
                complete.append(Arrival(name, stamp))
            else:
                self._waiting[name] = stamp, since
        self.held &= self._waiting.keys()
        return sorted(complete, key=lambda a: (a.stamp.mtime_ns, a.name))

    def _is_complete(self, name: str, unchanged_seconds: float) -> bool:
        path = self._folder / name
        if unchanged_seconds < self._settle_seconds:
            return False
        if not lacks_samples(path):
            return True
        if os.path.realpath(path) in _files_being_written():
            self.held.add(name)
            return False
        # If its recorder was seen before, it has closed the file.
        is_long = unchanged_seconds >= OPEN_SETTLES * self._settle_seconds
        return is_long or name in self.held


def _files_being_written() -> set[str]:
    """Return the files that this user's processes have open for writing, on Linux."""
    files = set()
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.lstat(link).st_mode & stat.S_IWUSR:
                files.add(os.readlink(link))
    return files


def recordings_in(folder: Path) -> dict[str, Stamp]:
    """Return the WAV and FLAC files in a folder and its subfolders.

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
    """Return the stamp of a file, or None if it does not exist."""
    status = _status(path)
    return None if status is None else Stamp(status.st_size, status.st_mtime_ns)


def _status(path: Path) -> os.stat_result | None:
    """Return None for a file that has just been removed, and for a dangling link."""
    try:
        return os.stat(path)
    except OSError:
        return None


class ScoredLog:
    """A JSON Lines file of the recordings that have been scored.

    A recording is identified by name, size and modification time, so a rewritten file
    is new. Recordings that no longer exist are dropped 30 days after they were scored.
    A file that is unusable, in use, or not such a log, is an InputError.
    """

    def __init__(self, path: Path):
        self._path = Path(os.path.realpath(path))
        self._scored: dict[str, tuple[Stamp, float]] = {}
        self._file: IO[str] | None = None
        try:
            self._path.touch()
            # The log itself is replaced, so a lock on it could be a lock on its past.
            name = f"{self._path.name}.lock"
            self._lock = FolderLock(self._path.parent, name, stays=False)
            with contextlib.ExitStack() as stack:
                stack.push(self._lock)
                self._scored = _read(self._path)
                self._rewrite()
                stack.pop_all()
        except FolderInUse as error:
            remedy = "stop that one, or name another file with --state"
            message = f"{printable(path)}: another watch is using it: {remedy}"
            raise InputError(message) from error
        except OSError as error:
            problem = f"{printable(path)}: {error.strerror}"
            remedy = "name a file that this user may write with --state"
            raise InputError(f"{problem}: {remedy}") from error

    def __enter__(self) -> "ScoredLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._lock.__exit__()

    def contains(self, name: str, stamp: Stamp) -> bool:
        """Return whether this version of a recording has been scored."""
        return name in self._scored and self._scored[name][0] == stamp

    def add(self, arrival: Arrival) -> None:
        """Log a scored recording; in memory only, if writing raises an OSError."""
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
        """Drop the recordings that were scored long ago and no longer exist.

        Nothing is dropped if no known recording is present: then it is more likely that
        the network share is away. Raises an OSError as `add` does.
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
        """Replace the file."""
        self._close()
        lines = [_line(n, s, when) for n, (s, when) in self._scored.items()]
        write_text(self._path, "".join(lines))
        self._file = self._path.open("a", encoding="utf-8", newline="")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # of lines that cannot be written
                file.close()


def _read(path: Path) -> dict[str, tuple[Stamp, float]]:
    """Return the logged recordings, without truncated lines."""
    scored = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            stamp = Stamp(int(entry["size"]), int(entry["mtime_ns"]))
            scored[str(entry["file"])] = stamp, float(entry["time"])
        except (ValueError, TypeError, KeyError) as error:
            if number == 0 and not (len(lines) == 1 and _is_truncated(line)):
                remedy = "is not the state of a watch: name another file with --state"
                raise InputError(f"{printable(path)} {remedy}") from error
    return scored


def _is_truncated(line: str) -> bool:
    """Return whether the line is the beginning of a log's line."""
    return line[: len(_LINE_START)] == _LINE_START[: len(line)] and line[-1:] != "}"


def _line(name: str, stamp: Stamp, when: float) -> str:
    entry = {"file": name, **stamp._asdict(), "time": round(when, 3)}
    return json.dumps(entry) + "\n"
