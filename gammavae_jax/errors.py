"""The one error that users are meant to read, in one line."""

import difflib
import os
from collections.abc import Iterable, Sequence
from typing import Any


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing (a file, a field, a machine) and
    the remedy. Command lines print it without a traceback and exit with status 2.
    """


def printable(path: str | os.PathLike[str]) -> str:
    r"""A file name for a one-line message: odd characters become `\n`, `\udcff`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(path))


_MOST_NAMES = 30  # in a message


def unknown_name(what: str, name: Any, known: Iterable[str]) -> str:
    """A message for a name that is not among the known ones, with the likeliest."""
    known = list(known)
    # A field is often named right but put in the wrong group.
    near = [k for k in known if k.split(".")[-1] == str(name).split(".")[-1]]
    near = near or difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of {names_text(known)}"
    return f"unknown {what} {str(name)!r}: {hint}"


def names_text(names: Sequence[str]) -> str:
    """The first names of many, and how many more there are."""
    rest = len(names) - _MOST_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(names[:_MOST_NAMES]) + more
