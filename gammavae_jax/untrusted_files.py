"""Opens and parses files that may be anything, because someone else put them there.

Opening a named pipe waits for the process at its other end, and a device may never end.
JSON may be nested deeply, or hold numbers that are not finite. Tests ensure that the
package opens files for reading, and parses JSON, only with these functions.
"""

import errno
import io
import json
import math
import os
import stat
import time
from pathlib import Path
from typing import Any

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # missing on Windows, as are named pipes
PIPE_SECONDS = 60.0  # how long to wait for a process that reads a pipe


def open_regular(path: str | bytes | os.PathLike[str]) -> io.BufferedReader:
    """Open a file for reading bytes.

    Raises:
        OSError: the file cannot be opened, or is a folder, a pipe or a device.
    """
    return open(path, "rb", opener=_open_regular)


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file; raise an OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a UTF-8 file, with every line ending as LF.

    `errors` says how to handle bytes that are not UTF-8; by default, they raise a
    UnicodeDecodeError. Otherwise, see `read_bytes`.
    """
    with io.TextIOWrapper(open_regular(path), "utf-8", errors) as file:
        return file.read()


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; for errors, see `read_text`, `parse_json`."""
    return parse_json(read_text(path))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or has a number that is
            not finite.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


def open_pipe(path: Path) -> io.BufferedWriter:
    """Open an existing pipe or device for writing bytes.

    Raises:
        OSError: it cannot be opened, or no process has read the pipe for a minute.
    """
    return open(path, "wb", opener=_open_pipe)


def _open_regular(path: str | bytes | os.PathLike[str], flags: int) -> int:
    number = os.open(path, flags | _NONBLOCK)  # no effect on a regular file
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` refuses folders
        return number
    os.close(number)
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", path)


def _open_pipe(path: str | os.PathLike[str], flags: int) -> int:
    deadline = time.monotonic() + PIPE_SECONDS
    while True:
        try:
            number = os.open(path, flags | _NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # raised if there is no reader
                raise
        else:
            os.set_blocking(number, True)
            return number
        if time.monotonic() > deadline:
            raise OSError(errno.ENXIO, "no process reads this pipe", path)
        time.sleep(0.05)
