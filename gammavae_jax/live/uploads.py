"""Receives and parses uploaded recordings as they arrive, and enforces limits."""

import asyncio
import contextlib
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
_LONGEST_TYPE = 300  # characters
_MAX_PARTS = 16
_PARAMETERS = ("machine", "name")  # of the URL

# The library would report every malformed form to standard error.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Upload(NamedTuple):
    """An uploaded recording."""

    data: bytes
    name: str


class Uploads:
    """Reads concurrent request bodies and limits the memory they use.

    Each body must arrive within `seconds`. Memory is limited to `max_bodies` bodies of
    the largest size; only bytes that have arrived count, so slow clients leave memory
    for others.
    """

    def __init__(self, max_bytes: int, seconds: float, max_bodies: int = 8):
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._capacity = max_bytes * max_bodies
        self.n_bytes = 0  # of the bodies in memory

    @contextlib.asynccontextmanager
    async def received(
        self, chunks: AsyncIterator[bytes], declared: str | None, body: "Body"
    ) -> AsyncIterator[Upload]:
        """Read a whole request body.

        The body counts towards the memory limit until the `with` block ends.

        A body is refused if it is too large or too slow, or if memory is full. Bytes
        are counted as they arrive, regardless of the declared length.
        """
        if declared is not None and declared.isdecimal():
            self._check_size(int(declared[:20]))
        n_bytes = 0
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    async for chunk in chunks:
                        self._check_size(n_bytes + len(chunk))
                        if self.n_bytes + len(chunk) > self._capacity:
                            raise busy("too many recordings are arriving")
                        self.n_bytes += len(chunk)
                        n_bytes += len(chunk)
                        body.add(chunk)
            except TimeoutError as error:
                problem = f"the recording was not received within {self._seconds:g} s"
                raise Refusal(408, f"{problem}: send it faster", "too_slow") from error
            yield body.upload()
        finally:
            self.n_bytes -= n_bytes

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            most = self._max_bytes / 1e6
            message = f"the request is over {most:g} MB: send a shorter recording"
            raise Refusal(413, message, "too_large")


class Body:
    """A request body, to which bytes are added as they arrive.

    If the body is `multipart/form-data`, the recording is the form's only file.
    Any other body is the recording itself. The default name is the form's file name.
    """

    def __init__(self, content_type: str, name: str | None):
        self._name = name
        self._data = bytearray()
        self._form: _Form | None = None
        if content_type.lower().startswith("multipart/form-data"):
            self._form = _Form(content_type, self._data)

    def add(self, chunk: bytes) -> None:
        """Add the next bytes; raise a `Refusal` if the form is invalid."""
        if self._form is None:
            self._data += chunk
            return
        try:
            self._form.write(chunk)
        except FormParserError as error:
            raise Refusal(400, "the form is malformed: send one file field") from error

    def upload(self) -> Upload:
        """Return the complete recording; raise a `Refusal` if the request lacks one."""
        if self._form and not self._form.is_complete:
            raise Refusal(400, "the form has no complete file: send one file field")
        if not self._data:
            raise Refusal(400, "the request has no recording: send a WAV or FLAC file")
        name = self._name or (self._form.file_name if self._form else "")
        return Upload(bytes(self._data), _display_name(name))


class _Form:
    """A multipart form (RFC 7578) with one file, whose bytes are added to `data`."""

    def __init__(self, content_type: str, data: bytearray):
        about = content_type[:_LONGEST_TYPE]
        boundary = parse_options_header(about)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:
            message = "the form has no boundary: let the client set Content-Type"
            raise Refusal(400, message)
        self._data = data
        self._n_parts, self._headers, self._is_file = 0, bytearray(), False
        self.file_name, self.is_complete = "", False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_begin": lambda: self._headers.extend(b"\n"),
            "on_header_field": self._add_header,
            "on_header_value": self._add_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
        }
        parser = MultipartParser(
            boundary, callbacks, max_header_count=8, max_header_size=4096
        )
        self.write = parser.write

    def _begin(self) -> None:
        self._n_parts += 1
        if self._n_parts > _MAX_PARTS:
            raise Refusal(400, f"the form has over {_MAX_PARTS} parts: send one file")
        self._headers.clear()

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._headers += memoryview(data)[start:end]

    def _end_headers(self) -> None:
        field, name = _names(bytes(self._headers))
        if field in _PARAMETERS and not name:
            remedy = f"add ?{field}=... to the URL"
            raise Refusal(400, f"the form has a field {field!r}: {remedy} instead")
        self._is_file = name != ""
        if self._is_file and self.file_name:
            raise Refusal(400, "the form has several files: send one at a time")
        self.file_name = self.file_name or name

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._data += memoryview(data)[start:end]

    def _end(self) -> None:
        self.is_complete |= self._is_file


def _names(headers: bytes) -> tuple[str, str]:
    """Return the field name and the file name from a form part's headers.

    A plain field has the file name ''.
    """
    found = re.search(rb"(?im)^content-disposition(.*)$", headers)
    header = found[1] if found else b""
    options = parse_options_header(header)[1]
    field, name = (
        options.get(key, b"").decode("utf-8", "replace")
        for key in (b"name", b"filename")
    )
    # RFC 5987, which some clients use for names that are not ASCII.
    if encoded := re.search(rb"(?i)filename\*=utf-8''([^\s;]+)", header):
        name = unquote(encoded[1])
    return field, name


def _display_name(name: str) -> str:
    """Return the base name of a client's file, shortened and made printable."""
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(c if c.isprintable() else "?" for c in name).strip()
    return name[:_LONGEST_NAME] or _DEFAULT_NAME
