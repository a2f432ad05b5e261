"""Which archives the challenge's data sets have, by year, part and machine."""

import functools
import json
import re
from collections.abc import Collection, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gammavae_jax.data.machines import issue_of
from gammavae_jax.errors import InputError, unknown_name

PARTS = ("dev", "eval")
ZENODO = "https://zenodo.org"

# The name becomes a file's name: nothing but letters, digits and underscores.
_URL = re.compile(
    re.escape(ZENODO)
    + r"/records/(?P<record>[0-9]+)/files/(?P<name>[A-Za-z0-9_]+\.zip)"
)


class Archive(NamedTuple):
    """A zip archive of one machine's recordings."""

    year: int
    part: str  # of `PARTS`
    machine: str
    sections: tuple[str, ...]
    record: str  # the number under which Zenodo publishes it
    name: str

    @property
    def path(self) -> str:
        """Where it lies on Zenodo, or on a mirror of it."""
        return f"/records/{self.record}/files/{self.name}"

    @property
    def folder(self) -> str:
        """The folder of its part in the folder of its year, as the baseline has it."""
        return f"{self.part}_data"


def years() -> list[int]:
    """The years that have data sets."""
    return sorted(int(name[5:9]) for name in _read()["archives"])


def find_archives(
    year: int, machines: Collection[str] = (), parts: Collection[str] = ()
) -> list[Archive]:
    """The archives of a year's machines, in the order of parts and machines.

    Args:
        year: of the challenge.
        machines: names of machine types; all if there are none.
        parts: of `PARTS`; both if there are none.

    Raises:
        InputError: a year, machine or part that there is not, or a machine that is in
            the other part alone.
    """
    if year not in years():
        raise InputError(
            f"no data set of {year}: there is one for each year from {years()[0]} to "
            f"{years()[-1]}"
        )
    for part in parts:
        if part not in PARTS:
            raise InputError(unknown_name("part", part, PARTS))
    of_year = _archives_of(year)
    known = {archive.machine: archive.part for archive in of_year}
    found = [archive for archive in of_year if archive.part in (parts or PARTS)]
    for machine in machines:
        if machine not in known:
            names = sorted(known, key=str.lower)
            raise InputError(
                unknown_name(f"machine of {year}", machine, names)
                + f" (there are {', '.join(names)})"
            )
        if machine not in {archive.machine for archive in found}:
            raise InputError(
                f"{machine} of {year} is in the part {known[machine]!r} alone: name "
                "that one too"
            )
    return [archive for archive in found if archive.machine in (machines or known)]


def latest_issues(urls: Iterable[str]) -> list[str]:
    """The addresses without archives that another one of them issues again."""
    urls = list(urls)
    latest: dict[str, int] = {}
    for base, number in map(_issue, urls):
        latest[base] = max(number, latest.get(base, number))
    return [url for url in urls if _issue(url) in latest.items()]


def _issue(url: str) -> tuple[str, int]:
    return issue_of(Path(urlsplit(url).path))


def _archives_of(year: int) -> list[Archive]:
    name = f"DCASE{year}T2"
    tree = _read()
    return [
        _archive(year, part, machine, tree["sections"][name][machine][part], url)
        for part in PARTS
        for machine, of_machine in sorted(
            tree["archives"][name].items(), key=lambda item: item[0].lower()
        )
        for url in latest_issues(of_machine.get(part, ()))
    ]


def _archive(
    year: int, part: str, machine: str, sections: list[str], url: str
) -> Archive:
    match = _URL.fullmatch(url)
    assert match, url
    return Archive(year, part, machine, tuple(sections), match["record"], match["name"])


@functools.cache
def _read() -> dict[str, Any]:
    text = (
        files("gammavae_jax.data.download")
        .joinpath("dcase_datasets.json")
        .read_text("utf-8")
    )
    return json.loads(text)
