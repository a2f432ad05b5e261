"""Downloads of one file from the local server, and the files that they leave."""

import hashlib
import io
import random
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from support.broken_server import Server, cut_after

from gammavae_jax.data.download import fetch, request
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log

PATH = "/records/1/files/dev_fan.zip"


def zip_of(seed: int, size: int) -> bytes:
    """Return an archive of `size` bytes that holds one recording of random bytes."""
    data = b""
    for n_bytes in (0, size - len(_packed(data))):
        data = random.Random(seed).randbytes(n_bytes)
    return _packed(data)


def _packed(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("fan/train/x.wav"), data)
    return stream.getvalue()


DATA, OTHER = zip_of(0, 600_000), zip_of(1, 600_000)


def published(data: bytes) -> fetch.PublishedFile:
    """Return a file's size and checksum, in the form of a Zenodo record."""
    return fetch.PublishedFile(len(data), hashlib.md5(data).hexdigest())


KNOWN, UNKNOWN = published(DATA), fetch.PublishedFile()


class Loader:
    """A server of one file, and a download folder; waits are skipped."""

    def __init__(self, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.server, self.folder, self.monkeypatch = server, folder, monkeypatch
        self.path = folder / "dev_fan.zip"
        self.part = folder / "dev_fan.zip.part"
        self.note = folder / "dev_fan.zip.part.version"
        self.waits: list[float] = []
        self.printed = io.StringIO()
        server.files[PATH] = DATA
        self.set_sleep(self.waits.append)
        self.set_timeout(5.0)
        monkeypatch.setattr("random.uniform", lambda low, high: high)

    def __call__(self, published: fetch.PublishedFile = UNKNOWN) -> bytes:
        """Download the file, and return its bytes."""
        log = Log(Console(file=self.printed, width=1000))
        fetch.fetch(self.server.url + PATH, self.path, published, log)
        return self.path.read_bytes()

    def set_sleep(self, sleep):
        self.monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=sleep))

    def set_timeout(self, seconds: float):
        self.monkeypatch.setattr(request, "TIMEOUTS_S", (5.0, seconds))

    def begin(self):
        """Leave a third of the file on disk, as an interrupted process does."""
        self.server.faults.append(cut_after(200_000))
        with self.monkeypatch.context() as patch:
            patch.setattr(fetch, "ATTEMPTS", 1)
            with pytest.raises(InputError):
                self()
        self.server.requests.clear()

    @property
    def ranges(self) -> list[str | None]:
        """The byte ranges that were requested."""
        return [request.range for request in self.server.requests]

    @property
    def names(self) -> set[str]:
        """The names of the files in the folder."""
        return {path.name for path in self.folder.iterdir()}
