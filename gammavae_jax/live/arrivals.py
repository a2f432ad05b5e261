"""Finds new recordings in a watched folder, and logs which have been scored.

The folder is polled, because network shares send no change notifications. A recording
is complete once its size and modification time have not changed for a while. If its
header does not state its final length yet, it is complete once the recorder has closed
the file, or after a longer time without changes.
"""

import contextlib
import glob
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from gammavae_jax.config_json import parse_json
from gammavae_jax.data.audio.header import lacks_samples
from gammavae_jax.data.audio.listing import Reason, list_recordings, status_of
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import (
    FolderInUse,
    FolderLock,
    open_regular,
    read_text,
    write_text,
)

_LINE_START = '{"file": "'
_KEPT_SECONDS = 30 * 24 * 3600
_ROUNDED_NS = 2_000_000_000  # some file systems store times in steps of two seconds
OPEN_SETTLES = 3  # settling times to wait if a header lacks the final length


class Stamp(NamedTuple):
    """Attributes that change when a file is replaced, written or moved between disks.

    The modification time is not enough: users can set it, and it stays the same on a
    recorder without a clock.
    """

    size: int  # bytes
    mtime_ns: int
    inode: int = 0
    ctime_ns: int = 0  # when its contents, name or permissions changed


class Arrival(NamedTuple):
    """A complete recording in the watched folder."""

    name: str  # path relative to the watched folder
    stamp: Stamp


class Scored(NamedTuple):
    """A scored recording."""

    stamp: Stamp
    time: float  # when it was scored, in seconds since 1970
    content: str = ""  # checksum of the file; empty if it was skipped


class Arrivals:
    """A poller that finds new, complete recordings in a folder and its subfolders."""

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
        self.left_out: dict[str, Reason] = {}  # at the last poll
        self.open_files: set[str] = set()  # seen open for writing

    @property
    def growing(self) -> list[str]:
        """The names of recordings that were incomplete at the last poll."""
        return sorted(self._waiting)

    def poll(self, is_known: Callable[[str, Stamp], bool]) -> list[Arrival]:
        """Return the new recordings that are complete, oldest first."""
        now, before = self._clock(), self._waiting
        self._waiting, complete = {}, []
        recordings, self.left_out = recordings_in(self._folder)
        for name, stamp in recordings.items():
            if is_known(name, stamp):
                continue
            old, since = before.get(name, (stamp, now))
            since = since if old == stamp else now
            if self._is_complete(name, now - since):
                complete.append(Arrival(name, stamp))
            else:
                self._waiting[name] = stamp, since
        self.open_files &= self._waiting.keys()
        return sorted(complete, key=lambda a: (a.stamp.mtime_ns, a.name))

    def _is_complete(self, name: str, unchanged_seconds: float) -> bool:
        path = self._folder / name
        if unchanged_seconds < self._settle_seconds:
            return False
        if not lacks_samples(path):
            return True
        if os.path.realpath(path) in _files_being_written():
            self.open_files.add(name)
            return False
        # If the file was open at an earlier poll, its recorder has closed it by now.
        is_long = unchanged_seconds >= OPEN_SETTLES * self._settle_seconds
        return is_long or name in self.open_files


def _files_being_written() -> set[str]:
    """Return the files that this user's processes have open for writing (on Linux)."""
    files = set()
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.lstat(link).st_mode & stat.S_IWUSR:
                files.add(os.readlink(link))
    return files


def recordings_in(folder: Path) -> tuple[dict[str, Stamp], dict[str, Reason]]:
    """Return a folder's recordings, and the files left out; see `list_recordings`."""
    listing = list_recordings(folder)
    recordings = {n: _stamp(status) for n, status in listing.recordings.items()}
    return recordings, listing.left_out


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file, or None if it does not exist."""
    status = status_of(path)
    return None if status is None else _stamp(status)


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


def content_of(path: Path) -> str:
    """Return a checksum of a file's contents; raise an InputError if that fails."""
    try:
        if not path.is_file():  # opening it for scoring raises an InputError
            return ""
        with open_regular(path) as file:
            return hashlib.file_digest(file, _checksum).hexdigest()
    except OSError as error:
        problem = f"{printable(path)} cannot be read ({error.strerror})"
        raise InputError(f"{problem}: replace the file") from error


def _checksum() -> Any:
    return hashlib.blake2b(digest_size=16)


class ScoredLog:
    """A JSON Lines file that lists the recordings that have been scored.

    A recording is identified by its name and stamp or, after it was moved, by its
    contents and modification time. Recordings that no longer exist are dropped 30 days
    after they were scored. Opening a file raises an InputError if the file is unusable,
    is in use by another watch, or is not such a log.
    """

    def __init__(self, path: Path):
        self.path = Path(os.path.realpath(path))
        # The file of `AlarmMemory`, protected by the same lock.
        self.alarms_path = self.path.parent / f"{self.path.name}.alarms.json"
        self._scored: dict[str, Scored] = {}
        self._file: IO[str] | None = None
        try:
            self.path.touch()
            # A lock on the log file itself would be lost when the file is rewritten.
            name = f"{self.path.name}.lock"
            self._lock = FolderLock(self.path.parent, name, stays=False)
            with contextlib.ExitStack() as stack:
                stack.push(self._lock)
                self._scored = _read(self.path)
                if not self._scored:  # a new log, so earlier alarms do not count
                    self.alarms_path.unlink(missing_ok=True)
                self._rewrite()
                stack.pop_all()
        except FolderInUse as error:
            remedy = "stop that watch, or choose another file with --state"
            message = f"{printable(path)} is in use by another watch: {remedy}"
            raise InputError(message) from error
        except OSError as error:
            problem = f"{printable(path)} cannot be used ({error.strerror})"
            remedy = "choose a writable file with --state"
            raise InputError(f"{problem}: {remedy}") from error

    def __enter__(self) -> "ScoredLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._lock.__exit__()

    def contains(self, name: str, stamp: Stamp) -> bool:
        """Return whether this version of a recording has been scored."""
        return name in self._scored and self._scored[name].stamp == stamp

    def moved_from(self, folder: Path, arrival: Arrival, content: str) -> str | None:
        """Return the name under which a recording was scored, or None if it is new.

        The same contents are not enough: a dead microphone may record the same silence
        again. The modification time must be the same as well, and the earlier name
        must belong to the same file, or no longer exist.
        """
        size, mtime_ns, inode, _ = arrival.stamp
        for name, (stamp, _, before) in self._scored.items():
            if stamp.size != size or abs(stamp.mtime_ns - mtime_ns) > _ROUNDED_NS:
                continue
            is_name = name == arrival.name
            is_file = stamp.inode == inode or (is_name and not stamp.inode)
            is_same = before == content if before else is_file
            if is_same and (is_name or is_file or stamp_of(folder / name) != stamp):
                return name
        return None

    def add(self, arrival: Arrival, content: str = "") -> None:
        """Log a scored recording, and remember it even if writing raises an OSError."""
        scored = Scored(arrival.stamp, time.time(), content)
        self._scored[arrival.name] = scored
        if self._file is None:
            self._rewrite()
            return
        try:
            self._file.write(_line(arrival.name, scored))
            self._file.flush()
        except OSError:
            # Otherwise, the buffered part of this line would precede the next one.
            self._close()
            raise

    def forget_gone(self, present: dict[str, Stamp]) -> None:
        """Drop the entries of recordings that were scored long ago and no longer exist.

        Nothing is dropped if no known recording is present, because then the network
        share is probably disconnected. Like `add`, this may raise an OSError.
        """
        if not present.keys() & self._scored.keys():
            return
        oldest = time.time() - _KEPT_SECONDS
        self._scored = {
            name: scored
            for name, scored in self._scored.items()
            if name in present or scored.time > oldest
        }
        self._rewrite()

    def _rewrite(self) -> None:
        """Rewrite the log file, and leave it open for appending."""
        self._close()
        write_text(self.path, "".join(_line(*of) for of in self._scored.items()))
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # from an earlier failed write
                file.close()


def _read(path: Path) -> dict[str, Scored]:
    """Return the logged recordings; skip unreadable lines, such as truncated ones."""
    scored = {}
    lines = read_text(path, errors="replace").split("\n")
    for number, line in enumerate(lines):
        try:
            entry = parse_json(line)
            more = (int(entry.get(field, 0)) for field in ("inode", "ctime_ns"))
            stamp = Stamp(int(entry["size"]), int(entry["mtime_ns"]), *more)
            content = str(entry.get("content", ""))
            scored[str(entry["file"])] = Scored(stamp, float(entry["time"]), content)
        except (ValueError, TypeError, KeyError) as error:
            if number == 0 and not (len(lines) == 1 and _is_truncated(line)):
                problem = f"{printable(path)} is not the state file of a watch"
                remedy = "choose another file with --state"
                raise InputError(f"{problem}: {remedy}") from error
    return scored


def _is_truncated(line: str) -> bool:
    """Return whether a line is the beginning of a valid log line."""
    return line[: len(_LINE_START)] == _LINE_START[: len(line)] and line[-1:] != "}"


def _line(name: str, scored: Scored) -> str:
    stamp, when, content = scored
    entry = {"file": name, **stamp._asdict(), "time": round(when, 3)}
    return json.dumps(entry | {"content": content}) + "\n"
