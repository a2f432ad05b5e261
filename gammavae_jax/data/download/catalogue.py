"""Lists the challenge's archives by year, part ("dev" or "eval") and machine."""

import functools
import json
import re
from collections.abc import Collection
from importlib.resources import files
from typing import Any, NamedTuple

from gammavae_jax.errors import InputError, unknown_name

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
    return json.loads(folder.joinpath("dcase_datasets.json").read_text("utf-8"))
