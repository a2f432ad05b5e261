"""Puts load on `gammavae serve`: valid and invalid recordings, misbehaving clients."""

import contextlib
import http.client
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

_SECONDS = 30.0  # timeout of a response
_ADDRESS = re.compile(r"serving at http://([\d.]+):(\d+)/")
_SETTLING = 25.0  # s; connections without a request are closed within 20 s


class Recording(NamedTuple):
    """A file to send, and its machine."""

    machine: str
    data: bytes


@dataclass
class Tally:
    """The outcome of all requests, shared by the clients."""

    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)  # by recording
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, status: int) -> None:
        """Count a response."""
        with self.lock:
            self.answered[f"{kind}: {status}"] += 1

    def score(self, number: int, value: float) -> None:
        """Record a score; it must equal earlier scores of the same recording."""
        with self.lock:
            if self.scores.setdefault(number, value) != value:
                self.wrong.append(f"recording {number}: {value}")


class Sample(NamedTuple):
    """The state of the server's process at one time."""

    seconds: float
    rss_bytes: int
    open_files: int
    threads: int


class Client:
    """Sends random kinds of requests, one after another.

    Args:
        address: host and port of the server.
        recordings: valid recordings to send.
        tally: receives the outcomes.
        draw: chooses the requests.
    """

    def __init__(
        self,
        address: tuple[str, int],
        recordings: Sequence[Recording],
        tally: Tally,
        draw: random.Random,
    ):
        self._address = address
        self._recordings = recordings
        self._tally = tally
        self._draw = draw

    def run(self, until: Callable[[], bool]) -> None:
        """Send requests until `until` returns True; record losses and errors."""
        kinds = {
            self.good: 60,
            self.bad: 20,
            self.slow: 3,
            self.cut_off: 6,
            self.gone: 4,
            self.no_http: 3,
            self.look: 4,
        }
        while not until():
            (kind,) = self._draw.choices([*kinds], [*kinds.values()])
            with self._tally.lock:
                self._tally.sent[kind.__name__] += 1
            try:
                kind()
            except (OSError, http.client.HTTPException, ValueError) as error:
                with self._tally.lock:
                    self._tally.lost.append(f"{kind.__name__}: {error!r}")

    def good(self) -> None:
        """Send a recording; repeat this as long as the server is busy."""
        number = self._draw.randrange(len(self._recordings))
        self._scored("good", number, self._post(*self._sound(number)))

    def bad(self) -> None:
        """Send an invalid body, which must be refused with a reason."""
        machine, data = self._recordings[0]
        path, body = self._draw.choice(
            [
                (f"/score?machine={machine}", b""),
                (f"/score?machine={machine}", self._draw.randbytes(5000)),
                (f"/score?machine={machine}", data[:30]),
                (f"/score?machine={machine}", data[:44]),
                (f"/score?machine={machine}", data.replace(b"RIFF", b"RIFX", 1)[:99]),
                (f"/score?machine={machine}", b"fLaC" + bytes(500)),
                (f"/score?machine={machine}", bytes(200_000)),
                ("/score?machine=nobody", data),
            ]
        )
        status, answer = self._post(path, body)
        self._tally.count("bad", status)
        if status != 503 and not (400 <= status < 500 and answer.get("error")):
            with self._tally.lock:
                self._tally.wrong.append(f"bad body: {status} {answer}")

    def slow(self) -> None:
        """Send a good recording slowly, in pieces."""
        number = self._draw.randrange(len(self._recordings))
        path, body = self._sound(number)
        with self._connected() as connection:
            connection.sendall(_head(path, len(body)))
            for start in range(0, len(body), -(-len(body) // 8)):
                connection.sendall(body[start : start + -(-len(body) // 8)])
                time.sleep(0.1)
            response = http.client.HTTPResponse(connection)
            response.begin()
            self._scored("slow", number, (response.status, json.load(response)))

    def cut_off(self) -> None:
        """Disconnect in the middle of a recording."""
        path, body = self._sound(0)
        with self._connected() as connection:
            connection.sendall(_head(path, len(body)) + body[: len(body) // 2])

    def gone(self) -> None:
        """Disconnect without waiting for the response."""
        path, body = self._sound(0)
        with self._connected() as connection:
            connection.sendall(_head(path, len(body)) + body)

    def no_http(self) -> None:
        """Send bytes that are not HTTP; expect a refusal or a closed connection."""
        with self._connected() as connection:
            connection.sendall(self._draw.randbytes(60) + b"\r\n\r\n")
            response = connection.recv(100)
            self._tally.count("no_http", int(response.split()[1]) if response else 0)

    def look(self) -> None:
        """Read a page, or the start of the event stream."""
        path = self._draw.choice(["/", "/health", "/metrics", "/machines", "/events"])
        with self._connected() as connection:
            connection.sendall(_head(path, None))
            response = http.client.HTTPResponse(connection)
            response.begin()
            response.read(20)
            self._tally.count("look", response.status)

    def _scored(
        self, kind: str, number: int, answer: tuple[int, Mapping[str, Any]]
    ) -> None:
        status, body = answer
        self._tally.count(kind, status)
        until = time.monotonic() + _SECONDS
        while status == 503 and time.monotonic() < until:
            time.sleep(0.2)
            status, body = self._post(*self._sound(number))
            self._tally.count(f"{kind}, again", status)
        if status != 200:
            raise ValueError(f"{status} {body}")
        self._tally.score(number, body["score"])

    def _sound(self, number: int) -> tuple[str, bytes]:
        machine, data = self._recordings[number]
        return f"/score?machine={machine}", data

    def _post(self, path: str, body: bytes) -> tuple[int, Mapping[str, Any]]:
        connection = http.client.HTTPConnection(*self._address, timeout=_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": "audio/wav"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def _connected(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=_SECONDS)


def good_recordings(data: Path, most: int = 6) -> list[Recording]:
    """Return some test clips of each machine in a folder; one of them also as FLAC."""
    recordings = []
    for machine in sorted(path for path in data.iterdir() if path.is_dir()):
        for path in sorted((machine / "test").glob("*.wav"))[: most // 2]:
            recordings.append(Recording(machine.name, path.read_bytes()))
    samples, rate = soundfile.read(io.BytesIO(recordings[0].data), dtype="int16")
    flac = io.BytesIO()
    soundfile.write(flac, np.asarray(samples), rate, format="FLAC")
    return [*recordings, Recording(recordings[0].machine, flac.getvalue())]


@contextlib.contextmanager
def serving(checkpoint: Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Start a server; yield its process, and its host and port."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gammavae_jax.cli.main", "serve"),
            *("--detector", str(checkpoint), "--port", "0"),
        ],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        | {"PYTHONUNBUFFERED": "1"},
        cwd=Path(__file__).resolve().parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        lines = []
        for line in server.stdout:
            lines.append(line)
            if address := _ADDRESS.search(line):
                break
        else:
            raise RuntimeError(f"the server ended: {''.join(lines)}")
        # Read the rest of its output, so that the pipe does not fill up.
        threading.Thread(target=server.stdout.readlines, daemon=True).start()
        yield server, (address[1], int(address[2]))
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


def load(
    address: tuple[str, int],
    process: int,
    recordings: Sequence[Recording],
    seconds: float,
    n_clients: int,
    seed: int,
) -> tuple[Tally, list[Sample]]:
    """Run clients for some seconds while sampling the server's process.

    The last sample is taken after the clients have left.
    """
    tally, begin = Tally(), time.monotonic()
    ends = begin + seconds

    def until() -> bool:
        return time.monotonic() >= ends

    clients = [
        Client(address, recordings, tally, random.Random(seed * 1000 + number))
        for number in range(n_clients)
    ]
    threads = [threading.Thread(target=c.run, args=(until,)) for c in clients]
    samples = [sample(process, 0.0)]
    for thread in threads:
        thread.start()
    while not until():
        time.sleep(min(5.0, seconds / 30))
        samples.append(sample(process, time.monotonic() - begin))
    for thread in threads:
        thread.join()
    time.sleep(_SETTLING)
    samples.append(sample(process, time.monotonic() - begin))
    return tally, samples


def sample(process: int, seconds: float) -> Sample:
    """Read the state of a process from Linux's /proc."""
    status = Path(f"/proc/{process}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return Sample(
        round(seconds, 1),
        int(values["VmRSS"].split()[0]) * 1024,
        len(os.listdir(f"/proc/{process}/fd")),
        int(values["Threads"]),
    )


def _head(path: str, n_bytes: int | None) -> bytes:
    """Return the header of a raw HTTP request."""
    if n_bytes is None:
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n_bytes}\r\n\r\n"
    ).encode()
