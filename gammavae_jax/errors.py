"""The exception for invalid input, and functions that raise it or format messages.

Some of the functions convert the operating system's file errors to this exception.
"""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT)  # no space left, quota exceeded
_DENIED = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
_WRITE_ERRORS = (*_FULL, errno.EFBIG, errno.EROFS, *_DENIED, errno.EIO)
_DAMAGE = (errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_MAX_REASON = 200  # characters


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


def path_remedy(path: str | os.PathLike[str], otherwise: str) -> str:
    """Return what to do about a missing path.

    If its folder has a file or folder with a similar name, suggest that one; otherwise
    return `otherwise`.
    """
    path = Path(path)
    try:
        names = set(os.listdir(path.parent)) - {path.name}  # it may be a broken link
    except (OSError, ValueError):  # ValueError: a null character
        return otherwise
    for name in difflib.get_close_matches(path.name, sorted(names), n=1):
        return f"did you mean {printable(path.with_name(name))!r}?"
    return otherwise


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


def as_os_error(error: Exception, path: Path) -> OSError:
    """Convert a library's exception about `path` to an OSError."""
    if isinstance(error, OSError) and error.strerror:
        return error
    message = str(error)  # libraries often quote the system's error text
    for number in _WRITE_ERRORS:
        if os.strerror(number) in message:
            return OSError(number, os.strerror(number), str(path))
    return OSError(errno.EIO, " ".join(message.split())[:_MAX_REASON], str(path))


@contextlib.contextmanager
def writing(out: Path, resumable: bool = False) -> Iterator[None]:
    """Convert an OSError raised in the block to an InputError.

    Args:
        out: the file or folder that the block writes.
        resumable: whether `--resume` could continue the run that failed.

    Raises:
        InputError: `out` cannot be written; the message states a reason and a remedy.
    """
    try:
        yield
    except BrokenPipeError:  # from printing, not from writing files
        raise
    except OSError as error:
        raise unwritable(error, out, resumable) from error


def is_damage(error: OSError) -> bool:
    """Return whether an error means that a file is missing or damaged.

    Denied access is not treated as damage.
    """
    return error.errno in _DAMAGE


def is_full(error: OSError) -> bool:
    """Return whether a full disk or an exhausted quota caused an error."""
    return error.errno in _FULL


def unusable(error: OSError) -> InputError:
    """Return the error for a file that cannot be read or written."""
    if error.errno in (*_FULL, errno.EROFS):
        return unwritable(error)
    return _refusal("used", error, "check that this process may read and write it")


def unwritable(
    error: OSError, path: str | Path | None = None, resumable: bool = False
) -> InputError:
    """Return the error for a path that cannot be written.

    If `path` is None, the error names the path that is stored in `error`.
    """
    remedy = "choose another path for --out"
    if error.errno in _FULL:
        hint = " (--resume then continues the run)" if resumable else ""
        remedy = f"free up disk space{hint}, or {remedy}"
    return _refusal("written", error, remedy, path)


def _refusal(
    verb: str, error: OSError, remedy: str, path: str | Path | None = None
) -> InputError:
    name, reason = str(path or error.filename or "a file"), error.strerror or error
    return InputError(f"{name!r} cannot be {verb} ({reason}): {remedy}")
