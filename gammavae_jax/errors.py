"""The one error that users are meant to read, in one line."""

import os


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing (a file, a field, a machine) and
    the remedy. Command lines print it without a traceback and exit with status 2.
    """


def printable(path: str | os.PathLike[str]) -> str:
    r"""A file name for a one-line message: odd characters become `\n`, `\udcff`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(path))
