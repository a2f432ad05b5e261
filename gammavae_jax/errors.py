"""The exception for invalid input, and functions that raise it or format messages."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class InputError(ValueError):
    """An error in the user's input.

    The message is one line that names the problem (with the file, field or machine) and
    the remedy. Commands print it without a traceback and exit with status 2.
    """


def printable(path: str | os.PathLike[str]) -> str:
    r"""Escape a path's unprintable characters, such as `\n`, for a message."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(path))


_MAX_NAMES = 30  # in a message


def unknown_name(what: str, name: Any, known: Iterable[str]) -> str:
    """Return a message that rejects an unknown name and suggests the closest one."""
    known = list(known)
    # A field is often spelt right but put in the wrong group.
    near = [k for k in known if k.split(".")[-1] == str(name).split(".")[-1]]
    near = near or difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of {names_text(known)}"
    return f"unknown {what} {str(name)!r}: {hint}"


def names_text(names: Sequence[str], most: int = _MAX_NAMES) -> str:
    """List the first `most` names as text, and state how many more there are."""
    n_more = len(names) - most
    more = f" and {n_more} more" if n_more > 0 else ""
    return ", ".join(names[:most]) + more


RATE = "must be greater than 0 and less than 1: for 10 %, write 0.1"

# Functions that check whether a value is in a range. The keys describe the ranges in
# error messages.
_RANGES: dict[str, Callable[[Any], bool]] = {
    "must be greater than 0": lambda value: value > 0,
    "must be at least 0": lambda value: value >= 0,
    "must be between 0 and 1": lambda value: 0 < value < 1,
    RATE: lambda value: 0 < value < 1,
    "must be from 0 to 1": lambda value: 0 <= value <= 1,
    "must be at least 2 windows": lambda value: value >= 2,
    "must be at least 2; for one model, set train.split=clip": lambda value: value >= 2,
}


def require(config: Any, group: str, remedy: str, *names: str) -> None:
    """Check that fields of a configuration are within a range.

    Args:
        config: the object with the fields.
        group: the prefix of the fields' names in messages, such as `model.`.
        remedy: the range, as one of the keys of `_RANGES`.
        *names: the names of the fields.

    Raises:
        InputError: a field is outside the range.
    """
    for name in names:
        value = getattr(config, name)
        if not _RANGES[remedy](value):
            raise InputError(f"{group}{name} is {value}: it {remedy}")


def require_pattern(name: str, value: str) -> None:
    """Check that a configuration field is a valid regular expression.

    Raises:
        InputError: the value is not a valid regular expression.
    """
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            f"{name} is {value!r}, which is not a regular expression ({error}): use "
            "one like 'session_[0-9]+'"
        ) from error
