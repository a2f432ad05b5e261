"""A local HTTP server of files, which fails as the tests request."""

import email.utils
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

LAST_MODIFIED = email.utils.formatdate(1_700_000_000, usegmt=True)


class Request(NamedTuple):
    """A request that the server has received."""

    path: str
    range: str | None
    if_range: str | None
    headers: dict[str, str]


Fault = Callable[["Handler", bytes], None]  # receives the bytes of the file


class Server(ThreadingHTTPServer):
    """A server of `files` that works like Zenodo; each request consumes one fault."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: deque[Fault | None] = deque()  # for file requests; None: no fault
        self.record_faults: deque[Fault | None] = deque()
        self.requests: list[Request] = []
        self.etags: dict[str, str] = {}  # by path; others are made from the bytes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def file_requests(self) -> list[Request]:
        return [request for request in self.requests if "/api/" not in request.path]

    def handle_error(self, *_):
        """Print nothing: clients are expected to hang up."""

    def publish(self, record: str, **files: bytes):
        """Add files to a record, and describe them as Zenodo's API does."""
        listed = []
        for name, data in files.items():
            self.files[f"/records/{record}/files/{name}"] = data
            checksum = f"md5:{hashlib.md5(data).hexdigest()}"
            listed.append({"key": name, "size": len(data), "checksum": checksum})
        path = f"/api/records/{record}"
        before = json.loads(self.files.get(path, b'{"files": []}'))["files"]
        self.files[path] = json.dumps({"id": 1, "files": before + listed}).encode()

    def etag(self, path: str) -> str:
        computed = f'"{hashlib.sha1(self.files[path]).hexdigest()}"'
        return self.etags.get(path, computed)


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore

    def log_message(self, *_):
        """Print nothing."""

    def do_GET(self):
        headers = self.headers
        self.server.requests.append(
            Request(self.path, headers["Range"], headers["If-Range"], dict(headers))
        )
        self.close_connection = True
        if self.path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[self.path]
        is_record = "/api/" in self.path
        faults = self.server.record_faults if is_record else self.server.faults
        fault = faults.popleft() if faults else None
        (fault or serve)(self, data)

    @property
    def start(self) -> int:
        """The first byte to send: the requested one if the file has not changed."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        validator = self.headers["If-Range"]
        is_same = validator in (None, self.server.etag(self.path), LAST_MODIFIED)
        return int(match[1]) if match and is_same else 0

    def head(self, status: int, length: int | None, **headers: str | None):
        """Send the status and headers; a header that is None is left out."""
        all_headers = {
            "Content_Length": None if length is None else str(length),
            "ETag": self.server.etag(self.path),
            "Last_Modified": LAST_MODIFIED,
        } | headers
        self.send_response(status)
        for name, value in all_headers.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def hang_up(self):
        """Reset the connection, so that bytes in transit may be lost."""
        time.sleep(0.02)  # let some bytes arrive
        no_lingering = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
        self.connection.close()


def serve(handler: Handler, data: bytes, n: int | None = None, **headers: str | None):
    """Respond correctly; with `n`, send only that many bytes of the body."""
    start = handler.start
    if start >= len(data) > 0:
        handler.head(416, 0, Content_Range=f"bytes */{len(data)}")
        return
    if start:
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers = {"Content_Range": content_range, **headers}
    handler.head(206 if start else 200, len(data) - start, **headers)
    body = data[start:]
    handler.wfile.write(body if n is None else body[:n])


def cut_after(n: int, with_reset: bool = False) -> Fault:
    """Break the connection after `n` bytes of the body."""

    def fault(handler: Handler, data: bytes):
        serve(handler, data, n)
        if with_reset:
            handler.hang_up()

    return fault


def silent_after(n: int) -> Fault:
    """Send `n` bytes of the body, then nothing until the client hangs up."""

    def fault(handler: Handler, data: bytes):
        serve(handler, data, n)
        handler.rfile.read(1)

    return fault


def answer(status: int, **headers: str) -> Fault:
    """Respond with a status and no file."""

    def fault(handler: Handler, data: bytes):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def whole(n: int | None = None, length: int | None = None, **headers) -> Fault:
    """Ignore ranges; claim a length, and send `n` bytes or the whole file."""

    def fault(handler: Handler, data: bytes):
        handler.head(200, len(data) if length is None else length, **headers)
        handler.wfile.write(data[:n])

    return fault


def partial_content(content_range: str | None, body: bytes) -> Fault:
    """Respond to any request with status 206 and this range and body."""

    def fault(handler: Handler, data: bytes):
        handler.head(206, len(body), Content_Range=content_range)
        handler.wfile.write(body)

    return fault


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
