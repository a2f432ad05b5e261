"""One process at a time in a folder; the system ends the lock with its process."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# Of file systems that know no locks: better without one than not at all.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


class FolderInUse(Exception):
    """Another process holds the folder."""


class FolderLock:
    """A folder that is held until the end of a `with` statement.

    It is made if it is not there.

    Args:
        folder: to be held.
        name: of the lock's file, in the folder.
        stays: whether that file is left there in the end. If not, it goes, and so do
            the folders that were made for it, where nothing else is in them.

    Raises:
        FolderInUse: another process holds it.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, name: str, stays: bool):
        self._stays = stays
        self._path = folder / name
        self._made = [f for f in (folder, *folder.parents) if not f.exists()]
        self._file = _held(self._path)

    def __enter__(self) -> "FolderLock":
        """Hold it already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        is_open = os.name == "posix"  # elsewhere open files cannot be removed
        if not is_open:
            self._file.close()
        if not self._stays:
            # While it is held: whoever has opened it sees that it is gone.
            with suppress(OSError):
                self._path.unlink()
                for folder in self._made:
                    folder.rmdir()
        self._file.close()


def _held(path: Path) -> BinaryIO:
    """The lock's file, open and ours."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # its holder is just removing it
            file = path.open("ab")
            if not _lock(file):
                file.close()
                raise FolderInUse
            if _is_there(file, path):
                return file
            file.close()


def _is_there(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO) -> bool:
    """Whether the file is ours now, without waiting."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True
