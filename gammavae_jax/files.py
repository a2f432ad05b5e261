"""Atomic writes of files and folders, checksums, locks, and reading untrusted files.

A path does not always lead to a regular file: opening a named pipe waits for the
process at its other end, and reading a device may never end. Tests ensure that the
package opens files for reading only with the functions of this module.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

_UNFINISHED = re.compile(r"\..+-[0-9a-f]{32}")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_SYNC_THREADS = 8  # ten times as fast as syncing one file after another
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # missing on Windows, as are named pipes
PIPE_SECONDS = 60.0  # how long to wait for a process that reads a pipe


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write a UTF-8 text file with LF line endings; see `atomic_write`."""
    with atomic_write(path, durable) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces `path` if the block ends without an error.

    Args:
        path: the file; it is replaced if it exists. If it is a link, the link stays and
            its target is replaced. A device or a pipe is written to directly; see
            `open_pipe`.
        durable: wait a few milliseconds until the data is on disk, so that the file
            survives a power cut.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    path = _target(path)
    if path.exists() and not path.is_file():
        with open_pipe(path) as file:
            yield file
        return
    unfinished = unfinished_name(path)
    try:
        with unfinished.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
        if durable:
            _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """Return a link's target, which need not exist; return other paths unchanged."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def unfinished_name(path: Path) -> Path:
    """Return a unique hidden path next to `path`, for a file that is incomplete."""
    return path.with_name(f".{path.name}-{uuid.uuid4().hex}")


def is_unfinished(path: Path) -> bool:
    """Return whether the name of `path` comes from `unfinished_name`."""
    return _UNFINISHED.fullmatch(path.name) is not None


def remove(path: Path) -> None:
    """Remove a file, link or folder if it exists; folders are removed atomically.

    Raises:
        OSError: `path` cannot be removed.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = path if is_unfinished(path) else path.rename(unfinished_name(path))
    shutil.rmtree(doomed)


def require_room(folder: Path, n_bytes: int) -> None:
    """Raise the system's disk-full error if fewer than `n_bytes` bytes are free."""
    if shutil.disk_usage(folder).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def sync_folder(folder: Path) -> None:
    """Flush everything in a folder to disk before returning.

    Raises:
        OSError: a file could not be written.
    """
    with ThreadPoolExecutor(_SYNC_THREADS) as threads:
        list(threads.map(_sync, [*folder.rglob("*"), folder]))


def _sync(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # Windows cannot open folders
    file = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network shares cannot do this
            raise
    finally:
        os.close(file)


@contextlib.contextmanager
def atomic_folder(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` if the block ends without an error.

    If `path` is a link, the link stays and its target is replaced.

    Raises:
        OSError: the folder cannot be written, or exists and may not be overwritten.
    """
    path = _target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (unfinished_name(path) for _ in range(2))
    unfinished.mkdir()
    try:
        yield unfinished
        sync_folder(unfinished)
        if path.exists() and overwrite:
            os.replace(path, old)
        try:
            os.replace(unfinished, path)  # fails if the folder exists and is not empty
        except OSError as error:
            if overwrite or not path.exists():
                raise
            raise FileExistsError(errno.EEXIST, "it exists", str(path)) from error
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for folder in (unfinished, old):
            shutil.rmtree(folder, ignore_errors=True)


def file_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 checksum of each file below a folder, keyed by relative path.

    Raises:
        OSError: a file cannot be read.
    """

    def fail(error: OSError) -> None:  # by default, `os.walk` skips such a folder
        raise error

    checksums = {}
    walk = os.walk(folder, onerror=fail)
    paths = [Path(parent, name) for parent, _, names in walk for name in names]
    for path in sorted(filter(Path.is_file, paths)):
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256")
        checksums[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return checksums


def text_checksum(text: str) -> str:
    """Return the SHA-256 checksum of a string."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class FolderInUse(Exception):
    """The error for a folder that another process has locked."""


class FolderLock:
    """An exclusive lock on a folder, held until the end of a `with` statement.

    The system releases the lock when the process ends, even if it is killed. On a file
    system that does not support locks, the folder is not protected.

    Args:
        folder: the folder to lock; it is created if it is missing.
        name: the name of the lock file in the folder.
        stays: whether to keep the lock file after unlocking. Otherwise it is removed,
            and so are the folders that were created for it, if they are empty.

    Raises:
        FolderInUse: another process has locked the folder.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str, stays: bool):
        import filelock  # takes 0.1 s

        self._path, self._stays = folder / name, stays
        self._created = [f for f in (folder, *folder.parents) if not f.exists()]
        self._lock = filelock.FileLock(self._path)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # Try more than once: another process may be removing the lock file.
            self._lock.acquire(timeout=0.1, poll_interval=0.01)
        except filelock.Timeout as error:
            raise FolderInUse from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def __enter__(self) -> "FolderLock":
        """Return this lock; the constructor has already locked the folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the folder."""
        with contextlib.suppress(OSError):
            if not self._stays:
                self._path.unlink()  # before the release: nobody else can hold it
        self._lock.release()
        with contextlib.suppress(OSError):
            for folder in () if self._stays else self._created:
                folder.rmdir()


def open_regular(path: str | bytes | os.PathLike[str]) -> io.BufferedReader:
    """Open a file for reading bytes.

    Raises:
        OSError: the file cannot be opened, or is a folder, a pipe or a device.
    """
    return open(path, "rb", opener=_open_regular)


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file; raise an OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a UTF-8 file, with every line ending as LF.

    `errors` says how to handle bytes that are not UTF-8; by default, they raise a
    UnicodeDecodeError. For other errors, see `read_bytes`.
    """
    with io.TextIOWrapper(open_regular(path), "utf-8", errors) as file:
        return file.read()


def open_pipe(path: Path) -> io.BufferedWriter:
    """Open an existing pipe or device for writing bytes.

    Raises:
        OSError: it cannot be opened, or no process has read from the pipe for a minute.
    """
    return open(path, "wb", opener=_open_pipe)


def _open_regular(path: str | bytes | os.PathLike[str], flags: int) -> int:
    number = os.open(path, flags | _NONBLOCK)  # no effect on a regular file
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` refuses folders
        return number
    os.close(number)
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", path)


def _open_pipe(path: str | os.PathLike[str], flags: int) -> int:
    deadline = time.monotonic() + PIPE_SECONDS
    while True:
        try:
            number = os.open(path, flags | _NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # raised if there is no reader
                raise
        else:
            os.set_blocking(number, True)
            return number
        if time.monotonic() > deadline:
            raise OSError(errno.ENXIO, "no process reads this pipe", path)
        time.sleep(0.05)
