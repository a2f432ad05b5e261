"""A year's archives in a folder: what is there, and how the rest gets there."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import requests
from rich.filesize import decimal

from gammavae_jax.data.archives import recordings_in
from gammavae_jax.data.download.catalogue import ZENODO, Archive
from gammavae_jax.data.download.disk_space import require_space
from gammavae_jax.data.download.folder_lock import only_one
from gammavae_jax.data.download.part_file import size_so_far
from gammavae_jax.data.download.patience import Patience
from gammavae_jax.data.download.record import (
    NoRecord,
    RecordFile,
    Unreachable,
    read_record,
)
from gammavae_jax.data.download.session import new_session
from gammavae_jax.data.download.soundness import require_sound
from gammavae_jax.data.download.transfer import NotServed, Wanted, fetch
from gammavae_jax.data.download.unpack import (
    require_ours,
    unpack_machine,
    unpacked_archives,
)
from gammavae_jax.errors import InputError, printable
from gammavae_jax.log import Log

Published = dict[Archive, RecordFile]


class Standing(NamedTuple):
    """How far an archive is."""

    path: Path
    n_bytes: int  # of it on disk
    is_there: bool  # whole
    is_unpacked: bool  # its machine's folder holds what it held

    @property
    def word(self) -> str:
        """One word for it."""
        if self.is_unpacked:
            return "unpacked"
        return "there" if self.is_there else "begun" if self.n_bytes else "missing"


def standing_of(archive: Archive, out: Path) -> Standing:
    """How far an archive is in the folder of its year.

    Raises:
        InputError: there is something else under its name.
    """
    path = out / archive.folder / archive.name
    made_of = unpacked_archives(path.parent / archive.machine) or ()
    is_there = path.exists()
    if is_there:
        recordings_in(path)  # refuses what was cut off on its way by other means
    n_bytes = path.stat().st_size if is_there else size_so_far(path)
    return Standing(path, n_bytes, is_there, archive.name in made_of)


def published_of(
    archives: Iterable[Archive],
    mirror: str,
    session: requests.Session,
    log: Log,
    patience: Patience = Patience(),  # noqa: B008
    n_tries: int = 3,
) -> Published:
    """The sizes and checksums of archives; of those whose record cannot be read, none.

    Each record is asked for once; no more are after one that could not be reached.
    """
    published: Published = {}
    by_record = itertools.groupby(
        sorted(archives, key=lambda archive: archive.record), lambda a: a.record
    )
    for record, group in by_record:
        try:
            files = read_record(mirror, record, session, patience, n_tries)
        except NoRecord as reason:
            log.say(f"{mirror} gives no sizes and checksums of {record}: {reason}")
            if isinstance(reason, Unreachable):
                break
            continue
        published |= {a: files[a.name] for a in group if a.name in files}
    return published


def deliver(
    archives: Sequence[Archive],
    out: Path,
    log: Log,
    unpack: bool = False,
    mirror: str = ZENODO,
    patience: Patience = Patience(),  # noqa: B008
) -> None:
    """Load the archives that are not there yet, and unpack them if asked to.

    Args:
        archives: of one year, with all archives of each of their machines and parts.
        out: the folder of the year; it is made.
        log: is told what happens.
        unpack: also to machine folders, beside the archives.
        mirror: address of what answers in Zenodo's stead.
        patience: with broken connections.

    Raises:
        InputError: another process loads into the folder, there is too little room,
            or an archive cannot be had; those that can are there then.
    """
    with only_one(out):
        machines = _machines(archives, out) if unpack else {}
        for folder in machines:
            if folder.exists():
                require_ours(folder)
        needed = {archive for group in machines.values() for archive in group}
        missing = [
            archive
            for archive in archives
            if not (s := standing_of(archive, out)).is_there
            and (archive in needed or not s.is_unpacked)
        ]
        failures = _load_all(missing, out, needed, log, mirror, patience)
        for folder, group in machines.items():
            if not failures.keys() & set(group):
                paths = [standing_of(archive, out).path for archive in group]
                unpack_machine(paths, folder, log)
    if failures:
        raise list(failures.values())[-1]


def _machines(archives: Sequence[Archive], out: Path) -> dict[Path, list[Archive]]:
    """The folders that are still to be unpacked, with their archives."""
    machines: dict[Path, list[Archive]] = {}
    for archive in archives:
        folder = out / archive.folder / archive.machine
        machines.setdefault(folder, []).append(archive)
    return {
        folder: group
        for folder, group in machines.items()
        if not {a.name for a in group} <= (unpacked_archives(folder) or set())
    }


def _load_all(
    missing: Sequence[Archive],
    out: Path,
    to_unpack: set[Archive],
    log: Log,
    mirror: str,
    patience: Patience,
) -> dict[Archive, InputError]:
    """Load archives one after another; those that could not be had, and why."""
    failures: dict[Archive, InputError] = {}
    if not missing:
        return failures
    with new_session() as session:
        published = published_of(missing, mirror, session, log, patience)
        to_load = _require_room(out, published, to_unpack)
        known = f"{decimal(to_load)} of " if len(published) == len(missing) else ""
        log.say(f"loading {known}{_counted(missing)} into {printable(out)}")
        for archive in missing:
            path = standing_of(archive, out).path
            wanted = Wanted(f"{mirror}{archive.path}", path)
            if archive in published:
                wanted = wanted._replace(**published[archive]._asdict())
            try:
                _load(wanted, session, log, patience)
            except NotServed as error:
                # At once: what comes next may end everything.
                log.say(f"error: {error}")
                failures[archive] = error
    return failures


def _require_room(out: Path, published: Published, to_unpack: set[Archive]) -> int:
    """The bytes that are still to be loaded, as far as they are known.

    What is unpacked is no smaller than what is packed; how much larger it is, the
    archives tell once they are there.

    Raises:
        InputError: there is too little room for them.
    """
    there = {a: standing_of(a, out).n_bytes for a in published.keys() | to_unpack}
    left = sum(max(file.size - there[a], 0) for a, file in published.items())
    unpacked = sum(
        max(there[a], published[a].size) for a in published if a in to_unpack
    )
    require_space(
        out, left + unpacked + sum(there[a] for a in to_unpack - published.keys())
    )
    return left


def _load(wanted: Wanted, session: requests.Session, log: Log, patience: Patience):
    """Load one archive, and say by what it was checked."""
    if wanted.md5 is None:
        fetch(wanted, session, log, patience, require_sound)
        checked = "its length and its own checksums; no published one is known"
    else:
        fetch(wanted, session, log, patience)
        checked = "its published checksum"
    size = decimal(wanted.path.stat().st_size)
    log.say(f"{wanted.path.name}: {size}, checked by {checked}")


def _counted(archives: Sequence[Archive]) -> str:
    return f"{len(archives)} archive{'s' if len(archives) > 1 else ''}"
