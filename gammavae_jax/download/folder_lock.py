"""One process at a time in a folder; the system ends the lock with its process."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gammavae_jax.errors import InputError, printable

LOCK_NAME = ".download-lock"

# Of file systems that know no locks: better without one than not at all.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if it is not there.

    The lock's file stays: to take it away would let two processes hold two files.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_NAME).open("ab")
    except OSError as error:
        raise InputError(
            f"{printable(folder)} cannot be written: {error.strerror}: name another "
            "--out"
        ) from error
    with file:
        if not _lock(file):
            raise InputError(
                f"{printable(folder)}: another process is loading into it: wait until "
                "it is done, or name another --out"
            )
        yield  # closing the file ends the lock


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
