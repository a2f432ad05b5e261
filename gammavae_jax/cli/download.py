"""`gammavae download`: the challenge's recordings, by year and machine."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import tyro

from gammavae_jax.cli.shared import table_console, write_json
from gammavae_jax.errors import InputError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from gammavae_jax.data.download.catalogue import Archive
    from gammavae_jax.data.download.delivery import Published


@dataclass(frozen=True)
class Download:
    """Get the challenge's recordings, by year and machine.

    The zip archives are read as they are. What breaks off goes on where it stopped:
    run the same command again.
    """

    year: tyro.conf.Positional[int]
    """The challenge whose data set is wanted, 2020 to 2026."""
    machines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Machine types, such as fan; all of the year unless given."""
    parts: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PART ...")] = ()
    """dev (its clips say what is anomalous), eval (they do not), or both; both unless
    given."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the year; data/dcase<year> unless given."""
    unpack: bool = False
    """Unpack into machine folders too; nothing here needs that. The archives stay, and
    may be deleted."""
    list: bool = False
    """Say which archives there are, and which of them are here, and load nothing."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write what is there as JSON; '-' is standard output, and the rest then goes to
    standard error."""
    mirror: Annotated[str, tyro.conf.arg(metavar="URL")] = "https://zenodo.org"
    """What answers in Zenodo's stead, under the same paths."""

    def run(self) -> int:
        """Load what is missing, or list what there is.

        Raises:
            InputError: a year, a machine, a part or a mirror that there is not; or
                see `deliver`.
        """
        from rich.console import Console

        from gammavae_jax.data.download.catalogue import find_archives
        from gammavae_jax.data.download.delivery import deliver
        from gammavae_jax.log import Log

        archives = find_archives(self.year, self.machines, self.parts)
        mirror = _address(self.mirror)
        out = self.out or Path("data") / f"dcase{self.year}"
        log = Log(Console(stderr=True))
        console = table_console(stderr=self.json == Path("-"))
        published, commands = {}, []
        if self.list:
            published = _ask_once(archives, mirror, log)
            console.print(_table(archives, out, published))
        else:
            deliver(archives, out, log, self.unpack, mirror)
            commands = _next_commands(archives, out, Log(console))
        if self.json:
            tree = _tree(archives, out, mirror, published)
            write_json(self.json, {"year": self.year, **tree, "next": commands})
        return 0


def _address(mirror: str) -> str:
    """The address without a slash at its end.

    Raises:
        InputError: it is none of http or https.
    """
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(
            f"--mirror {printable(mirror)} is no address: give one such as "
            "https://zenodo.org"
        )
    return mirror.rstrip("/")


def _ask_once(archives: Sequence["Archive"], mirror: str, log) -> "Published":
    """What is published of the archives, without waiting for a server."""
    from gammavae_jax.data.download.delivery import published_of
    from gammavae_jax.data.download.session import new_session

    with new_session() as session:
        return published_of(archives, mirror, session, log, n_tries=1)


def _table(archives: Iterable["Archive"], out: Path, published: "Published") -> "Table":
    """A line for each archive."""
    from rich import box
    from rich.filesize import decimal
    from rich.table import Table

    from gammavae_jax.data.download.delivery import standing_of

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("part", "machine", "sections", "archive", "size", "here"):
        table.add_column(title, justify="right" if title == "size" else "left")
    for archive in archives:
        file, standing = published.get(archive), standing_of(archive, out)
        size = decimal(file.size) if file else "-"
        so_far = f" ({decimal(standing.n_bytes)})" if standing.word == "begun" else ""
        table.add_row(
            archive.part,
            archive.machine,
            " ".join(archive.sections),
            archive.name,
            size,
            f"{standing.word}{so_far}",
        )
    return table


def _next_commands(archives: Iterable["Archive"], out: Path, log) -> list[str]:
    """What trains and evaluates on the recordings that are there, said and returned."""
    from gammavae_jax.data.machines import find_clips, find_machines

    commands = []
    for folder in dict.fromkeys(out / archive.folder for archive in archives):
        ready, is_labelled = [], True
        machines = find_machines(folder)
        for machine in machines:
            try:
                sections = find_clips(folder, machine)
            except InputError as error:
                log.say(f"{machine} cannot be trained on: {error}")
                continue
            ready.append(machine)
            is_labelled &= all(f.name.label for files in sections for f in files.test)
        if not ready:
            continue
        which = ["--machines", *ready] if ready != machines else ["--all-machines"]
        words = ["python", "experiments/run.py", *which, "--data-root", str(folder)]
        commands.append(shlex.join(words))
        kind = "" if is_labelled else " (scores without an evaluation: no labels)"
        log.say(f"next{kind}:\n  {commands[-1]}")
    return commands


def _tree(
    archives: Iterable["Archive"], out: Path, mirror: str, published: "Published"
) -> dict[str, Any]:
    """What is there, for a program to read."""
    from gammavae_jax.data.download.delivery import standing_of

    found = []
    for archive in archives:
        standing, file = standing_of(archive, out), published.get(archive)
        found.append(
            {
                "part": archive.part,
                "machine": archive.machine,
                "sections": archive.sections,
                "url": f"{mirror}{archive.path}",
                "path": str(standing.path),
                "state": standing.word,
                "bytes": standing.n_bytes,
                "published_bytes": file.size if file else None,
                "published_md5": file.md5 if file else None,
            }
        )
    return {"out": str(out), "archives": found}
