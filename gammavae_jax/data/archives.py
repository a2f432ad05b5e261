"""Reads recordings in zip archives without unpacking them to disk.

A recording's path leads through its archive: `dev_fan.zip/fan/train/x.wav`.
"""

import functools
import os
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from gammavae_jax.data.listing import is_recording
from gammavae_jax.errors import InputError, printable

_ENCRYPTED = 1  # bit of a member's flags
# Recordings compress to about half, silence to a thousandth; only a zip bomb is both
# larger than `_SPARE_BYTES` and compressed this much.
_MAX_RATIO, _SPARE_BYTES = 100, 64 << 20
_MAX_OPEN = 8  # archives kept open at once; systems limit open files

# The errors that zipfile raises for a damaged archive, and for a damaged member.
_BAD_ARCHIVE = (BadZipFile, RuntimeError, ValueError, OverflowError)
_BAD_MEMBER = (*_BAD_ARCHIVE, EOFError, struct.error, zlib.error)

_Stamp = tuple[int, int]  # size and modification time of an archive


def is_archive(path: Path) -> bool:
    """Return whether a path is an existing `.zip` file that is not hidden."""
    hidden = path.name.startswith(".")
    return path.suffix.lower() == ".zip" and not hidden and path.is_file()


def archive_of(path: str | os.PathLike[str]) -> Path | None:
    """Return the archive that contains the path; None if the path is not in one."""
    return next(filter(is_archive, Path(path).parents), None)


def recordings_in(archive: Path) -> Collection[tuple[str, ...]]:
    """List an archive's recordings, each as a tuple of its folders and file name.

    Hidden files (`.x.wav`) and macOS metadata (`__MACOSX`) are left out.

    Raises:
        InputError: the archive cannot be read, or contains an encrypted or duplicate
            recording or a name that points outside the archive.
    """
    return _contents(archive, _stamp(archive)).keys()


def read_recording(archive: Path, path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an archived recording; thread-safe.

    Raises:
        InputError: the recording is missing or corrupt, uses an unsupported
            compression method, or is a zip bomb.
    """
    name, stamp = printable(path), _stamp(archive)
    member = _contents(archive, stamp).get(Path(path).relative_to(archive).parts)
    if member is None:
        raise InputError(f"{name}: not in the archive: pass an existing path")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise InputError(
            f"{name} has the unsupported compression method {member.compress_type}: "
            "recreate the archive with deflate"
        )
    if member.file_size > _MAX_RATIO * member.compress_size + _SPARE_BYTES:
        raise InputError(
            f"{name} would unpack from {member.compress_size} to {member.file_size} "
            "bytes, which is implausible for a recording: download the archive again"
        )
    try:
        if member.compress_size > stamp[0]:  # do not allocate memory for a false size
            raise BadZipFile("a member is larger than the archive")
        with _opened(archive, stamp).open(member) as file:
            data = file.read(member.file_size)  # verifies the checksum at the end
        if len(data) < member.file_size:
            raise BadZipFile("a member is smaller than stated")
    except OSError as error:
        raise _unreadable(path, error) from error
    except _BAD_MEMBER as error:
        raise InputError(
            f"{name} is corrupt in its archive: download the archive again"
        ) from error
    return data


def recording_bytes(path: Path) -> int:
    """Return the size in bytes of a recording, archived or not; 0 if it is missing."""
    if (archive := archive_of(path)) is not None:
        contents = _contents(archive, _stamp(archive))
        member = contents.get(path.relative_to(archive).parts)
        return 0 if member is None else member.file_size
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _stamp(archive: Path) -> _Stamp:
    try:
        status = archive.stat()
    except OSError as error:
        raise _unreadable(archive, error) from error
    return status.st_size, status.st_mtime_ns


def _unreadable(path: str | os.PathLike[str], error: OSError) -> InputError:
    remedy = "check the path and permissions of the archive"
    return InputError(f"{printable(path)} cannot be read ({error.strerror}): {remedy}")


@functools.lru_cache(_MAX_OPEN)
def _opened(archive: Path, stamp: _Stamp) -> ZipFile:
    """Open an archive and keep it open; reopen it if it has changed (see `_Stamp`)."""
    try:
        return ZipFile(archive)
    except OSError as error:
        raise _unreadable(archive, error) from error
    except _BAD_ARCHIVE as error:
        raise InputError(
            f"{printable(archive)} cannot be read as a zip archive "
            f"({printable(str(error))}): download it again or remove it from the folder"
        ) from error


@functools.cache
def _contents(archive: Path, stamp: _Stamp) -> dict[tuple[str, ...], ZipInfo]:
    """Return an archive's recordings, keyed by their folders and file name."""
    contents = {}
    for info in _opened(archive, stamp).infolist():
        parts = _parts(archive, info.filename)
        if not parts or not is_recording(parts[-1]):
            continue
        name = f"{printable(archive)}: {printable(info.filename)}"
        if info.flag_bits & _ENCRYPTED:
            raise InputError(
                f"{name} is encrypted: recreate the archive without a password"
            )
        if parts in contents:
            raise InputError(f"{name} appears twice: recreate or replace the archive")
        contents[parts] = info
    return contents


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """Split an archived path into its parts; return () for folders and hidden files."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0][1:] == ":" or ".." in parts:
        raise InputError(
            f"{printable(archive)}: the name {name!r} points outside the archive: "
            "recreate the archive with relative names"
        )
    kept = tuple(part for part in parts if part not in ("", "."))
    is_hidden = "__MACOSX" in kept or any(part.startswith(".") for part in kept)
    return () if is_hidden or parts[-1] == "" else kept
