"""Downloads a zip archive and renames it once it is complete and verified.

The bytes are collected in `x.zip.part`. Beside it, `x.zip.part.version` records which
version of the archive they belong to, so that a later process can resume.
"""

import hashlib
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from requests import Response
from rich.filesize import decimal
from tenacity import RetryCallState

from gammavae_jax.data.download.request import Refused, Transient, get, retrying
from gammavae_jax.errors import InputError, printable, writing
from gammavae_jax.files import open_regular, read_bytes, require_room, write_text
from gammavae_jax.log import Log

ATTEMPTS = 25  # in a row without new bytes; they take about seven minutes
_MAX_WRONG = 2  # give up after this many downloads with wrong bytes
_CHUNK, _MEGABYTE = 1 << 18, 1_000_000  # bytes


class WrongBytes(Transient):
    """The error raised if the server sends bytes that are not part of the archive."""


class PublishedFile(NamedTuple):
    """An archive's published size and checksum, if any."""

    size: int | None = None  # bytes
    md5: str | None = None  # hexadecimal


def fetch(url: str, path: Path, published: PublishedFile, log: Log) -> None:
    """Download a zip archive; resume an unfinished download.

    Args:
        url: the archive's URL.
        path: the file to create; its folder is created if necessary.
        published: the size and checksum to verify. Without a checksum, the archive
            is verified by the checksums inside it.
        log: shows progress and broken connections.

    Raises:
        Refused: the server does not provide the archive, or provides wrong bytes.
        InputError: the server cannot be reached, or the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        download = _Download(url, path, published, log)
        retry = retrying(ATTEMPTS).copy(
            after=download.reset_count, before_sleep=download.announce
        )
        try:
            retry(download.attempt)
        except (Refused, Transient) as error:
            is_refused = isinstance(error, Refused)
            tried = "" if is_refused else f"no new bytes in {ATTEMPTS} attempts: "
            raise (Refused if is_refused else InputError)(
                f"{path.name}: {tried}{error} ({decimal(download.size)} kept): run the "
                f"same command again later to resume, or download {url} with a browser "
                f"into {printable(path.parent)}"
            ) from error


def size_so_far(path: Path) -> int:
    """Return how many bytes of an unfinished download are on disk."""
    part = path.with_name(f"{path.name}.part")
    return part.stat().st_size if part.is_file() else 0


@dataclass
class _Download:
    """An unfinished download: its bytes on disk, and the attempts to complete it."""

    url: str
    path: Path
    published: PublishedFile
    log: Log

    def __post_init__(self):
        self.part = self.path.with_name(f"{self.path.name}.part")
        self.note = self.path.with_name(f"{self.path.name}.part.version")
        self.most_bytes = self.n_wrong = 0

    @property
    def size(self) -> int:
        """The number of bytes on disk."""
        return size_so_far(self.path)

    def reset_count(self, state: RetryCallState) -> None:
        """Reset the count of failed attempts once new bytes have arrived."""
        if self.size > self.most_bytes:
            self.most_bytes, state.attempt_number = self.size, 1

    def announce(self, state: RetryCallState) -> None:
        """Print why an attempt failed and when the next one starts."""
        reason = state.outcome and state.outcome.exception()
        self.log.say(
            f"{self.path.name}: {reason} ({decimal(self.size)} kept): next attempt in "
            f"{state.upcoming_sleep:.0f} s"
        )

    def attempt(self) -> None:
        """Request the missing bytes, verify the archive and rename it."""
        try:
            if self.size == 0 or self.size != self.published.size:
                self._receive()
            self._verify()
        except WrongBytes as error:
            self.part.unlink(missing_ok=True)
            self.n_wrong += 1
            if self.n_wrong == _MAX_WRONG:
                raise Refused(f"{error}, in {_MAX_WRONG} downloads") from error
            raise
        with self.part.open("ab") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)
        self.note.unlink(missing_ok=True)

    def _receive(self) -> None:
        start, headers = 0, {}
        note = read_bytes(self.note).decode("latin-1") if self.note.is_file() else ""
        validator = " ".join(note.split())
        if self.size and validator and not self.n_wrong:
            start = self.size
            headers = {"Range": f"bytes={start}-", "If-Range": validator}
        with get(self.url, headers) as response:
            if response.status_code == 416:
                return  # no bytes are missing
            total = self._total_in(response, start)
            require_room(self.part.parent, (total or 0) - self.size)
            if response.status_code == 200:
                start = 0
                self.part.unlink(missing_ok=True)
                # A weak ETag cannot be used in `If-Range`.
                etag = response.headers.get("ETag", "")
                date = response.headers.get("Last-Modified", "")
                write_text(self.note, etag if etag[:1] == '"' else date)
            self._append(response, start, total)
        if total is not None and self.size < total:
            missing = decimal(total - self.size)
            raise Transient(f"the connection broke while {missing} were still missing")

    def _total_in(self, response: Response, start: int) -> int | None:
        """Return the archive's size, or None if it is unknown."""
        headers, expected = response.headers, self.published.size
        if headers.get("Content-Type", "").startswith("text/html"):
            raise Refused("the server sent a web page instead of the archive")
        match = re.fullmatch(r"(\d{1,18})", headers.get("Content-Length", ""))
        if response.status_code == 206:
            given = headers.get("Content-Range", "")
            match = re.fullmatch(rf"bytes {start}-\d+/(\d{{1,18}})", given)
            if match is None or start == 0:
                raise WrongBytes("the server sent bytes that were not requested")
        size = int(match[1]) if match else expected
        if expected not in (None, size):
            raise Refused(
                f"the file on the server has {size} bytes, but the published size is "
                f"{expected}"
            )
        return size

    def _append(self, response: Response, size: int, total: int | None) -> None:
        in_megabytes = [n // _MEGABYTE for n in (total or size, size)]
        with (
            self.part.open("ab") as file,
            self.log.progress(f"{self.path.name}, MB", *in_megabytes) as advance,
        ):
            # `read1` returns what has arrived, so a broken connection loses nothing.
            while data := response.raw.read1(_CHUNK, decode_content=False):
                if total is not None and size + len(data) > total:
                    raise WrongBytes(f"the server sent more than {total} bytes")
                file.write(data)
                file.flush()
                if (size + len(data)) // _MEGABYTE > size // _MEGABYTE:
                    advance()
                size += len(data)

    def _verify(self) -> None:
        """Verify the archive against its published checksum.

        If none was published, verify the zip archive's internal checksums instead.
        """
        published, md5 = self.published.md5, hashlib.md5(usedforsecurity=False)
        with open_regular(self.part) as file:
            if published is None:
                _require_intact_zip(file)
            elif hashlib.file_digest(file, lambda: md5).hexdigest() != published:
                raise WrongBytes(
                    f"the checksum is {md5.hexdigest()} instead of the published "
                    f"{published}"
                )


def _require_intact_zip(file: BinaryIO) -> None:
    try:
        damaged = zipfile.ZipFile(file).testzip()
    except Exception as error:  # `zipfile` raises errors of many kinds
        raise WrongBytes("the file is not a complete zip archive") from error
    if damaged is not None:
        raise WrongBytes("the zip archive is corrupt")
