"""Recordings that are sent by HTTP: within limits, from clients fast and slow."""

import asyncio
import re
from collections.abc import AsyncIterator
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import NamedTuple

from gammavae_jax.live.refusal import Refusal, busy

_DEFAULT_NAME = "recording"
_LONGEST_NAME = 120
_MOST_PARTS = 16


class Upload(NamedTuple):
    """A recording as it was sent."""

    data: bytes
    name: str


class Uploads:
    """Reads bodies of requests, many at a time, in bounded memory.

    Args:
        most_bytes: of one body.
        seconds: for one body to arrive.
        most_bodies: of the greatest size, which memory is to be had for; bodies count
            by what has arrived of them, so those that come slowly leave room.
    """

    def __init__(self, most_bytes: int, seconds: float, most_bodies: int = 8):
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._room = most_bytes * most_bodies
        self.held = 0  # bytes

    async def read(
        self, chunks: AsyncIterator[bytes], declared: str | None
    ) -> bytearray:
        """The whole body; what it says of its own length is only half believed.

        Whoever gets it gives it back by `release`.

        Raises:
            Refusal: it is too large or too slow, or there is no room.
        """
        if declared is not None and declared.isdecimal():
            self._check(int(declared[:20]))
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in chunks:
                    self._check(len(body) + len(chunk))
                    if self.held + len(chunk) > self._room:
                        raise busy("too many recordings are arriving")
                    self.held += len(chunk)
                    body += chunk
        except TimeoutError as error:
            self.release(body)
            message = f"not all arrived within {self._seconds:g} s: send it faster"
            raise Refusal(408, message, "too_slow") from error
        except BaseException:
            self.release(body)
            raise
        return body

    def release(self, body: bytearray) -> None:
        """Room for others."""
        self.held -= len(body)

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._most_bytes:
            most = self._most_bytes / 1e6
            message = f"more than {most:g} MB: send a shorter recording"
            raise Refusal(413, message, "too_large")


def recording_of(body: bytes, content_type: str, name: str | None) -> Upload:
    """The recording in a body: the body itself, or the file in a form.

    Args:
        body: of the request.
        content_type: a form is `multipart/form-data`; anything else is believed to be
            audio.
        name: of the recording; that of a form's file unless given.

    Raises:
        Refusal: an empty body, or a form without a file.
    """
    if content_type.lower().startswith("multipart/form-data"):
        try:
            sent = _file_of_form(body, content_type)
        except (TypeError, ValueError) as error:  # the parser of e-mail has its limits
            raise Refusal(400, "the form's headers cannot be read") from error
    else:
        sent = Upload(body, "")
    if not sent.data:
        raise Refusal(400, "there is no recording in the request: send a WAV or FLAC")
    return Upload(sent.data, _readable(name or sent.name))


def _file_of_form(body: bytes, content_type: str) -> Upload:
    """The first file of a form (RFC 7578), in one pass over it."""
    boundary = _parameter(f"Content-Type: {content_type}", "boundary")
    if not 1 <= len(boundary) <= 70:
        raise Refusal(400, "the form has no boundary: let the client set Content-Type")
    mark = b"\r\n--" + boundary.encode("latin-1", "replace")
    # The first boundary may have no line before it.
    parts = (b"\r\n" + body).split(mark, _MOST_PARTS)
    for part in parts[1:-1]:
        head, separator, data = part.partition(b"\r\n\r\n")
        for line in head.decode("utf-8", "replace").split("\r\n") if separator else ():
            is_file = line.lower().startswith("content-disposition:")
            if is_file and (name := _parameter(line, "filename")):
                return Upload(data, name)
    raise Refusal(400, "the form has no whole file: send one field with a recording")


def _parameter(header: str, name: str) -> str:
    """A parameter of a header's value; empty if it is not there."""
    title, _, value = header.partition(":")
    message = Message()
    message[title] = re.sub(r"[\r\n]", " ", value)
    return collapse_rfc2231_value(message.get_param(name, "", title))


def _readable(name: str) -> str:
    """Of a name that a client chose, the last part, short and in one line."""
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(c if c.isprintable() else "?" for c in name).strip()
    return name[:_LONGEST_NAME] or _DEFAULT_NAME
