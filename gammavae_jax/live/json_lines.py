"""Lines of JSON for other programs, on standard output or at the end of a file."""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from gammavae_jax.errors import InputError, printable


class OutputLost(Exception):
    """The lines of JSON have nowhere to go any more; one line that says why."""


class JsonLines:
    """Adds a line at a time, each out at once.

    Args:
        path: `-` is standard output; a file is added to.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, path: Path):
        self._name = "standard output" if path == Path("-") else printable(path)
        self._is_stdout = path == Path("-")
        try:
            self._file = sys.stdout if self._is_stdout else _opened(path)
        except OSError as error:
            raise InputError(self._reason(error)) from error

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            OutputLost: it cannot be written, and none can be from then on.
        """
        try:
            self._file.write(json.dumps(entry, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            self._drop()
            raise OutputLost(self._reason(error)) from error

    def close(self) -> None:
        """Close the file."""
        if not self._is_stdout:
            self._file.close()

    def _drop(self) -> None:
        """Forget what could not be written, which Python would try again at the end."""
        if self._is_stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        with contextlib.suppress(OSError):
            self._file.close()

    def _reason(self, error: OSError) -> str:
        return (
            f"--json: {self._name}: {error.strerror}: give a file that this user may "
            "write"
        )


def _opened(path: Path) -> IO[str]:
    """The file to add to, after a line that was cut off when the power went."""
    file = path.open("a+b")
    if file.tell() and not _ends_in_line(file):
        file.write(b"\n")
    file.close()
    return path.open("a", encoding="utf-8", newline="")


def _ends_in_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
