"""Alarms that are sent to servers which accept, refuse or hang, and JSON Lines."""

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
from gammavae_jax.live.announce import JsonLines, Webhook, clock


class Receiver(ThreadingHTTPServer):
    """A server that responds with these status codes in turn, and then with 200."""

    def __init__(self, *codes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.codes, self.received, self.authorizations = list(codes), [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook?secret=s3"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))
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
def silent():
    """Start a server that accepts connections but never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def url_of(server):
    return f"http://127.0.0.1:{server.getsockname()[1]}/"


def alarm(number):
    return {"machine": "fan", "file": f"{number}.wav", "score": float(number)}


def send(url, *alarms, **options):
    """Send alarms, and return the closed webhook and its messages."""
    messages = []
    webhook = Webhook(url, messages.append, **options)
    for one in alarms:
        webhook.send(one)
    webhook.close()
    return webhook, messages


def test_alarms_arrive_in_order_and_once(receiver):
    server, alarms = receiver(), [alarm(number) for number in range(5)]
    webhook, messages = send(server.url, *alarms)
    assert server.received == alarms
    assert (webhook.n_delivered, webhook.n_undelivered, messages) == (5, 0, [])


def test_a_failed_attempt_is_repeated_and_finally_given_up(receiver):
    server = receiver(500, 503, 404, 404)
    webhook, messages = send(server.url, *map(alarm, range(3)), pauses=(0.01,))
    assert [received["score"] for received in server.received] == [0, 0, 1, 1, 2]
    assert webhook.n_delivered == 1
    assert messages == [
        "alarm not delivered to 127.0.0.1: fan, 0.wav (status 503)",
        "alarm not delivered to 127.0.0.1: fan, 1.wav (status 404)",
    ]


def test_a_collected_message_that_is_not_delivered_is_reported(receiver):
    server = receiver(500)
    collected = {"event": "quiet_hours_over", "messages": [alarm(1), alarm(2)]}
    webhook, messages = send(server.url, collected, pauses=())
    assert webhook.n_undelivered == 1
    problem = "alarm not delivered to 127.0.0.1: 2 messages from the quiet hours"
    assert messages == [f"{problem} (status 500)"]


def test_credentials_in_the_url_are_sent_in_a_header_and_never_printed(receiver):
    server = receiver(500)
    url = server.url.replace("http://", "http://me:s%403cret@")
    _, messages = send(url, alarm(0), alarm(1), pauses=())
    expected = "Basic " + base64.b64encode(b"me:s@3cret").decode()
    assert server.authorizations == [expected, expected]
    assert messages == ["alarm not delivered to 127.0.0.1: fan, 0.wav (status 500)"]


def test_credentials_of_other_programs_are_not_sent(receiver, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = receiver()
    send(server.url, alarm(0))
    assert server.authorizations == [None]


@pytest.mark.parametrize("code", [301, 302, 303, 307])
def test_a_redirect_is_not_followed_and_delivers_nothing(receiver, code):
    _, messages = send(receiver(code).url, alarm(0), pauses=())
    assert messages == [f"alarm not delivered to 127.0.0.1: fan, 0.wav (status {code})"]


def test_a_hanging_server_delays_nothing_and_every_alarm_is_counted(silent):
    messages = []
    webhook = Webhook(url_of(silent), messages.append, timeout=30.0, capacity=3)
    start = time.monotonic()
    for number in range(10):
        webhook.send(alarm(number))
        while number == 0 and not webhook._queue.empty():
            time.sleep(0.01)  # until the thread takes the first alarm
    webhook.close(0.2)
    assert time.monotonic() - start < 20
    assert [line.split(", ")[1] for line in messages[:6]] == [
        f"{number}.wav (3 alarms are already waiting)" for number in range(4, 10)
    ]
    assert messages[6:] == [
        "alarms not delivered to 127.0.0.1 before the watch ended: 4"
    ]
    assert (webhook.n_delivered, webhook.n_undelivered) == (0, 10)


def test_a_server_that_is_too_slow_is_given_up(silent):
    _, messages = send(url_of(silent), alarm(0), timeout=0.1, pauses=())
    assert messages == ["alarm not delivered to 127.0.0.1: fan, 0.wav (timed out)"]


def test_a_dripping_server_delays_neither_scoring_nor_the_end(silent):
    def drip():
        client, _ = silent.accept()
        with client, contextlib.suppress(OSError):
            for byte in itertools.cycle(b"X-Header: y\r\n"):
                client.sendall(bytes([byte]))
                time.sleep(0.05)

    threading.Thread(target=drip, daemon=True).start()
    webhook = Webhook(url_of(silent), print, timeout=0.5, pauses=())
    start = time.monotonic()
    for number in range(3):
        webhook.send(alarm(number))
    assert time.monotonic() - start < 1
    webhook.close(0.5)
    assert time.monotonic() - start < 5
    assert (webhook.n_delivered, webhook.n_undelivered) == (0, 3)


def test_hostile_names_arrive_unchanged(receiver):
    server = receiver()
    name = '"},{"machine": "x\r\n\r\n<script>\x1b[2J\udcff'
    _, messages = send(server.url, {**alarm(0), "machine": name, "file": name})
    (received,) = server.received
    assert (received["machine"], received["file"]) == (name, name)
    assert messages == []


def test_an_unreachable_server_is_reported_without_its_secrets():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"http://me:s3cret@127.0.0.1:{port}/s3cret"
    _, (message,) = send(url, alarm(0), pauses=())
    assert "Connection refused" in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "url", ["", "example.org", "ftp://x/y", "file:///etc/passwd", "http://", "http://[",
            "http://x:y/", "http://x/\n", "http://x y/"]
)  # fmt: skip
def test_an_invalid_url_is_refused(url):
    problem = "the value of --webhook is not an HTTP URL: use a URL such as"
    with pytest.raises(InputError, match=problem):
        Webhook(url, print)


def test_json_lines_start_after_a_truncated_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"event": "rec')
    lines = JsonLines(path)
    lines.add({"a": 1})
    lines.close()
    assert path.read_text().splitlines() == ['{"event": "rec', '{"a": 1}']


def test_times_within_a_recording_look_like_a_clock():
    times = [clock(s) for s in (0.0, 59.6, 3599.0, 3661.0)]
    assert times == ["0:00", "1:00", "59:59", "1:01:01"]
