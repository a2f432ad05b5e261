"""Atomic writes of files and folders, checksums, locks, and write errors."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from gammavae_jax.errors import InputError
from gammavae_jax.untrusted_files import open_pipe, open_regular

_UNFINISHED = re.compile(r"\..+-[0-9a-f]{32}")
_FULL = (errno.ENOSPC, errno.EDQUOT)  # no space left, quota exceeded
_DENIED = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
_WRITE_ERRORS = (*_FULL, errno.EFBIG, errno.EROFS, *_DENIED, errno.EIO)
_DAMAGE = (errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_MAX_REASON = 200  # characters
_SYNC_THREADS = 8  # ten times as fast as syncing one file after another


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


def as_os_error(error: Exception, path: Path) -> OSError:
    """Convert a library's exception about `path` to an OSError."""
    if isinstance(error, OSError) and error.strerror:
        return error
    message = str(error)  # libraries often quote the system's error text
    for number in _WRITE_ERRORS:
        if os.strerror(number) in message:
            return OSError(number, os.strerror(number), str(path))
    return OSError(errno.EIO, " ".join(message.split())[:_MAX_REASON], str(path))


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


@contextlib.contextmanager
def writing(out: Path, resumable: bool = False) -> Iterator[None]:
    """Convert an OSError raised in the block to an InputError.

    Args:
        out: the file or folder that the block writes.
        resumable: whether `--resume` could continue the run that failed.

    Raises:
        InputError: `out` cannot be written; the message states a reason and a remedy.
    """
    try:
        yield
    except BrokenPipeError:  # from printing, not from writing files
        raise
    except OSError as error:
        raise unwritable(error, out, resumable) from error


def is_damage(error: OSError) -> bool:
    """Return whether a missing or damaged file, not denied access, caused an error."""
    return error.errno in _DAMAGE


def is_full(error: OSError) -> bool:
    """Return whether a full disk or an exhausted quota caused an error."""
    return error.errno in _FULL


def unusable(error: OSError) -> InputError:
    """Return the error for a file that cannot be read or written."""
    if error.errno in (*_FULL, errno.EROFS):
        return unwritable(error)
    return _refusal("used", error, "check that this process may read and write it")


def unwritable(
    error: OSError, path: str | Path | None = None, resumable: bool = False
) -> InputError:
    """Return the error for a path that cannot be written.

    If `path` is None, the error names the path that is stored in `error`.
    """
    remedy = "choose another path for --out"
    if error.errno in _FULL:
        hint = " (--resume then continues the run)" if resumable else ""
        remedy = f"make room{hint}, or {remedy}"
    return _refusal("written", error, remedy, path)


def _refusal(
    verb: str, error: OSError, remedy: str, path: str | Path | None = None
) -> InputError:
    name, reason = str(path or error.filename or "a file"), error.strerror or error
    return InputError(f"{name!r} cannot be {verb} ({reason}): {remedy}")


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
            # Try more than once: another process may just be removing the lock file.
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
