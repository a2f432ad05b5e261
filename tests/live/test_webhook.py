"""Alarms on their way, to servers that answer, refuse, or hang."""

import base64
import contextlib
import itertools
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gammavae_jax.errors import InputError
from gammavae_jax.live.webhook import Webhook


class Receiver(ThreadingHTTPServer):
    """Answers with the given codes, one after the other, then with 200."""

    def __init__(self, *codes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.codes, self.got, self.authorizations = list(codes), [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook?secret=s3"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(json.loads(body))
        self.server.authorizations.append(self.headers["Authorization"])
        code = self.server.codes.pop(0) if self.server.codes else 200
        self.send_response(code)
        self.send_header("Location", self.server.url)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    servers = []

    def start(*codes):
        servers.append(Receiver(*codes))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hanging():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def alarm(number):
    return {"machine": "fan", "file": f"{number}.wav", "score": float(number)}


def test_alarms_arrive_in_order_and_once(receiver):
    server, said = receiver(), []
    webhook = Webhook(server.url, said.append)
    for number in range(5):
        webhook.send(alarm(number))
    webhook.close()
    assert server.got == [alarm(number) for number in range(5)]
    assert (webhook.n_delivered, webhook.n_given_up, said) == (5, 0, [])


def test_an_error_is_tried_again_and_given_up_in_the_end(receiver):
    server, said = receiver(500, 503, 404, 404), []
    webhook = Webhook(server.url, said.append, pauses=(0.01,))
    for number in range(3):
        webhook.send(alarm(number))
    webhook.close()
    assert [got["score"] for got in server.got] == [0, 0, 1, 1, 2]
    assert webhook.n_delivered == 1
    assert said == [
        "not delivered to 127.0.0.1: fan, 0.wav (the answer is 503)",
        "not delivered to 127.0.0.1: fan, 1.wav (the answer is 404)",
    ]


def test_a_name_and_password_are_sent_as_http_has_them_and_never_said(receiver):
    server, said = receiver(500), []
    url = server.url.replace("http://", "http://me:s%403cret@")
    webhook = Webhook(url, said.append, pauses=())
    webhook.send(alarm(0))
    webhook.send(alarm(1))
    webhook.close()
    expected = "Basic " + base64.b64encode(b"me:s@3cret").decode()
    assert server.authorizations == [expected, expected]
    assert said == ["not delivered to 127.0.0.1: fan, 0.wav (the answer is 500)"]


@pytest.mark.parametrize("code", [301, 302, 303, 307])
def test_a_redirection_delivers_nothing(receiver, code):
    server, said = receiver(code), []
    webhook = Webhook(server.url, said.append, pauses=())
    webhook.send(alarm(0))
    webhook.close()
    assert said == [f"not delivered to 127.0.0.1: fan, 0.wav (the answer is {code})"]


def test_a_server_that_hangs_holds_nobody_up_and_every_alarm_is_accounted_for(hanging):
    said = []
    webhook = Webhook(hanging, said.append, timeout=30.0, most_waiting=3)
    start = time.monotonic()
    for number in range(10):
        webhook.send(alarm(number))
        while number == 0 and not webhook._waiting.empty():
            time.sleep(0.01)  # the first one is taken up
    webhook.close(0.2)
    assert time.monotonic() - start < 20
    assert [line.split(", ")[1] for line in said[:6]] == [
        f"{number}.wav (3 are waiting already)" for number in range(4, 10)
    ]
    assert said[6:] == ["not delivered to 127.0.0.1: 4 alarms, at the end"]
    assert (webhook.n_delivered, webhook.n_given_up) == (0, 10)


def test_a_server_that_is_too_slow_is_given_up(hanging):
    said = []
    webhook = Webhook(hanging, said.append, timeout=0.1, pauses=())
    webhook.send(alarm(0))
    webhook.close()
    assert said == ["not delivered to 127.0.0.1: fan, 0.wav (timed out)"]


@pytest.fixture
def dripping():
    """The address of a server that answers a byte at a time, and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                for byte in itertools.cycle(b"X-Header: y\r\n"):
                    client.sendall(bytes([byte]))
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_a_server_that_drips_holds_up_neither_the_scoring_nor_the_end(dripping):
    said = []
    webhook = Webhook(dripping, said.append, timeout=0.5, pauses=())
    start = time.monotonic()
    for number in range(3):
        webhook.send(alarm(number))
    assert time.monotonic() - start < 1
    webhook.close(0.5)
    assert time.monotonic() - start < 5
    assert webhook.n_delivered == 0
    assert webhook.n_given_up == 3


def test_hostile_names_arrive_as_they_are(receiver):
    server, said = receiver(), []
    webhook = Webhook(server.url, said.append)
    name = '"},{"machine": "x\r\n\r\n<script>\x1b[2J\udcff'
    webhook.send({**alarm(0), "machine": name, "file": name})
    webhook.close()
    (got,) = server.got
    assert (got["machine"], got["file"]) == (name, name)
    assert said == []


def test_a_server_that_is_not_there_is_said_without_its_secrets():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = []
    webhook = Webhook(f"http://127.0.0.1:{port}/s3cret", said.append, pauses=())
    webhook.send(alarm(0))
    webhook.close()
    assert len(said) == 1
    assert "Connection refused" in said[0]
    assert "s3cret" not in said[0]


@pytest.mark.parametrize(
    "url", ["", "example.org", "ftp://x/y", "file:///etc/passwd", "http://", "http://[",
            "http://x:y/", "http://x/\n", "http://x y/"]
)  # fmt: skip
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match="--webhook is no address: give one such as"):
        Webhook(url, print)
