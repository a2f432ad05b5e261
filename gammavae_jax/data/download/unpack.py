"""A machine's archives to a folder, which is whole or not there.

Archives are not trusted: no name may lead out of the folder, nothing but files and
folders is made, and no more is written than was declared and fits.
"""

import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from gammavae_jax.data.download.disk_space import require_space
from gammavae_jax.data.download.soundness import UNREADABLE
from gammavae_jax.errors import InputError, printable
from gammavae_jax.log import Advance, Log

_MOST_EXPANSION = 100  # recordings shrink to a half, at most to a few hundredths
_ENCRYPTED = 1  # bit of a member's flags
_NOTE = ".unpacked"  # in a machine's folder: the archives it was made of
_IN_WORK = ".unpacking-"


class _Member(NamedTuple):
    """A file in an archive, and where it goes in the machine's folder."""

    archive: Path
    info: zipfile.ZipInfo
    parts: tuple[str, ...]


def unpacked_archives(folder: Path) -> set[str] | None:
    """The names of the archives that a machine's folder was made of.

    None where the folder is not of this module's making.
    """
    try:
        return set((folder / _NOTE).read_text(encoding="utf-8").split())
    except OSError:
        return None


def unpack_machine(archives: Sequence[Path], folder: Path, log: Log) -> None:
    """Unpack what archives hold for a machine; a folder made before is replaced.

    Args:
        archives: of one machine.
        folder: named like the machine; its parent must be there.
        log: shows how far it is.

    Raises:
        InputError: an archive that is damaged or leads out of the folder, too little
            room, or a folder of somebody else's making.
    """
    if folder.exists() or folder.is_symlink():
        require_ours(folder)
    members = members_of(archives, folder.name)
    require_space(folder.parent, sum(member.info.file_size for member in members))
    in_work = folder.with_name(f"{_IN_WORK}{folder.name}")
    try:
        shutil.rmtree(in_work, ignore_errors=True)  # of a process that was killed
        new = in_work / folder.name
        new.mkdir(parents=True)
        with log.progress(f"unpacking {folder.name}", len(members)) as advance:
            _write(members, new, advance)
        (new / _NOTE).write_text("".join(f"{path.name}\n" for path in archives))
        if folder.exists():
            folder.rename(in_work / "replaced")
        new.rename(folder)
    except OSError as error:
        raise InputError(
            f"{printable(folder)} cannot be written: {error.strerror}: make room, or "
            "name another --out"
        ) from error
    finally:
        shutil.rmtree(in_work, ignore_errors=True)


def require_ours(folder: Path) -> None:
    """Refuse to replace a folder that was not unpacked here.

    Raises:
        InputError: it was not.
    """
    if folder.is_symlink() or unpacked_archives(folder) is None:
        raise InputError(
            f"{printable(folder)} is there and was not unpacked by this command: take "
            "it away, or name another --out"
        )


def members_of(archives: Sequence[Path], machine: str) -> list[_Member]:
    """What archives hold in folders of a machine's name, once each.

    What lies elsewhere in an archive (a licence, what macOS adds) is left out. Of a
    file in several archives that is no recording, the first one counts.

    Raises:
        InputError: an archive that cannot be read or trusted, or none of the machine.
    """
    found: dict[tuple[str, ...], _Member] = {}
    for archive in archives:
        for member in _members(archive, machine):
            first = found.setdefault(member.parts, member)
            is_same = (first.info.CRC, first.info.file_size) == (
                member.info.CRC,
                member.info.file_size,
            )
            if not is_same and not member.parts[-1].lower().endswith(".csv"):
                raise InputError(
                    f"{printable(archive)} and {printable(first.archive.name)} hold "
                    f"different files {printable('/'.join(member.parts))}: keep one of "
                    "the archives"
                )
    if not found:
        names = ", ".join(printable(path) for path in archives)
        raise InputError(f"{names}: no folder {machine!r} within: get it again")
    return list(found.values())


def _members(archive: Path, machine: str) -> list[_Member]:
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
    except (*UNREADABLE, OSError) as error:
        raise _damaged(archive) from error
    _require_modest(archive, infos)
    seen: dict[str, bool] = {}  # whether a name is a folder's, by the name
    members = []
    for info in infos:
        parts = _trusted_parts(archive, info)
        _require_new(archive, info, parts, seen)
        *folders, _ = parts
        if machine in folders and not info.is_dir() and "__MACOSX" not in parts:
            at = folders.index(machine) + 1
            members.append(_Member(archive, info, parts[at:]))
    return members


def _trusted_parts(archive: Path, info: zipfile.ZipInfo) -> tuple[str, ...]:
    """The folders and the name of a member.

    Raises:
        InputError: they could lead elsewhere, or the member is no file and no folder.
    """
    name = info.orig_filename  # as it stands; `filename` ends at a zero byte
    kind = stat.S_IFMT(info.external_attr >> 16)
    parts = tuple(name.rstrip("/").split("/"))
    if "\\" in name or ":" in name or not name.isprintable():
        _refuse(archive, name, "which is no name on every system")
    if {"", ".", ".."} & set(parts):
        _refuse(archive, name, "which leads out of its folder")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        _refuse(archive, name, "which is a link or a device")
    if info.flag_bits & _ENCRYPTED:
        _refuse(archive, name, "which is encrypted")
    return parts


def _require_new(
    archive: Path, info: zipfile.ZipInfo, parts: tuple[str, ...], seen: dict[str, bool]
) -> None:
    """Note a member's name and its folders; systems may take two names for one.

    Raises:
        InputError: the name was there before, or is a file's and a folder's.
    """
    for n in range(1, len(parts) + 1):
        name = unicodedata.normalize("NFC", "/".join(parts[:n])).casefold()
        is_folder = n < len(parts) or info.is_dir()
        if name in seen and not (is_folder and seen[name]):
            _refuse(archive, info.orig_filename, "which is there twice")
        seen[name] = is_folder


def _require_modest(archive: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse an archive that would grow beyond all measure.

    Raises:
        InputError: it would.
    """
    unpacked, packed = sum(i.file_size for i in infos), archive.stat().st_size
    if unpacked > _MOST_EXPANSION * packed:
        raise InputError(
            f"{printable(archive)}: would unpack to {unpacked / packed:.0f} times its "
            "size, as no recordings do: delete it, and get it again"
        )


def _write(members: Sequence[_Member], folder: Path, advance: Advance) -> None:
    """Write all members, each checked against its checksum.

    Raises:
        InputError: a member is damaged.
        OSError: the folder cannot be written.
    """
    for archive in dict.fromkeys(member.archive for member in members):
        with zipfile.ZipFile(archive) as opened:
            for member in members:
                if member.archive == archive:
                    _write_member(opened, member, folder)
                    advance()


def _write_member(opened: zipfile.ZipFile, member: _Member, folder: Path) -> None:
    path = folder.joinpath(*member.parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Reading ends at the declared size, and fails if the checksum is not met.
        with opened.open(member.info) as source, path.open("xb") as sink:
            shutil.copyfileobj(source, sink)
    except UNREADABLE as error:
        raise _damaged(member.archive) from error


def _damaged(archive: Path) -> InputError:
    return InputError(
        f"{printable(archive)}: damaged, or no zip archive: delete it, and run this "
        "command again"
    )


def _refuse(archive: Path, name: str, why: str) -> NoReturn:
    raise InputError(
        f"{printable(archive)}: holds {name!r}, {why}: nothing was unpacked; delete "
        "it, and get it again"
    )
