"""The bytes of a file that have come so far: `x.zip.part`, until it is `x.zip`.

Beside it, `x.zip.part.json` says which version of the file they are of, so that a later
process goes on where this one was stopped.
"""

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType

from gammavae_jax.data.download.answer import Version
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import write_text

_CHUNK = 1 << 20


def part_of(path: Path) -> Path:
    """Where a file grows."""
    return path.with_name(f"{path.name}.part")


def size_so_far(path: Path) -> int:
    """Bytes of a file that have come in earlier tries."""
    try:
        return part_of(path).stat().st_size
    except OSError:
        return 0


class PartFile:
    """A file that grows, with its checksum; whatever has come stays on disk.

    Its folder is made if it is not there.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        self.part = part_of(path)
        self.size = 0  # bytes
        self.version = Version()
        self._md5 = hashlib.md5(usedforsecurity=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.part, "a+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._unusable(error) from error

    def __enter__(self) -> "PartFile":
        try:
            self._resume()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self.size == 0:
            self._forget()

    @property
    def md5(self) -> str:
        """Of the bytes so far, in hexadecimal."""
        return self._md5.hexdigest()

    @property
    def is_whole(self) -> bool:
        """Whether so many bytes have come as the server said there are."""
        return self.size > 0 and self.size == self.version.size

    def restart(self, version: Version = Version()) -> None:  # noqa: B008
        """Drop all bytes; those that follow are of this version.

        Raises:
            InputError: the folder cannot be written.
        """
        self.size, self.version = 0, version
        self._md5 = hashlib.md5(usedforsecurity=False)
        try:
            self._file.truncate(0)
            # Before the first byte of it: no process takes them for another's.
            write_text(self._note, json.dumps(version._asdict()) + "\n")
        except OSError as error:
            raise self._unusable(error) from error

    def append(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            InputError: they cannot be written, as on a full disk.
        """
        left = memoryview(data)
        while left:
            try:
                written = self._file.write(left)
            except OSError as error:
                raise self._unusable(error) from error
            self._md5.update(left[:written])
            self.size += written
            left = left[written:]

    def ends_here(self) -> None:
        """The bytes so far are all there are, where the server did not say before."""
        self.version = self.version._replace(size=self.size)

    def finish(self) -> None:
        """Give the file its name, in one step, with its bytes safely on disk.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            os.fsync(self._file.fileno())
            self._file.close()  # as Windows wants it
            os.replace(self.part, self.path)
        except OSError as error:
            raise self._unusable(error) from error
        self._forget()

    @property
    def _note(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _resume(self) -> None:
        """Take up the bytes of an earlier process, if it is known what they are."""
        size = os.fstat(self._file.fileno()).st_size
        version = _read_version(self._note)
        if version is None or (version.size is not None and size > version.size):
            self.restart()
            return
        self.version = version
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            self._md5.update(data)
            self.size += len(data)

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _unusable(self, error: OSError) -> InputError:
        return InputError(
            f"{printable(self.part)} cannot be written: {error.strerror}: make room or "
            "name another folder; what has come is kept"
        )


def _read_version(note: Path) -> Version | None:
    try:
        tree = json.loads(note.read_text(encoding="utf-8"))
        etag, last_modified, size = (tree[name] for name in Version._fields)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_well_formed = isinstance(etag, str) and isinstance(last_modified, str)
    if not is_well_formed or not (size is None or type(size) is int):
        return None
    return Version(etag, last_modified, size)
