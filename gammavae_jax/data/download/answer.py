"""What a server's answer to "this file, from that byte on" means.

HTTP, RFC 9110: the status, `Content-Range` (14.4), `Retry-After` (10.2.3), and what
makes two answers speak of the same bytes (`ETag`, `Last-Modified`; 8.8, 13.1.5).
"""

import datetime
import email.utils
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from gammavae_jax.errors import InputError

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")


class Broken(Exception):
    """A transfer that ended early and may go on: the reason, in words."""

    def __init__(
        self, reason: str, asked_s: float | None = None, is_of_file: bool = False
    ):
        super().__init__(reason)
        self.asked_s = asked_s  # seconds the server asks to wait
        self.is_of_file = is_of_file  # other files need not meet it


class CannotResume(Exception):
    """What the server sends does not go on from the bytes there are: the reason."""


class NotServed(InputError):
    """The server does not give this one file; others it may."""


class Version(NamedTuple):
    """By what a server tells one state of a file from another."""

    etag: str = ""
    last_modified: str = ""
    size: int | None = None  # bytes; None where the server does not say

    @property
    def validator(self) -> str:
        """What `If-Range` takes: a strong tag, or else a date; "" where neither is."""
        is_strong = self.etag.startswith('"')
        return self.etag if is_strong else self.last_modified

    def differs_from(self, other: "Version") -> bool:
        """Whether both say something, and not the same."""
        return any(a and b and a != b for a, b in zip(self, other, strict=True))


class Body(NamedTuple):
    """What the bytes that follow are."""

    start: int  # of the file's bytes, the first of them
    version: Version  # says nothing of a file that is packed on the way


def body_of(
    status: int, headers: Mapping[str, str], start: int, known: Version
) -> Body:
    """What a server's answer holds, after it was asked for a file.

    Args:
        status: of the answer.
        headers: of the answer, by names in any case.
        start: the first byte that was asked for; 0 is the whole file.
        known: the version that the bytes before `start` are of.

    Raises:
        Broken: the server cannot now, but may later.
        CannotResume: it gives other bytes than were asked for, or another version's.
        NotServed: it will not give the file.
    """
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    is_encoded = encoding not in ("", "identity")
    if status == HTTPStatus.OK:
        if is_encoded:
            return Body(0, Version())
        return Body(0, _version(headers, _whole_number(headers.get("Content-Length"))))
    if status == HTTPStatus.PARTIAL_CONTENT:
        if is_encoded:
            raise CannotResume("the server packs parts of the file on the way")
        return _part_of(headers, start, known)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise CannotResume(f"the server's file ends before byte {start}")
    if status in _PASSING:
        raise Broken(f"the server answers {_named(status)}", _retry_after_s(headers))
    raise NotServed(f"the server answers {_named(status)}")


def _part_of(headers: Mapping[str, str], start: int, known: Version) -> Body:
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        raise CannotResume("the server does not say which bytes it sends")
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if first != start or start == 0 or last < first or last >= (total or last + 1):
        raise CannotResume(
            f"asked for the bytes from {start} on, the server sends {match[0][6:]}"
        )
    version = _version(headers, total)
    if version.differs_from(known):
        raise CannotResume("the file on the server is not the one of before")
    return Body(start, version)


def _version(headers: Mapping[str, str], size: int | None) -> Version:
    etag, date = headers.get("ETag", ""), headers.get("Last-Modified", "")
    return Version(etag.strip(), date.strip(), size)


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text.strip()) else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number of them or from a date; None where it says neither."""
    text = headers.get("Retry-After", "")
    seconds = _whole_number(text)
    if seconds is not None:
        return float(seconds)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.UTC)
    return max((until - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
