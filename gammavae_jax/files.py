"""Files and folders that are whole or not there."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gammavae_jax.errors import InputError

# What a process that was killed may have left of a file or folder.
_UNFINISHED = re.compile(r"\..+-[0-9a-f]{32}")
# Libraries put the system's words for these into errors of their own.
_FAILURES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
)
_LONGEST = 200  # characters of an error that is none of these
_SYNCED_AT_ONCE = 8  # a disk takes them together: a tenth of the time one by one


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write UTF-8 text with LF line ends; a reader never sees half of it.

    Args:
        path: of the file.
        text: all of it.
        durable: wait until the disk has it, some milliseconds, so that it is whole
            also after a power cut.

    Raises:
        OSError: the folder is missing, full or cannot be written.
    """
    with atomic_write(path, durable) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to be filled, which takes its name when the block ends without an error.

    Args:
        path: of the file.
        durable: see `write_text`.

    Raises:
        OSError: the folder is missing, full or cannot be written.
    """
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


def unfinished_name(path: Path) -> Path:
    """A hidden name beside a path, for what is not yet or no longer to be there."""
    return path.with_name(f".{path.name}-{uuid.uuid4().hex}")


def is_unfinished(path: Path) -> bool:
    """Whether such a name was given to it: it can be removed."""
    return _UNFINISHED.fullmatch(path.name) is not None


def remove(path: Path) -> None:
    """Remove a file, link or folder, if it is there; a folder is gone at once or whole.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    going = path if is_unfinished(path) else path.rename(unfinished_name(path))
    shutil.rmtree(going)


def require_room(folder: Path, n_bytes: int) -> None:
    """Refuse to begin what a disk has no room for.

    Raises:
        OSError: as the system would raise it later.
    """
    if shutil.disk_usage(folder).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def as_os_error(error: Exception, path: Path) -> OSError:
    """What a library said when it could not write, as the system would have said it."""
    if isinstance(error, OSError) and error.strerror:
        return error
    said = str(error)
    for number in _FAILURES:
        if os.strerror(number) in said:
            return OSError(number, os.strerror(number), str(path))
    return OSError(errno.EIO, " ".join(said.split())[:_LONGEST], str(path))


def sync_folder(folder: Path) -> None:
    """Wait until the disk has all that is in a folder and below.

    Raises:
        OSError: it could not be written.
    """
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as threads:
        list(threads.map(_sync, [*folder.rglob("*"), folder]))


def _sync(path: Path) -> None:
    if os.name == "posix":
        flags = os.O_RDONLY
    elif path.is_dir():
        return  # no file, there
    else:
        flags = os.O_RDWR
    file = os.open(path, flags)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a share that cannot
            raise
    finally:
        os.close(file)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled, which takes its name when the block ends.

    What had the name is then removed; if the block fails, it stays.

    Raises:
        OSError: the parent folder is full or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (unfinished_name(path) for _ in range(2))
    unfinished.mkdir()
    try:
        yield unfinished
        sync_folder(unfinished)
        if path.exists():
            os.replace(path, old)
        os.replace(unfinished, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for folder in (unfinished, old):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn a failure to write into a message for the user.

    Raises:
        InputError: with the system's reason, and what to do.
    """
    try:
        yield
    except BrokenPipeError:  # of what was printed
        raise
    except OSError as error:
        raise unwritable(error, out) from error


def unusable(error: OSError) -> InputError:
    """That a file cannot be read or written, for the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return unwritable(error)
    return InputError(
        f"{_path_of(error)!r} cannot be used ({error.strerror or error}): see to it "
        "that this process may read and write it"
    )


def unwritable(
    error: OSError, path: str | os.PathLike[str] | None = None
) -> InputError:
    """That a file or folder cannot be written, for the user: the error's, or a path."""
    reason = error.strerror or error
    remedy = "give another --out"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "make room (--resume goes on with a run), or give another --out"
    name = _path_of(error) if path is None else os.fspath(path)
    return InputError(f"{name!r} cannot be written ({reason}): {remedy}")


def _path_of(error: OSError) -> str:
    return "a file" if error.filename is None else str(error.filename)


def file_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in a folder and below, by its path there.

    A second for about 1 GB.

    Raises:
        OSError: a file cannot be read.
    """
    sums = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sums[path.relative_to(folder).as_posix()] = digest
    return sums


def text_sum(text: str) -> str:
    """The SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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
