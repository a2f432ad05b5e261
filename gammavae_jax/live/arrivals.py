"""Recordings that appear in a folder, once they are whole.

The folder is looked through again and again: a system's own messages about changed
files do not come from network shares, where recorders write to. A recording is whole
when its size and time have stayed the same for a while.
"""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.data.names import AUDIO_SUFFIXES


class Stamp(NamedTuple):
    """By what a file is known to be the same as before."""

    size: int  # bytes
    mtime_ns: int


class Arrival(NamedTuple):
    """A recording that is whole."""

    name: str  # with folders, from the one that is watched
    stamp: Stamp


class Arrivals:
    """What is new in a folder and its subfolders.

    Args:
        folder: to be watched.
        settle_seconds: how long a file must have stayed as it is.
        clock: seconds; for tests.
    """

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
        """Names of recordings that were not whole at the last look."""
        return sorted(self._waiting)

    def look(self, known: Callable[[str, Stamp], bool]) -> list[Arrival]:
        """The recordings that are whole and not known, the oldest first.

        Raises:
            OSError: the folder itself cannot be looked through.
        """
        now, before = self._clock(), self._waiting
        self._waiting, whole = {}, []
        for name, stamp in recordings_in(self._folder).items():
            if known(name, stamp):
                continue
            old, since = before.get(name, (stamp, now))
            since = since if old == stamp else now
            if now - since >= self._settle_seconds:
                whole.append(Arrival(name, stamp))
            else:
                self._waiting[name] = stamp, since
        return sorted(whole, key=lambda a: (a.stamp.mtime_ns, a.name))


def recordings_in(folder: Path) -> dict[str, Stamp]:
    """WAV and FLAC files in a folder and below, but for hidden ones.

    Links are followed. What cannot be looked at below the folder is left out.

    Raises:
        OSError: the folder itself cannot be looked through.
    """
    found: dict[str, Stamp] = {}
    seen, todo = set(), [""]
    while todo:
        prefix = todo.pop()
        try:
            names = os.listdir(folder / prefix)
        except OSError:
            if not prefix:
                raise
            continue  # gone meanwhile, or not for this user
        for name in names:
            status = None if name.startswith(".") else _status(folder / prefix / name)
            if status is None:
                continue
            identity = status.st_dev, status.st_ino
            if not stat.S_ISDIR(status.st_mode):
                if name.lower().endswith(AUDIO_SUFFIXES):
                    found[prefix + name] = Stamp(status.st_size, status.st_mtime_ns)
            elif identity not in seen:  # links can lead back
                seen.add(identity)
                todo.append(f"{prefix}{name}/")
    return found


def stamp_of(path: Path) -> Stamp | None:
    """None for a file that is not there."""
    status = _status(path)
    return None if status is None else Stamp(status.st_size, status.st_mtime_ns)


def _status(path: Path) -> os.stat_result | None:
    """None for what is gone meanwhile, and for a link to nowhere."""
    try:
        return os.stat(path)
    except OSError:
        return None
