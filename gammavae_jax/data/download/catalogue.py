"""The challenge's archives: a list of them, and their download into a folder.

An archive belongs to a year, a part ("dev" or "eval") and a machine. The folder is
locked during the download.
"""

import functools
import re
from collections.abc import Collection, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from rich.filesize import decimal

from gammavae_jax.config_json import parse_json
from gammavae_jax.data.audio.archives import recordings_in
from gammavae_jax.data.download.fetch import PublishedFile, fetch, size_so_far
from gammavae_jax.data.download.request import Refused, Transient, get, retrying
from gammavae_jax.errors import InputError, printable, unknown_name, writing
from gammavae_jax.files import FolderInUse, FolderLock, require_room
from gammavae_jax.log import Log

PARTS = ("dev", "eval")
ZENODO = "https://zenodo.org"

# The archive's name becomes a file name, so it must contain only safe characters.
_URL = re.compile(r"https://zenodo\.org/records/([0-9]+)/files/([A-Za-z0-9_]+\.zip)")


class Archive(NamedTuple):
    """A zip archive with one machine's recordings."""

    year: int
    part: str  # one of `PARTS`
    machine: str
    sections: tuple[str, ...]
    record: str  # the number of the Zenodo record that holds it
    name: str  # of the file

    @property
    def url_path(self) -> str:
        """The archive's path on the server (Zenodo or a mirror)."""
        return f"/records/{self.record}/files/{self.name}"

    @property
    def folder(self) -> str:
        """The part's folder name in the official baseline, such as `dev_data`."""
        return f"{self.part}_data"


def years() -> list[int]:
    """Return the years for which there is a dataset."""
    return sorted(int(name[5:9]) for name in _catalogue()["archives"])


def find_archives(
    year: int, machines: Collection[str] = (), parts: Collection[str] = ()
) -> list[Archive]:
    """Return a year's archives, sorted by part and machine.

    Args:
        year: the challenge's year.
        machines: machine types; default: all.
        parts: names from `PARTS`; default: both.

    Raises:
        InputError: the year, a machine or a part does not exist, or a machine has no
            archive in these parts.
    """
    if year not in years():
        raise InputError(
            f"no dataset for {year}: choose a year from {years()[0]} to {years()[-1]}"
        )
    for part in parts:
        if part not in PARTS:
            raise InputError(unknown_name("part", part, PARTS))
    archives = _archives_of(year)
    part_of = {archive.machine: archive.part for archive in archives}
    found = [archive for archive in archives if archive.part in (parts or PARTS)]
    for machine in machines:
        if machine not in part_of:
            names = sorted(part_of, key=str.lower)
            raise InputError(
                unknown_name(f"{year} machine", machine, names)
                + f" (available: {', '.join(names)})"
            )
        if machine not in {archive.machine for archive in found}:
            raise InputError(
                f"the {year} {machine} data exists only in the part "
                f"{part_of[machine]!r}: add this part to --parts"
            )
    return [archive for archive in found if archive.machine in (machines or part_of)]


def _archives_of(year: int) -> list[Archive]:
    catalogue, dataset = _catalogue(), f"DCASE{year}T2"
    archives = []
    for part in PARTS:
        for machine in sorted(catalogue["archives"][dataset], key=str.lower):
            for url in catalogue["archives"][dataset][machine].get(part, ()):
                match = _URL.fullmatch(url)
                assert match, url
                sections = tuple(catalogue["sections"][dataset][machine][part])
                archives.append(Archive(year, part, machine, sections, *match.groups()))
    return archives


@functools.cache
def _catalogue() -> dict[str, Any]:
    folder = files("gammavae_jax.data.download")
    return parse_json(folder.joinpath("dcase_datasets.json").read_text("utf-8"))


LOCK_NAME = ".download-lock"


class DownloadStatus(NamedTuple):
    """An archive's path, and how much of the archive is on disk."""

    path: Path
    n_bytes: int
    word: str  # "complete", "partial" or "missing"


def status_of(archive: Archive, out: Path) -> DownloadStatus:
    """Look for an archive in the folder of its year and return its status.

    Raises:
        InputError: the file is not a complete zip archive.
    """
    path = out / archive.folder / archive.name
    if path.exists():
        recordings_in(path)  # raises an error if the archive is truncated
        return DownloadStatus(path, path.stat().st_size, "complete")
    n_bytes = size_so_far(path)
    return DownloadStatus(path, n_bytes, "partial" if n_bytes else "missing")


def published_files(
    archives: Sequence[Archive], mirror: str, log: Log, attempts: int = 3
) -> dict[Archive, PublishedFile]:
    """Return the size and checksum that Zenodo publishes for each archive, if any.

    Each record is requested once. If the server is unreachable, no further
    records are requested.
    """
    published: dict[Archive, PublishedFile] = {}
    for record in sorted({archive.record for archive in archives}):
        url = f"{mirror}/api/records/{record}"
        try:
            files = retrying(attempts)(_read_record, url)
        except (Refused, Transient) as error:
            log.say(f"cannot get sizes and checksums from {url}: {error}")
            if isinstance(error, Transient):
                break
            continue
        published |= {a: files[a.name] for a in archives if a.name in files}
    return published


def _read_record(url: str) -> dict[str, PublishedFile]:
    """Request a Zenodo record; return its files by name."""
    with get(url, {"Accept": "application/json"}) as response:
        text = response.raw.read(1 << 22, decode_content=True)  # at most 4 MiB
    try:
        published = {}
        for file in parse_json(text)["files"]:
            algorithm, _, checksum = str(file.get("checksum")).partition(":")
            md5 = checksum if algorithm == "md5" else None
            published[str(file["key"])] = PublishedFile(int(file["size"]), md5)
        return published
    except Exception as error:  # an unknown format raises errors of many kinds
        raise Refused("the record has an unknown format") from error


def deliver(
    archives: Sequence[Archive], out: Path, log: Log, mirror: str = ZENODO
) -> None:
    """Download the archives that are not yet complete.

    Args:
        archives: archives of one year.
        out: the year's folder; it is created if necessary.
        log: shows progress and failures.
        mirror: the URL of Zenodo, or of a server with the same paths.

    Raises:
        InputError: another process is downloading into the folder, the disk is full,
            or the server refuses an archive (all others are downloaded first).
    """
    refusal = None
    with _lock(out):
        missing = [a for a in archives if status_of(a, out).word != "complete"]
        published = published_files(missing, mirror, log)
        left = [(f.size or 0) - status_of(a, out).n_bytes for a, f in published.items()]
        if missing:
            size = f"{len(missing)} (at least {decimal(sum(left))})"
            log.say(f"archives to download into {printable(out)}: {size}")
        with writing(out):
            require_room(out, sum(left))
        for archive in missing:
            path, file = status_of(archive, out).path, published.get(archive)
            try:
                fetch(mirror + archive.url_path, path, file or PublishedFile(), log)
            except Refused as error:
                log.say(f"error: {error}")  # log now: a later error may end the loop
                refusal = error
                continue
            sums = "published checksum" if file and file.md5 else "internal checksums"
            size = decimal(path.stat().st_size)
            log.say(f"{path.name}: {size}, verified against its {sums}")
    if refusal:
        raise refusal


def _lock(folder: Path) -> FolderLock:
    """Create and lock a folder, so that only this process downloads into it."""
    with writing(folder):
        try:
            return FolderLock(folder, LOCK_NAME, stays=True)
        except FolderInUse as error:
            raise InputError(
                f"another process is downloading into {printable(folder)}: wait until "
                "it has finished, or choose another folder for --out"
            ) from error
