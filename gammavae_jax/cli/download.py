"""`gammavae download`: downloads the challenge's recordings, by year and machine."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import tyro

from gammavae_jax.cli.shared import new_table, table_console, write_json
from gammavae_jax.errors import InputError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from gammavae_jax.data.download.catalogue import Archive
    from gammavae_jax.data.download.fetch import PublishedFile
    from gammavae_jax.log import Log


@dataclass(frozen=True)
class Download:
    """Download the challenge's recordings, by year and machine.

    The zip archives need not be unpacked. To resume an interrupted download, run the
    same command again.
    """

    year: tyro.conf.Positional[int]
    """Year of the challenge, 2020 to 2026."""
    machines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Machine types to download, such as fan. Default: all of that year's types."""
    parts: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PART ...")] = ()
    """dev (the development set, whose test clips are labelled), eval (the evaluation
    set, whose test clips are not), or both. Default: both."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the archives. Default: data/dcase<year>."""
    list: bool = False
    """Only list the archives and show which are on disk; download nothing."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the list of archives as JSON. With '-', the JSON goes to standard output,
    and all other output to standard error."""
    mirror: Annotated[str, tyro.conf.arg(metavar="URL")] = "https://zenodo.org"
    """Server to use instead of Zenodo; it must have the archives at the same paths."""

    def run(self) -> int:
        """Download the archives that are missing or, with --list, list all archives."""
        from gammavae_jax.data.download.catalogue import (
            deliver,
            find_archives,
            published_files,
        )
        from gammavae_jax.log import Log

        archives = find_archives(self.year, self.machines, self.parts)
        mirror = _checked_url(self.mirror)
        out = self.out or Path("data") / f"dcase{self.year}"
        log = Log()
        console = table_console(stderr=self.json == Path("-"))
        published, commands = {}, []
        if self.list:
            published = published_files(archives, mirror, log, attempts=1)
        else:
            deliver(archives, out, log, mirror)
            commands = _next_commands(archives, out, Log(console))
        if not self.list and not self.json:
            return 0
        rows = _rows(archives, out, mirror, published)
        if self.list:
            console.print(_table(rows))
        if self.json:
            tree = {"year": self.year, "out": str(out), "archives": rows}
            write_json(self.json, {**tree, "next": commands})
        return 0


def _checked_url(mirror: str) -> str:
    """Check the URL and return it without a trailing slash."""
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        problem = f"--mirror {printable(mirror)} is not a URL"
        raise InputError(f"{problem}: use a URL such as https://zenodo.org")
    return mirror.rstrip("/")


def _table(rows: Sequence[dict[str, Any]]) -> "Table":
    """Build a table from the rows that `_rows` returns."""
    from rich.filesize import decimal

    columns = ("part", "machine", "sections", "archive", "size", "on disk")
    table = new_table(columns, numbers=["size"])
    for row in rows:
        so_far = f" ({decimal(row['bytes'])})" if row["state"] == "partial" else ""
        size = decimal(row["published_bytes"]) if row["published_bytes"] else "-"
        sections, name = " ".join(row["sections"]), Path(row["path"]).name
        state = f"{row['state']}{so_far}"
        table.add_row(row["part"], row["machine"], sections, name, size, state)
    return table


def _next_commands(archives: Sequence["Archive"], out: Path, log: "Log") -> list[str]:
    """Print and return commands that train and evaluate models on the recordings."""
    from gammavae_jax.data.machines import find_clips, find_machines

    commands = []
    for folder in dict.fromkeys(out / archive.folder for archive in archives):
        usable, is_labelled = [], True
        machines = find_machines(folder)
        for machine in machines:
            try:
                sections = find_clips(folder, machine)
            except InputError as error:
                log.say(f"{machine} cannot be used for training: {error}")
                continue
            usable.append(machine)
            is_labelled &= all(f.name.label for files in sections for f in files.test)
        if not usable:
            continue
        which = ["--machines", *usable] if usable != machines else ["--all-machines"]
        words = ["python", "experiments/run.py", *which, "--data-root", str(folder)]
        commands.append(shlex.join(words))
        kind = "" if is_labelled else " (scores only: the test clips have no labels)"
        log.say(f"next{kind}:\n  {commands[-1]}")
    return commands


def _rows(
    archives: Iterable["Archive"],
    out: Path,
    mirror: str,
    published: dict["Archive", "PublishedFile"],
) -> list[dict[str, Any]]:
    """Return one row per archive, as written by `--json`."""
    from gammavae_jax.data.download.catalogue import status_of

    rows = []
    for archive in archives:
        status, file = status_of(archive, out), published.get(archive)
        rows.append(
            {
                "part": archive.part,
                "machine": archive.machine,
                "sections": archive.sections,
                "url": f"{mirror}{archive.url_path}",
                "path": str(status.path),
                "state": status.word,
                "bytes": status.n_bytes,
                "published_bytes": file.size if file else None,
                "published_md5": file.md5 if file else None,
            }
        )
    return rows
