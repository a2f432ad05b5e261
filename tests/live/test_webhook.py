"""Alarms sent to servers which accept, refuse or hang, and quiet hours."""

import base64
import contextlib
import itertools
import json
import socket
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gammavae_jax.errors import InputError
from gammavae_jax.live.webhook import QuietHours, QuietSender, Webhook


@pytest.mark.parametrize(
    ("text", "quiet", "loud"),
    [
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "21:59"]),
        ("8:30-12:00", ["08:30", "11:59"], ["08:29", "12:00", "00:00"]),
    ],
)
def test_quiet_hours_may_include_midnight(text, quiet, loud):
    hours = QuietHours.parse(text)
    for at in quiet + loud:
        assert hours.include(datetime.strptime(at, "%H:%M").time()) == (at in quiet)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22-6",
        "22:00",
        "22:00-22:00",
        "22:00-25:00",
        "x22:00-06:00",
        "1:00-2:00-3:00",
    ],
)
def test_malformed_quiet_hours_are_refused(text):
    with pytest.raises(InputError, match=r"--quiet-hours is .*such as 22:00-06:00"):
        QuietHours.parse(text)


def test_messages_of_the_quiet_hours_are_sent_once_as_one_message():
    now, sent = [datetime(2026, 3, 1, 21, 59)], []
    hours = QuietHours.parse("22:00-06:00")
    sender = QuietSender(sent.append, hours, lambda: now[0])
    first, second, third = ({"machine": "fan", "text": t} for t in "abc")
    sender.send(first)
    assert sent == [first]
    for hour, message in ((22, second), (23, third)):
        now[0] = now[0].replace(hour=hour)
        sender.send(message)
        sender.release()
    assert (sent, sender.postponed) == ([first], [second, third])
    now[0] = datetime(2026, 3, 2, 6, 0)
    for _ in range(2):
        sender.release()
    text = "during the quiet hours:\nb\nc"
    both = {"event": "quiet_hours_over", "text": text, "messages": [second, third]}
    assert sent[1:] == [both]
    sender.send(first)
    assert sent[2:] == [first]


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


def test_a_user_name_without_a_password_is_sent(receiver):
    server = receiver()
    send(server.url.replace("http://", "http://me@"), alarm(0))
    assert server.authorizations == ["Basic " + base64.b64encode(b"me:").decode()]


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


def test_a_message_after_the_quiet_hours_follows_the_stored_ones():
    now, sent = [datetime(2026, 3, 1, 23, 0)], []
    sender = QuietSender(sent.append, QuietHours.parse("22:00-06:00"), lambda: now[0])
    sender.send({"text": "a"})
    now[0] = datetime(2026, 3, 2, 6, 0)
    sender.send({"text": "b"})  # before anything else released the stored message
    assert [message["text"] for message in sent] == ["during the quiet hours:\na", "b"]
