"""Reads recordings in zip archives without unpacking them to disk.

A recording's path leads through its archive: `dev_fan.zip/fan/train/x.wav`.
"""

import functools
import os
import struct
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from gammavae_jax.data.audio.listing import (
    HIDDEN,
    OTHER_FORMAT,
    Reason,
    is_hidden,
    is_other_format,
    is_recording,
)
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
Parts = tuple[str, ...]  # the folders and the file name of an archived file


class _Contents(NamedTuple):
    """The recordings in an archive, and the sound files that are left out."""

    recordings: dict[Parts, ZipInfo]
    left_out: dict[Parts, Reason]


def is_archive(path: Path) -> bool:
    """Return whether a path is an existing `.zip` file that is not hidden."""
    is_visible = path.suffix.lower() == ".zip" and not is_hidden(path.name)
    return is_visible and path.is_file()


def archive_of(path: str | os.PathLike[str]) -> Path | None:
    """Return the archive that contains the path, or None if the path is not in one."""
    return next(filter(is_archive, Path(path).parents), None)


def recordings_in(archive: Path) -> Collection[Parts]:
    """List an archive's recordings; hidden files are left out, as they are in folders.

    Raises:
        InputError: the archive cannot be read, or contains an encrypted or duplicate
            recording or a name that points outside the archive.
    """
    return _contents(archive, _stamp(archive)).recordings.keys()


def left_out_in(archive: Path) -> Mapping[Parts, Reason]:
    """Return an archive's hidden recordings and its files in other formats.

    See `recordings_in` for errors.
    """
    return _contents(archive, _stamp(archive)).left_out


def read_recording(archive: Path, path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an archived recording; thread-safe.

    Raises:
        InputError: the recording is missing or corrupt, uses an unsupported
            compression method, or is a zip bomb.
    """
    name, stamp = printable(path), _stamp(archive)
    member = _contents(archive, stamp).recordings.get(
        Path(path).relative_to(archive).parts
    )
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
    """Return the size in bytes of a file or archived recording, or 0 if missing."""
    if (archive := archive_of(path)) is not None:
        contents = _contents(archive, _stamp(archive)).recordings
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
def _contents(archive: Path, stamp: _Stamp) -> _Contents:
    """Return an archive's contents."""
    contents = _Contents({}, {})
    for info in _opened(archive, stamp).infolist():
        parts = _parts(archive, info.filename)
        if not parts:
            continue
        if any(map(is_hidden, parts)):
            if is_recording(parts[-1]):
                contents.left_out[parts] = HIDDEN
        elif is_recording(parts[-1]):
            _require_usable(archive, info, parts in contents.recordings)
            contents.recordings[parts] = info
        elif is_other_format(parts[-1]):
            contents.left_out[parts] = OTHER_FORMAT
    return contents


def _require_usable(archive: Path, info: ZipInfo, is_duplicate: bool) -> None:
    name = f"{printable(archive)}: {printable(info.filename)}"
    if info.flag_bits & _ENCRYPTED:
        raise InputError(
            f"{name} is encrypted: recreate the archive without a password"
        )
    if is_duplicate:
        raise InputError(f"{name} appears twice: recreate or replace the archive")


def _parts(archive: Path, name: str) -> Parts:
    """Split an archived path into its parts; return () for a folder."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0][1:] == ":" or ".." in parts:
        raise InputError(
            f"{printable(archive)}: the name {name!r} points outside the archive: "
            "recreate the archive with relative names"
        )
    kept = tuple(part for part in parts if part not in ("", "."))
    return () if parts[-1] == "" else kept
