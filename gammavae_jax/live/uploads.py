"""Uploaded recordings, read within limits on size, time and memory."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gammavae_jax.live.metrics import Refusal, busy

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_DEFAULT_NAME = "recording"
_LONGEST_NAME = 120
_MAX_PARTS = 16
_CHUNK = 65536  # bytes

# It would report every malformed form to standard error.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Upload(NamedTuple):
    """An uploaded recording."""

    data: bytes
    name: str


class Uploads:
    """A reader of the bodies of concurrent requests, in bounded memory.

    Each body must arrive within `seconds`. Memory is limited to `max_bodies`
    bodies of the largest size; only bytes that have arrived count, so slow clients
    leave room for others.
    """

    def __init__(self, max_bytes: int, seconds: float, max_bodies: int = 8):
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._capacity = max_bytes * max_bodies
        self.held = 0  # bytes

    async def read(
        self, chunks: AsyncIterator[bytes], declared: str | None
    ) -> bytearray:
        """Read a whole request body, which the caller must `release` later.

        A body is refused if it is too large or too slow, or if memory is short. Bytes
        are counted as they arrive, whatever the declared length.
        """
        if declared is not None and declared.isdecimal():
            self._check_size(int(declared[:20]))
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in chunks:
                    self._check_size(len(body) + len(chunk))
                    if self.held + len(chunk) > self._capacity:
                        raise busy("too many recordings are arriving")
                    self.held += len(chunk)
                    body += chunk
        except BaseException as error:
            self.release(body)
            if isinstance(error, TimeoutError):
                problem = f"the recording was not received within {self._seconds:g} s"
                message = f"{problem}: send it faster"
                raise Refusal(408, message, "too_slow") from error
            raise
        return body

    def release(self, body: bytearray) -> None:
        """Free a body's memory."""
        self.held -= len(body)

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            most = self._max_bytes / 1e6
            message = f"the request is over {most:g} MB: send a shorter recording"
            raise Refusal(413, message, "too_large")


def recording_of(body: bytes, content_type: str, name: str | None) -> Upload:
    """Extract the recording from a request body.

    In `multipart/form-data`, it is the first file; any other body is the recording
    itself. The default name is the form's file name.

    Raises:
        Refusal: there is no recording.
    """
    upload = Upload(body, "")
    if content_type.lower().startswith("multipart/form-data"):
        try:
            upload = _first_file(body, content_type)
        except FormParserError as error:
            raise Refusal(400, "the form is malformed: send one file field") from error
    if not upload.data:
        raise Refusal(400, "the request has no recording: send a WAV or FLAC file")
    return Upload(upload.data, _display_name(name or upload.name))


class _Part(NamedTuple):
    headers: bytearray
    data: bytearray

    @property
    def file_name(self) -> str:
        """The file name, or an empty string for an ordinary field."""
        found = re.search(rb"(?im)^content-disposition(.*)$", self.headers)
        header = bytes(found[1]) if found else b""
        # RFC 5987, which some clients use for names that are not ASCII.
        if encoded := re.search(rb"(?i)filename\*=utf-8''([^\s;]+)", header):
            return unquote(encoded[1])
        name = parse_options_header(header)[1].get(b"filename", b"")
        return name.decode("utf-8", "replace")


def _first_file(body: bytes, content_type: str) -> Upload:
    """Return the first file of a multipart form (RFC 7578)."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise Refusal(400, "the form has no boundary: let the client set Content-Type")
    parts: list[_Part] = []
    complete: list[_Part] = []

    def add_header(data: bytes, start: int, end: int) -> None:
        parts[-1].headers.extend(data[start:end])

    def add_data(data: bytes, start: int, end: int) -> None:
        parts[-1].data.extend(data[start:end])

    callbacks: MultipartCallbacks = {
        "on_part_begin": lambda: parts.append(_Part(bytearray(), bytearray())),
        "on_header_begin": lambda: parts[-1].headers.extend(b"\n"),
        "on_header_field": add_header,
        "on_header_value": add_header,
        "on_part_data": add_data,
        "on_part_end": lambda: complete.append(parts[-1]),
    }
    parser = MultipartParser(
        boundary, callbacks, max_header_count=8, max_header_size=4096
    )
    for start in range(0, len(body), _CHUNK):
        parser.write(body[start : start + _CHUNK])
        for part in complete[:_MAX_PARTS]:
            if name := part.file_name:
                return Upload(bytes(part.data), name)
        if len(parts) > _MAX_PARTS:
            raise Refusal(400, f"the form has over {_MAX_PARTS} parts: send only one")
        complete.clear()
    raise Refusal(400, "the form has no complete file: send one file field")


def _display_name(name: str) -> str:
    """Return the base name of a client's file, shortened and made printable."""
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(c if c.isprintable() else "?" for c in name).strip()
    return name[:_LONGEST_NAME] or _DEFAULT_NAME
