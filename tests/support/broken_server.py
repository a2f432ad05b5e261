"""A local HTTP server of files that does wrong what it is told to do wrong."""

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


class Asked(NamedTuple):
    """A request that came."""

    path: str
    range: str | None
    if_range: str | None
    headers: dict[str, str]


Fault = Callable[["Handler", bytes], None]  # gets the file's bytes


class Server(ThreadingHTTPServer):
    """Serves `files` by path as Zenodo does; the next requests meet `faults`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: deque[Fault | None] = deque()  # of files; None does right
        self.faults_of_records: deque[Fault | None] = deque()
        self.asked: list[Asked] = []
        self.etags: dict[str, str] = {}  # instead of one made of the bytes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def asked_files(self) -> list[Asked]:
        return [asked for asked in self.asked if "/api/" not in asked.path]

    def handle_error(self, *_):
        """Clients that hang up are what this server is for."""

    def publish(self, record: str, **files: bytes):
        """Files of a record, and what Zenodo's API says of them."""
        listed = []
        for name, data in files.items():
            self.files[f"/records/{record}/files/{name}"] = data
            checksum = f"md5:{hashlib.md5(data).hexdigest()}"
            listed.append({"key": name, "size": len(data), "checksum": checksum})
        path = f"/api/records/{record}"
        before = json.loads(self.files.get(path, b'{"files": []}'))["files"]
        self.files[path] = json.dumps({"id": 1, "files": before + listed}).encode()

    def etag(self, path: str) -> str:
        made = f'"{hashlib.sha1(self.files[path]).hexdigest()}"'
        return self.etags.get(path, made)


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore

    def log_message(self, *_):
        """Nothing on the console."""

    def do_GET(self):
        asked = Asked(
            self.path,
            self.headers["Range"],
            self.headers["If-Range"],
            dict(self.headers),
        )
        self.server.asked.append(asked)
        self.close_connection = True
        if self.path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[self.path]
        of_records = "/api/" in self.path
        faults = self.server.faults_of_records if of_records else self.server.faults
        fault = faults.popleft() if faults else None
        (fault or serve)(self, data)

    @property
    def start(self) -> int:
        """The first byte to send: that asked for, if the file is still the same."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        known = self.headers["If-Range"]
        etag = self.server.etag(self.path)
        is_same = known is None or known in (etag, LAST_MODIFIED)
        return int(match[1]) if match and is_same else 0

    def head(self, status: int, length: int | None, **headers: str | None):
        given = {
            "Content_Length": None if length is None else str(length),
            "ETag": self.server.etag(self.path),
            "Last_Modified": LAST_MODIFIED,
        } | headers
        self.send_response(status)
        for name, value in given.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def hang_up(self):
        """Cut the line: what is on the way may be lost."""
        time.sleep(0.02)  # so that something is not
        no_lingering = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
        self.connection.close()


def serve(handler: Handler, data: bytes, n: int | None = None, **headers: str | None):
    """Do right; with `n`, only so many bytes of the body."""
    start = handler.start
    if start >= len(data) > 0:
        handler.head(416, 0, Content_Range=f"bytes */{len(data)}")
        return
    if start:
        where = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers = {"Content_Range": where, **headers}
    handler.head(206 if start else 200, len(data) - start, **headers)
    body = data[start:]
    handler.wfile.write(body if n is None else body[:n])


def cut_after(n: int, with_reset: bool = False) -> Fault:
    """Break the connection after so many bytes of the body."""

    def fault(handler: Handler, data: bytes):
        serve(handler, data, n)
        if with_reset:
            handler.hang_up()

    return fault


def answer(status: int, **headers: str) -> Fault:
    """A status without a file."""

    def fault(handler: Handler, data: bytes):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def say_length(length: int, n: int | None = None) -> Fault:
    """All bytes, or `n`, under a length that may be another."""

    def fault(handler: Handler, data: bytes):
        handler.head(200, length)
        handler.wfile.write(data if n is None else data[:n])

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
