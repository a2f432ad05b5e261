"""Loading one file from the local server, and what came of it."""

import hashlib
import io
import random
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from support.broken_server import Server, cut_after

from gammavae_jax.data.download.patience import Patience
from gammavae_jax.data.download.session import new_session
from gammavae_jax.data.download.transfer import Wanted, fetch
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log

PATH = "/records/1/files/dev_fan.zip"
DATA = random.Random(0).randbytes(600_000)
OTHER = random.Random(1).randbytes(600_000)


def published(data: bytes) -> dict:
    """What a record tells of a file."""
    return {"size": len(data), "md5": hashlib.md5(data).hexdigest()}


KNOWN = published(DATA)


class Loading:
    """A server of one file, and a folder for it."""

    def __init__(self, server: Server, folder: Path):
        self.server, self.folder = server, folder
        self.path = folder / "dev_fan.zip"
        self.waits: list[float] = []
        self.said = io.StringIO()
        server.files[PATH] = DATA

    def __call__(self, size=None, md5=None, check=None, **changes) -> bytes:
        """Fetch the file, and give its bytes; what is published of it may be given."""
        patience = Patience(
            sleep=self.waits.append, chance=lambda: 1.0, timeouts_s=(5.0, 5.0)
        )
        wanted = Wanted(self.server.url + PATH, self.path, size, md5)
        log = Log(Console(file=self.said, width=1000))
        with new_session() as session:
            fetch(wanted, session, log, replace(patience, **changes), check)
        return self.path.read_bytes()

    def begin(self):
        """Leave a third of the file behind, as a process that was stopped does."""
        self.server.faults.append(cut_after(200_000))
        try:
            self(n_tries=1)
        except InputError:
            self.server.asked.clear()
        else:
            raise AssertionError

    @property
    def ranges(self) -> list[str | None]:
        """What was asked for."""
        return [asked.range for asked in self.server.asked]

    @property
    def names(self) -> set[str]:
        """The files in the folder."""
        return {path.name for path in self.folder.iterdir()}
