"""One process at a time loads into a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import FolderInUse, FolderLock

LOCK_NAME = ".download-lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if it is not there; the lock's file stays.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    try:
        lock = FolderLock(folder, LOCK_NAME, stays=True)
    except FolderInUse as error:
        raise InputError(
            f"{printable(folder)}: another process is loading into it: wait until "
            "it is done, or name another --out"
        ) from error
    except OSError as error:
        raise InputError(
            f"{printable(folder)} cannot be written: {error.strerror}: name another "
            "--out"
        ) from error
    with lock:
        yield
