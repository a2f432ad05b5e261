"""Opens files that may turn out to be pipes or devices, without waiting forever.

Opening a named pipe waits for the process at its other end, and a device may never end.
A test ensures that the package opens files for reading only with these functions.
"""

import errno
import io
import os
import stat
import time
from pathlib import Path
from typing import BinaryIO

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # missing on Windows, as are named pipes
PIPE_SECONDS = 60.0  # how long to wait for a process that reads a pipe


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
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


def open_pipe(path: Path) -> BinaryIO:
    """Open an existing pipe or device for writing bytes.

    Raises:
        OSError: it cannot be opened, or no process has read the pipe for a minute.
    """
    return open(path, "wb", opener=_open_pipe)


def _open_regular(path: str, flags: int) -> int:
    number = os.open(path, flags | _NONBLOCK)  # no effect on a regular file
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` refuses folders
        return number
    os.close(number)
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", path)


def _open_pipe(path: str, flags: int) -> int:
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
