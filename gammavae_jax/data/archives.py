"""Zip archives of recordings, read in place: what is in them, and a recording's bytes.

A recording in an archive has a path too, which leads through the archive:
`data/dev_fan.zip/fan/train/x.wav`. Nothing is unpacked to disk. Every read opens the
archive anew, so threads share nothing but the table of contents.
"""

import functools
import os
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.data.names import AUDIO_SUFFIXES
from gammavae_jax.errors import InputError, printable

_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1  # bit of a member's flags
# A recording shrinks to a half, silence to a thousandth, and a bomb is large besides.
_MOST_EXPANSION, _SPARE_BYTES = 100, 64 << 20
_LOCAL_HEADER = struct.Struct("<26x2H")  # the lengths of what follows it


class _Member(NamedTuple):
    """Where a recording lies in its archive, as the table of contents says."""

    offset: int
    size_packed: int
    size: int
    crc: int
    method: int


def is_archive(path: Path) -> bool:
    """Whether this is a zip archive, by its name."""
    hidden = path.name.startswith(".")
    return path.suffix.lower() == ".zip" and not hidden and path.is_file()


def archive_of(path: str | os.PathLike[str]) -> Path | None:
    """The archive that a path leads through; None for a path of folders."""
    return next(filter(is_archive, Path(path).parents), None)


def recordings_in(archive: Path) -> Collection[tuple[str, ...]]:
    """The names of all recordings in an archive, with folders, by their parts.

    Names that hide (`.x.wav`) are left out, and what macOS adds (`__MACOSX`).

    Raises:
        InputError: the archive cannot be read, a recording in it is encrypted or there
            twice, or a name would lead out of it.
    """
    return _contents(archive).keys()


def read_recording(archive: Path, path: str | os.PathLike[str]) -> bytes:
    """The bytes of a recording in an archive; safe to call from several threads.

    Raises:
        InputError: it is not there, or damaged, or packed in an unusual way, or would
            grow beyond all measure.
    """
    name = printable(path)
    member = _contents(archive).get(Path(path).relative_to(archive).parts)
    if member is None:
        raise InputError(f"{name}: not in the archive: give the path of a recording")
    if member.method not in (_STORED, _DEFLATED):
        raise InputError(
            f"{name}: packed by method {member.method}: pack the archive anew, with "
            "deflate"
        )
    if member.size > _MOST_EXPANSION * member.size_packed + _SPARE_BYTES:
        raise InputError(
            f"{name}: would unpack to {member.size} bytes, of {member.size_packed}, as "
            "no recording does: get the archive again"
        )
    try:
        data = _unpacked(archive, member)
    except OSError as error:
        raise InputError(
            f"{name}: {error.strerror}: give an archive that this user may read"
        ) from error
    except (ValueError, OverflowError, struct.error, zlib.error) as error:
        raise InputError(
            f"{name}: damaged within the archive: get the archive again"
        ) from error
    return data


def recording_bytes(path: Path) -> int:
    """How many bytes a recording has, in an archive or not; 0 if it is not there.

    Raises:
        InputError: the archive cannot be read.
    """
    archive = archive_of(path)
    if archive is not None:
        member = _contents(archive).get(path.relative_to(archive).parts)
        return 0 if member is None else member.size
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _unpacked(archive: Path, member: _Member) -> bytes:
    """The bytes, checked; errors of many kinds where the archive is damaged."""
    with archive.open("rb") as file:
        file.seek(member.offset)
        lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        file.seek(sum(lengths), os.SEEK_CUR)
        # Neither size is believed before there is so much to read.
        data = file.read(min(member.size_packed, os.fstat(file.fileno()).st_size))
    if member.method == _DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size or 1)
    if (len(data), zlib.crc32(data)) != (member.size, member.crc):
        raise ValueError
    return data


def _contents(archive: Path) -> dict[tuple[str, ...], _Member]:
    try:
        status = archive.stat()
    except OSError as error:
        raise InputError(
            f"{printable(archive)}: {error.strerror}: give an archive that is there"
        ) from error
    return _read_contents(archive, status.st_size, status.st_mtime_ns)


@functools.cache
def _read_contents(
    archive: Path, size: int, mtime_ns: int
) -> dict[tuple[str, ...], _Member]:
    """The table of contents by the parts of a name, read once while size and time stay.

    Raises:
        InputError: see `recordings_in`.
    """
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(archive) as opened:
            infos = opened.infolist()
    except OSError as error:
        raise InputError(
            f"{printable(archive)}: {error.strerror}: give an archive that this user "
            "may read"
        ) from error
    except (BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
        raise InputError(
            f"{printable(archive)}: cannot be read as a zip archive "
            f"({printable(str(error))}): get it again, or take it out of the folder"
        ) from error
    contents = {}
    for info in infos:
        parts = _parts(archive, info.filename)
        if not parts or not parts[-1].lower().endswith(AUDIO_SUFFIXES):
            continue
        if info.flag_bits & _ENCRYPTED:
            raise InputError(
                f"{printable(archive)}: {printable(info.filename)} is encrypted: pack "
                "the archive without a password"
            )
        if parts in contents:
            raise InputError(
                f"{printable(archive)}: holds {printable(info.filename)} twice: get it "
                "again, or pack it anew"
            )
        contents[parts] = _Member(
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.CRC,
            info.compress_type,
        )
    return contents


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """Folders and name of a member; none for a folder and for what is left out.

    Raises:
        InputError: the name is absolute, or leads out of the archive.
    """
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0][1:] == ":" or ".." in parts:
        raise InputError(
            f"{printable(archive)}: holds the name {name!r}, which leads out of it: "
            "pack it with relative names"
        )
    is_left_out = parts[-1] == "" or "__MACOSX" in parts
    parts = tuple(part for part in parts if part not in ("", "."))
    is_left_out |= any(part.startswith(".") for part in parts)
    return () if is_left_out else parts
