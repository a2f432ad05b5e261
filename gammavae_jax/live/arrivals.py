"""Finds new recordings in a watched folder.

The folder is polled, because network shares send no change notifications. A recording
is complete once its size and modification time have not changed for a while. If its
header does not state its final length yet, it is complete once the recorder has closed
the file, or after a longer time without changes.
"""

import contextlib
import glob
import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gammavae_jax.data.audio.header import lacks_samples
from gammavae_jax.data.audio.listing import Reason, list_recordings, status_of
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import open_regular

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


class Arrivals:
    """Finds new, complete recordings in a folder and its subfolders by polling."""

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
