"""Recordings in request bodies, read within limits on size, time and memory."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gammavae_jax.live.refusal import Refusal, busy

_DEFAULT_NAME = "recording"
_LONGEST_NAME = 120
_MOST_PARTS = 16
_MOST_HEADERS = 8  # of a part
_LONGEST_HEADER = 4096  # bytes
_CHUNK = 65536  # bytes

# It would report every malformed form to standard error.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Upload(NamedTuple):
    """An uploaded recording."""

    data: bytes
    name: str


class Uploads:
    """Reads the bodies of concurrent requests in bounded memory.

    Args:
        most_bytes: in one body.
        seconds: in which a body must arrive.
        most_bodies: of the largest size that fit in memory. Only bytes that have
            arrived count, so slow clients leave room for others.
    """

    def __init__(self, most_bytes: int, seconds: float, most_bodies: int = 8):
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._capacity = most_bytes * most_bodies
        self.held = 0  # bytes

    async def read(
        self, chunks: AsyncIterator[bytes], declared: str | None
    ) -> bytearray:
        """Return the whole body; the caller must `release` it.

        Args:
            chunks: of the body.
            declared: the header `Content-Length`; the bytes are counted as well.

        Raises:
            Refusal: the body is too large or too slow, or memory is short.
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
                message = f"not received within {self._seconds:g} s: send it faster"
                raise Refusal(408, message, "too_slow") from error
            raise
        return body

    def release(self, body: bytearray) -> None:
        """Free the memory of a body."""
        self.held -= len(body)

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._most_bytes:
            most = self._most_bytes / 1e6
            message = f"more than {most:g} MB: send a shorter recording"
            raise Refusal(413, message, "too_large")


def recording_of(body: bytes, content_type: str, name: str | None) -> Upload:
    """Return the recording in a request body.

    Args:
        body: of the request.
        content_type: `multipart/form-data` is a form whose first file is the recording;
            any other body is the recording itself.
        name: of the recording; default: the name of the form's file.

    Raises:
        Refusal: the body is empty, or a form without a file.
    """
    upload = Upload(body, "")
    if content_type.lower().startswith("multipart/form-data"):
        try:
            upload = _Form(content_type).first_file(body)
        except FormParserError as error:
            raise Refusal(400, "the form is malformed: send one file field") from error
    if not upload.data:
        raise Refusal(400, "the request has no recording: send a WAV or FLAC file")
    return Upload(upload.data, _display_name(name or upload.name))


class _Form:
    """A multipart form (RFC 7578), parsed up to the end of its first file."""

    def __init__(self, content_type: str):
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:
            message = "the form has no boundary: let the client set Content-Type"
            raise Refusal(400, message)
        self._file: Upload | None = None
        self._n_parts = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_field,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_LONGEST_HEADER,
        )

    def first_file(self, body: bytes) -> Upload:
        for start in range(0, len(body), _CHUNK):
            self._parser.write(body[start : start + _CHUNK])
            if self._file is not None:
                return self._file
        raise Refusal(400, "the form has no complete file: send one file field")

    def _begin_part(self) -> None:
        self._n_parts += 1
        if self._n_parts > _MOST_PARTS:
            raise Refusal(400, f"the form has more than {_MOST_PARTS} parts")
        self._name, self._data = "", bytearray()
        self._field, self._value = b"", b""

    def _add_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = _file_name(self._value)
        self._field, self._value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name:
            self._data += data[start:end]

    def _end_part(self) -> None:
        if self._name and self._file is None:
            self._file = Upload(bytes(self._data), self._name)


def _file_name(disposition: bytes) -> str:
    """Return the file name in a Content-Disposition; empty for other form fields."""
    text = disposition.decode("utf-8", "replace")
    encoded = re.search(r"""filename\*\s*=\s*utf-8''([^\s;"]+)""", text, re.IGNORECASE)
    if encoded is not None:  # RFC 5987, which some clients use for non-ASCII names
        return unquote(encoded[1])
    options = parse_options_header(disposition)[1]
    return options.get(b"filename", b"").decode("utf-8", "replace")


def _display_name(name: str) -> str:
    """Return the last part of a client's file name, short and printable."""
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(c if c.isprintable() else "?" for c in name).strip()
    return name[:_LONGEST_NAME] or _DEFAULT_NAME
