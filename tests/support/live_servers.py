"""Runs the service on a local port, in a thread."""

import contextlib
import io
import threading
import time

import httpx
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from support.live_stubs import RATE, LoudnessScorer, tone

from gammavae_jax.cli.serve import listening_socket, url_of
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.app import LiveServer, make_application
from gammavae_jax.live.service import Limits, Service
from gammavae_jax.log import Log


class Served:
    """A running service."""

    def __init__(self, scorer, limits, names=(), alarms=None):
        self.out = io.StringIO()
        announcer = Announcer(Log(Console(file=self.out, width=1000)))
        self.service = Service(scorer, limits, announcer, alarms)
        self.server = LiveServer(
            make_application(self.service, announcer, names), self.service.close
        )
        self.socket = listening_socket("127.0.0.1", 0)
        self.url = url_of(self.socket).rstrip("/")
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    @property
    def client(self):
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    def post(self, content, machine="fan", **keywords):
        keywords.setdefault("params", {"machine": machine})
        with self.client as client:
            return client.post("/score", content=content, **keywords)

    def get(self, path, **keywords):
        with self.client as client:
            return client.get(path, **keywords)

    def metrics(self):
        """Return the metrics by name and labels."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }

    def lines(self):
        """Return the printed lines without their times."""
        return [line[21:] for line in self.out.getvalue().splitlines()]


@contextlib.contextmanager
def served(scorer=None, limits=None, names=(), alarms=None):
    """Run a service for the duration of a `with` block."""
    server = Served(scorer or LoudnessScorer(), limits or Limits(), names, alarms)
    server.thread.start()
    while not server.server.started:
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.server.should_exit = True
        server.thread.join(10)
        server.socket.close()
        assert not server.thread.is_alive()


def audio(seconds=1.0, level=0.1, rate=RATE, kind="WAV"):
    """Return the bytes of a recording."""
    file = io.BytesIO()
    soundfile.write(file, tone(seconds, level, rate), rate, format=kind)
    return file.getvalue()
