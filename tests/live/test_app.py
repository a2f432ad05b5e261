"""The service on a real port: verdicts, refusals, and all kinds of clients."""

import contextlib
import io
import json
import os
import random
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.live_servers import audio, served
from support.live_stubs import LoudnessScorer

from gammavae_jax.cli.serve import listening_socket
from gammavae_jax.errors import InputError
from gammavae_jax.live import app
from gammavae_jax.live.service import Limits
from gammavae_jax.scoring.decision import DecisionRule

LIMITS = Limits(
    max_bytes=1_000_000, max_seconds=60.0, upload_seconds=1.0, max_waiting=3
)
WHOLE = audio(1.0)


@pytest.fixture(scope="module")
def server():
    with served(limits=LIMITS) as server:
        yield server


def error_of(answer):
    """Return the error message, after checking that it has the form of all errors."""
    assert 400 <= answer.status_code < 600
    assert answer.text.count("\n") == 1
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    for secret in ("/work", "/home", "/usr", "site-packages", "Traceback", ".py"):
        assert secret not in error
    return error


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_recording_is_scored(server, kind):
    answer = server.post(audio(1.0, 0.8, kind=kind), "pump")
    assert answer.status_code == 200
    verdict = answer.json()
    expected = {"machine": "pump", "threshold": 0.5, "is_anomaly": True, "seconds": 1.0}
    expected["request_id"] = answer.headers["x-request-id"]
    assert verdict | expected == verdict
    assert verdict["score"] == pytest.approx(0.8, abs=1e-3)
    assert verdict["p_value"] == pytest.approx(0.6, abs=1e-3)


def test_a_form_and_another_sample_rate_are_accepted(server):
    files = {"file": ("night.wav", audio(1.0, 0.3, 48000))}
    with server.client as client:
        answer = client.post(
            "/score?machine=fan", files=files, headers={"X-Request-Id": "mine.1"}
        )
    assert answer.json()["name"] == "night.wav"
    assert answer.json()["score"] == pytest.approx(0.3, abs=1e-2)
    assert answer.json()["request_id"] == "mine.1"
    assert answer.json()["sample_rate"] == 48000
    assert answer.json()["notes"] == ["recordings at 48000 Hz"]
    assert "ok     fan  night.wav  score 0.3" in server.lines()[-1]
    server.post(audio(1.0, 0.3, 48000))
    assert sum("recordings at 48000 Hz" in line for line in server.lines()) == 1


def test_a_long_recording_is_scored_clip_by_clip(server):
    answer = server.post(audio(10.0, 0.8)).json()
    assert (answer["seconds"], answer["n_clips"], answer["n_alarms"]) == (10.0, 10, 10)
    (stretch,) = answer["stretches"]
    assert stretch == {"start": 0.0, "end": 10.0, "score": pytest.approx(0.8, 1e-3)}


def test_a_recording_whose_score_is_nan_is_refused():
    class Nan(LoudnessScorer):
        def score_clip(self, clip, machine):
            return float("nan")

    with served(Nan()) as server:
        answer = server.post(WHOLE)
        assert answer.status_code == 422
        assert "the score is not finite" in error_of(answer)


def test_a_p_value_that_is_unknown_is_null():
    class Official(LoudnessScorer):
        def judge(self, name, machine, scores, seconds, states):
            return DecisionRule(machine, 0.5).judge(name, scores, seconds, states)

    with served(Official()) as server:
        answer = server.post(WHOLE).json()
        assert answer["score"] == pytest.approx(0.1, rel=1e-3)
        assert answer["p_value"] is None
        assert np.isnan(server.metrics()["gammavae_last_p_value", "fan"])


def test_the_spectrogram_is_that_of_the_last_recording(server):
    server.post(audio(1.0, 0.4))
    shown = server.get("/spectrogram?machine=fan").json()
    assert shown["mels"] == 128
    assert shown["seconds"] == 1.0
    assert 0 < shown["columns"] <= 320


BAD = {
    "nothing": (b"", 400, "the request has no recording"),
    "text": (b"hello", 422, "this is neither WAV nor FLAC"),
    "ogg": (audio(kind="OGG"), 422, "this is neither WAV nor FLAC"),
    "cut off": (WHOLE[:5000], 422, "truncated"),
    "header alone": (WHOLE[:44], 422, "truncated"),
    "no header": (b"RIFF" + bytes(100), 422, "cannot be read as audio"),
    "too short": (audio(0.005), 422, "too short: 80 samples (0.005 s)"),
    "too long": (audio(61.0, kind="FLAC"), 413, "is longer than 60 s"),
    "too large": (bytes(1_000_001), 413, "over 1 MB"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_unusable_recording_is_refused_in_one_line(server, case):
    body, status, message = BAD[case]
    answer = server.post(body)
    assert message in error_of(answer)
    assert answer.status_code == status
    assert server.post(WHOLE).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        (
            "POST",
            "/score",
            400,
            "not name a machine: add ?machine=NAME, where NAME is one of fan, pump",
        ),
        ("POST", "/score?machine=fam", 404, "did you mean 'fan'?"),
        ("GET", "/score", 405, "Method Not Allowed"),
        ("GET", "/../../etc/passwd", 404, "Not Found"),
        ("GET", "/%2e%2e/live.js", 404, "Not Found"),
        ("GET", "/docs", 404, "Not Found"),
        ("GET", "/spectrogram?machine=x", 404, "unknown machine 'x'"),
        ("POST", "/score?machine=fan&machine=pump", 400, "2 values of machine"),
        ("POST", "/score?machine=fan&name=a&name=b", 400, "2 values of name: pass"),
        ("GET", "/spectrogram?machine=fan&machine=fan", 400, "2 values of machine"),
    ],
)
def test_an_unknown_path_or_machine_is_refused(server, method, path, status, message):
    with server.client as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    assert message in error_of(answer)


def test_metrics_count_requests_and_recordings_in_the_format_of_prometheus():
    with served() as server:
        before = server.metrics()
        assert before["gammavae_threshold", "fan"] == 0.5
        assert before["gammavae_alarms_total", "fan"] == 0
        assert before["gammavae_requests_total", "scored"] == 0
        for level in (0.2, 0.8, 0.6):
            server.post(audio(1.0, level))
        server.post(b"hello")
        after = server.metrics()
    assert after["gammavae_requests_total", "scored"] == 3
    assert after["gammavae_requests_total", "refused"] == 1
    assert after["gammavae_alarms_total", "fan"] == 2
    assert after["gammavae_alarms_total", "pump"] == 0
    assert after["gammavae_recordings_total", "fan"] == 3
    assert after["gammavae_last_score", "fan"] == pytest.approx(0.6, abs=1e-3)
    assert after["gammavae_scoring_seconds_count",] == 4
    assert after["gammavae_uptime_seconds",] > before["gammavae_uptime_seconds",]


def test_machines_health_and_the_page_are_served(server):
    machines = server.get("/machines").json()["machines"]
    assert [m["machine"] for m in machines] == ["fan", "pump"]
    assert server.get("/health").json()["status"] == "ok"
    assert server.get("/").headers["content-type"].startswith("text/html")
    assert server.get("/live.js").headers["content-type"].startswith("text/javascript")


OTHERS = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8000"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", OTHERS, ids=str)
def test_a_request_from_the_page_of_another_server_is_refused(server, headers):
    n_lines = len(server.lines())
    answer = server.post(WHOLE, headers=headers)
    assert answer.status_code == 403
    error_of(answer)
    assert answer.headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in answer.headers
    assert len(server.lines()) == n_lines


def test_the_page_of_another_server_may_link_here_but_read_nothing(server):
    other = {"Sec-Fetch-Site": "cross-site"}
    assert server.get("/", headers=other | {"Sec-Fetch-Mode": "navigate"}).is_success
    for mode in ("no-cors", "cors"):
        headers = other | {"Sec-Fetch-Mode": mode}
        assert server.get("/machines", headers=headers).status_code == 403


def test_requests_from_programs_and_from_the_servers_own_page_are_accepted(server):
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    for headers in ({}, own, {"Host": "localhost"}, {"Host": f"[::1]:{server.port}"}):
        answer = server.post(WHOLE, headers=headers)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
    with served(names=["monitor.plant"]) as named:
        proxied = {"Host": "Monitor.Plant", "Origin": "https://monitor.plant"}
        assert named.post(WHOLE, headers=proxied).status_code == 200


class Raw:
    """A client that can send any bytes."""

    def __init__(self, server, data=b""):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self.socket.sendall(data)

    def answer(self):
        """Return everything that the server sends until it closes the connection."""
        received = b""
        with self.socket, contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                received += data
        return received.decode("utf-8", "replace")

    def is_cut_off(self):
        """Send a byte, and return whether that fails."""
        try:
            self.socket.sendall(b"x")
        except OSError:
            self.socket.close()
            return True
        return False


def listeners_to(server, count):
    """Return clients that listen to the server's events."""
    request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    listeners = [Raw(server, request) for _ in range(count)]
    until(lambda: len(server.service.broadcast) == count)
    return listeners


def head(length, connection="close"):
    return (
        "POST /score?machine=fan HTTP/1.1\r\nHost: localhost\r\n"
        f"Connection: {connection}\r\n{length}\r\n\r\n"
    ).encode()


def test_a_declared_length_that_is_too_large_is_refused_before_the_body(server):
    # If the server waited for the body, it would respond with 408.
    answer = Raw(server, head("Content-Length: 99999999999")).answer()
    assert answer.startswith("HTTP/1.1 413 ")


def test_a_body_without_a_declared_length_is_counted_as_it_arrives(server):
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    client = Raw(server, head("Transfer-Encoding: chunked"))
    for _ in range(16):
        client.socket.sendall(chunk)
    assert client.answer().startswith("HTTP/1.1 413 ")
    whole = f"{len(WHOLE):x}\r\n".encode() + WHOLE + b"\r\n0\r\n\r\n"
    answer = Raw(server, head("Transfer-Encoding: chunked") + whole).answer()
    assert answer.startswith("HTTP/1.1 200 ")


def test_a_body_shorter_than_its_declared_length_times_out(server):
    began = time.monotonic()
    answer = Raw(server, head(f"Content-Length: {2 * len(WHOLE)}") + WHOLE).answer()
    assert answer.startswith("HTTP/1.1 408 ")
    assert 0.9 < time.monotonic() - began < 5
    assert "not received within 1 s" in answer


def test_a_body_longer_than_its_declared_length_is_cut(server):
    answer = Raw(server, head(f"Content-Length: {len(WHOLE)}") + WHOLE + WHOLE).answer()
    assert answer.startswith("HTTP/1.1 200 ")
    answer = Raw(server, head("Content-Length: 5000") + WHOLE).answer()
    assert answer.startswith("HTTP/1.1 422 ")
    answer = Raw(server, head("Content-Length: -5") + WHOLE).answer()
    assert answer.startswith("HTTP/1.1 400 ")
    assert server.post(WHOLE).status_code == 200


def test_a_client_that_disconnects_is_counted_and_its_body_freed(server):
    gone = ("gammavae_requests_total", "gone")
    before = server.metrics()[gone]
    Raw(server, head(f"Content-Length: {len(WHOLE)}") + WHOLE[:900]).socket.close()
    until(lambda: server.metrics()[gone] == before + 1)
    assert server.service.uploads.n_bytes == 0


def test_slow_clients_do_not_delay_another(server):
    slow = [
        Raw(server, head(f"Content-Length: {len(WHOLE)}") + WHOLE[:100])
        for _ in range(40)
    ]
    assert server.post(WHOLE).status_code == 200
    assert server.service.uploads.n_bytes > 0  # the slow ones are still sending
    assert all(client.answer().startswith("HTTP/1.1 408 ") for client in slow)
    assert server.service.uploads.n_bytes == 0


def test_a_connection_without_a_complete_request_is_closed(monkeypatch):
    monkeypatch.setattr(app.LiveServer, "ticks_between_checks", 3)
    with served() as server:
        silent, half = Raw(server), Raw(server, b"POST /score HTTP/1.1\r\nHost:")
        dripping = Raw(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        dripping.socket.recv(65536)
        began = time.monotonic()
        until(lambda: dripping.is_cut_off())
        assert 0.2 < time.monotonic() - began < 3
        assert silent.answer() == half.answer() == ""


def test_a_connection_with_a_running_request_stays_open(monkeypatch):
    monkeypatch.setattr(app.LiveServer, "ticks_between_checks", 1)
    with served(limits=LIMITS) as server:
        slow = Raw(server, head(f"Content-Length: {len(WHOLE)}") + WHOLE[:100])
        time.sleep(0.5)
        slow.socket.sendall(WHOLE[100:])
        assert slow.answer().startswith("HTTP/1.1 200 ")


def test_a_body_that_drips_after_its_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr(app.LiveServer, "ticks_between_checks", 3)
    with served(limits=LIMITS) as server:
        client = Raw(server, head("Content-Length: 99999999999", "keep-alive"))
        assert client.socket.recv(65536).startswith(b"HTTP/1.1 413 ")
        until(lambda: client.is_cut_off())


class Slow(LoudnessScorer):
    """A scorer that blocks until it is released."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def score_clip(self, clip, machine):
        self.go.wait(20)
        return super().score_clip(clip, machine)


def post_in_threads(server, n_posts):
    """Start to post; return the threads and the list that receives the responses."""
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.post(WHOLE)))
        for _ in range(n_posts)
    ]
    for thread in threads:
        thread.start()
    until(lambda: server.service.waiting == n_posts)
    return threads, answers


def test_requests_beyond_the_queue_are_put_off_and_the_others_are_scored():
    scorer = Slow()
    with served(scorer, LIMITS) as server:
        threads, answers = post_in_threads(server, LIMITS.max_waiting)
        answer = server.post(WHOLE)
        assert answer.status_code == 503
        assert "3 recordings are waiting: try again later" in error_of(answer)
        assert int(answer.headers["retry-after"]) > 0
        assert server.get("/health").json()["waiting"] == 3
        scorer.go.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 3
        assert server.post(WHOLE).status_code == 200


def test_a_recording_that_takes_too_long_is_refused():
    scorer = Slow()
    with served(scorer, Limits(score_seconds=0.2)) as server:
        answer = server.post(WHOLE)
        assert answer.status_code == 503
        assert "not scored within 0.2 s" in error_of(answer)
        assert server.service.waiting == 1  # it is still being scored
        scorer.go.set()
        until(lambda: server.service.waiting == 0)


def test_scoring_a_long_recording_stops_when_its_time_is_up():
    class Sleepy(LoudnessScorer):
        def score_clip(self, clip, machine):
            time.sleep(0.02)
            return super().score_clip(clip, machine)

    scorer = Sleepy()
    with served(scorer, Limits(score_seconds=0.2)) as server:
        assert server.post(audio(200.0)).status_code == 503
        until(lambda: server.service.waiting == 0)
        assert len(scorer.judged) < 100  # of 200 clips


def test_only_the_operator_learns_the_cause_of_an_internal_error():
    class Broken(LoudnessScorer):
        def score_clip(self, clip, machine):
            raise RuntimeError(f"at {__file__}")

    with served(Broken()) as server:
        answer = server.post(WHOLE)
        assert answer.status_code == 500
        assert error_of(answer) == "internal error: see the server's output"
        assert "RuntimeError" in server.lines()[-1]
        assert server.metrics()["gammavae_requests_total", "failed"] == 1


def messages(response):
    """Yield server-sent events as they arrive."""
    event = None
    for line in response.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def test_a_listener_receives_the_history_and_then_each_recording():
    with served() as server:
        server.post(audio(1.0, 0.8))
        with server.client as client, client.stream("GET", "/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = messages(response)
            event, snapshot = next(events)
            assert event == "snapshot"
            fan, pump = snapshot["machines"]
            assert [s["number"] for s in fan["scores"]] == [1]
            assert [s["number"] for s in fan["alarms"]] == [1]
            assert pump["scores"] == []
            server.post(audio(1.0, 0.2), "pump")
            event, score = next(events)
            assert (event, score["machine"], score["number"]) == ("score", "pump", 2)
            assert score["is_anomaly"] is False
        until(lambda: len(server.service.broadcast) == 0)


def test_a_listener_that_never_reads_costs_little_memory_and_delays_nobody():
    with served() as server:
        (deaf,) = listeners_to(server, 1)
        (waiting,) = server.service.broadcast._listeners.values()
        done = threading.Event()
        text = {"padding": "x" * 200_000}

        def flood():
            for number in range(200):
                server.service.broadcast.send("score", text | {"number": number})
            done.set()

        # Sent in the event loop, as the service does; 13 MB of 120 MB are kept.
        for _ in range(3):
            done.clear()
            server.server.servers[0].get_loop().call_soon_threadsafe(flood)
            assert done.wait(10)
            assert server.post(WHOLE).status_code == 200
        assert len(waiting) == 64
        assert '"number": 199' in waiting[-2]
        deaf.socket.close()
        until(lambda: len(server.service.broadcast) == 0)


def test_one_listener_too_many_is_refused_with_a_status():
    with served() as server:
        server.service.broadcast._max_listeners = 2
        listeners = listeners_to(server, 2)
        assert server.get("/events").status_code == 503
        for listener in listeners:
            listener.socket.close()
        until(lambda: len(server.service.broadcast) == 0)


def test_shutting_down_does_not_wait_for_listeners():
    with served() as server:
        (listener,) = listeners_to(server, 1)
        began = time.monotonic()
        server.server.should_exit = True
        server.thread.join(10)
        assert time.monotonic() - began < app.SHUTDOWN_SECONDS
        assert "snapshot" in listener.answer()


def test_shutting_down_refuses_the_requests_that_wait_or_are_being_scored():
    scorer = Slow()
    with served(scorer, LIMITS) as server:
        threads, answers = post_in_threads(server, 2)
        server.server.should_exit = True
        for thread in threads:
            thread.join(10)
        assert [answer.status_code for answer in answers] == [503, 503]
        assert "the server is shutting down" in error_of(answers[0])
        scorer.go.set()


def malformed(number):
    """Return the content type and body of a bad request that depends on the number."""
    random_ = random.Random(number)
    kind = random_.choice(["WAV", "FLAC"])
    content_type, body = "audio/wav", bytearray(audio(0.2, kind=kind))
    if number % 3 == 0:  # a form whose boundary may be wrong, too
        content_type = f"multipart/form-data; boundary=m{number % 7}"
        head = b'--m0\r\nContent-Disposition: form-data; name="f"; filename="a.wav"'
        body = bytearray(head + b"\r\n\r\n" + body + b"\r\n--m0--\r\n")
    way = random_.randrange(5)
    if way == 0:
        body = body[: random_.randrange(len(body))]
    elif way == 1:
        body = random_.randbytes(random_.randrange(3000))
    elif way == 2:  # a wrong header
        for _ in range(random_.randint(1, 8)):
            body[random_.randrange(min(120, len(body)))] = random_.randrange(256)
    elif way == 3:
        body = body[:4] + random_.randbytes(random_.randrange(3000))
    else:
        at = random_.randrange(len(body))
        body[at : at + random_.randrange(200)] = random_.randbytes(50)
    return content_type, bytes(body)


def post_malformed(server, numbers):
    """Post malformed bodies; check that valid ones are scored, and return statuses."""
    statuses = set()
    with server.client as client:
        for number in numbers:
            content_type, body = malformed(number)
            headers = {"Content-Type": content_type}
            answer = client.post("/score?machine=fan", content=body, headers=headers)
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (number, answer.text)
            if answer.status_code != 200:
                error_of(answer)
            if number % 20 == 0:
                answer = client.post("/score?machine=fan", content=WHOLE)
                assert answer.json()["score"] == pytest.approx(0.1, abs=1e-3)
    return statuses


def resident_bytes():
    """Return the memory of this process, which includes the server."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_1000_malformed_bodies_are_refused_and_leave_no_memory_behind(server):
    statuses = post_malformed(server, range(200))
    before = resident_bytes() if Path("/proc").is_dir() else 0
    statuses |= post_malformed(server, range(200, 1000))
    assert {200, 400, 422} <= statuses <= {200, 400, 413, 422}
    assert server.service.uploads.n_bytes == 0
    if before:
        assert resident_bytes() - before < 50e6


@pytest.mark.slow
def test_3000_more_malformed_bodies_are_refused(server):
    post_malformed(server, range(1000, 4000))


@pytest.mark.parametrize("name", ['fan"} 1\ngammavae_x 2', "a\\b", "<b>=1+1</b>"])
def test_a_hostile_machine_name_stays_one_label_and_one_line(name):
    with served(LoudnessScorer((name,))) as server:
        answer = server.post(WHOLE, machine=name)
        assert answer.json()["machine"] == name
        assert answer.text.count("\n") == 1
        metrics = server.metrics()
        assert metrics["gammavae_recordings_total", name] == 1
        assert not [key for key in metrics if key[0] == "gammavae_x"]
        (machine,) = server.get("/machines").json()["machines"]
        assert machine["machine"] == name
        assert len(server.lines()) == 1


def test_hostile_names_of_recordings_and_requests_stay_in_one_line(server):
    name = "../<script>\x1b[2J\r\nSet-Cookie: a=b"
    params = {"machine": "fan", "name": name}
    headers = {"X-Request-Id": '"><script>'}
    answer = server.post(WHOLE, params=params, headers=headers)
    assert answer.json()["name"] == "<script>?[2J??Set-Cookie: a=b"
    assert "set-cookie" not in answer.headers
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["content-type"] == "application/json"
    assert server.lines()[-1].isprintable()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("no.such.", 0)])
def test_an_address_that_cannot_be_used_is_refused(server, host, port):
    port = server.port if port is None else port
    with pytest.raises(InputError, match="use another value for --host or --port"):
        listening_socket(host, port)


GET_PATHS = ["/", "/live.js", "/health", "/metrics", "/machines", "/events"]


@pytest.mark.parametrize("path", [*GET_PATHS, "/spectrogram?machine=pump"])
def test_head_is_answered_as_get_without_a_body(server, path):
    server.post(WHOLE, "pump")
    with server.client as client:
        answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert len(server.service.broadcast) == 0  # HEAD does not add a listener
    if path not in ("/events", "/health", "/metrics"):  # whose bodies change
        assert dict(answer.headers) == dict(server.get(path).headers) | {
            "date": answer.headers["date"]
        }
    assert (
        Raw(
            server,
            f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: close\r\n\r\n".encode(),
        )
        .answer()
        .endswith("\r\n\r\n")
    )


def test_head_of_a_route_for_recordings_is_refused(server):
    with server.client as client:
        assert client.head("/score").status_code == 405


def test_a_listener_that_reads_nothing_for_a_while_is_cut_off(monkeypatch):
    monkeypatch.setattr(app.LiveServer, "ticks_between_checks", 3)
    with served() as server:
        (deaf,) = listeners_to(server, 1)
        text = {"padding": "x" * 200_000}

        def flood():
            for _ in range(60):
                server.service.broadcast.send("score", text)

        server.server.servers[0].get_loop().call_soon_threadsafe(flood)
        until(lambda: len(server.service.broadcast) == 0, 30)
        deaf.socket.close()


def test_a_form_with_two_files_is_refused_while_others_are_scored(server):
    files = [("file", ("a.wav", WHOLE)), ("file", ("b.wav", WHOLE))]
    with server.client as client:
        answer = client.post("/score?machine=fan", files=files)
    assert answer.status_code == 400
    assert "several files" in error_of(answer)
    assert server.service.uploads.n_bytes == 0
    assert server.post(WHOLE).status_code == 200


def test_a_small_file_with_billions_of_samples_does_not_block_the_service(server):
    """The file has eight channels of silence at FLAC's highest sample rate."""
    file = io.BytesIO()
    silence = np.zeros((4_000_000, 8), np.int16)
    soundfile.write(file, silence, 655350, format="FLAC")
    answer = server.post(file.getvalue())
    assert answer.status_code == 413
    assert "longer than 2.2 s" in error_of(answer)
