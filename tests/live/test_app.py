"""The service on a real port: verdicts, refusals, and clients of every kind."""

import json
import os
import random
import re
import socket
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.live_servers import audio, served
from support.live_stubs import RATE, LoudnessScorer

from gammavae_jax.errors import InputError
from gammavae_jax.live.service import Limits
from gammavae_jax.cli.serve import listening_socket

LIMITS = Limits(
    most_bytes=1_000_000, most_seconds=60.0, upload_seconds=1.0, most_waiting=3
)


@pytest.fixture(scope="module")
def server():
    with served(limits=LIMITS) as server:
        yield server


def refusal(answer):
    """The one line of an error, after checking what all have in common."""
    assert 400 <= answer.status_code < 600
    assert answer.text.count("\n") == 1
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    for secret in ("/work", "/home", "/usr", "site-packages", "Traceback", ".py"):
        assert secret not in error
    return error


def samples(server):
    """The metrics, by name and labels."""
    families = text_string_to_metric_families(server.get("/metrics").text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_recording_is_judged(server, kind):
    answer = server.post(audio(1.0, 0.8, kind=kind), "pump")
    assert answer.status_code == 200
    judged = answer.json()
    assert judged["score"] == pytest.approx(0.8, abs=1e-3)
    assert judged["p_value"] == pytest.approx(0.6, abs=1e-3)
    assert (judged["machine"], judged["threshold"]) == ("pump", 0.5)
    assert judged["is_anomaly"] is True
    assert judged["seconds"] == 1.0
    assert judged["request_id"] == answer.headers["x-request-id"]


def test_a_form_and_another_rate_are_taken_too(server):
    files = {"file": ("night.wav", audio(1.0, 0.3, 48000))}
    with server.client as client:
        answer = client.post(
            "/score?machine=fan", files=files, headers={"X-Request-Id": "mine.1"}
        )
    assert answer.json()["name"] == "night.wav"
    assert answer.json()["score"] == pytest.approx(0.3, abs=1e-2)
    assert answer.json()["request_id"] == "mine.1"
    assert "ok     fan  night.wav  score 0.3" in server.said()[-1]


def test_a_long_recording_is_heard_by_windows(server):
    answer = server.post(audio(10.0, 0.8)).json()
    assert (answer["n_windows"], answer["n_alarms"]) == (19, 19)
    assert answer["stretches"][0]["start"] == 0.0
    assert answer["stretches"][0]["end"] == 10.0


WHOLE = audio(1.0)
BAD = {
    "nothing": (b"", 400, "there is no recording in the request"),
    "text": (b"hello", 422, "this is neither WAV nor FLAC"),
    "ogg": (audio(kind="OGG"), 422, "this is neither WAV nor FLAC"),
    "cut off": (WHOLE[:5000], 422, "cut off"),
    "header alone": (WHOLE[:44], 422, "cut off"),
    "no header": (b"RIFF" + bytes(100), 422, "cannot be read as audio"),
    "too short": (audio(0.005), 422, "too short"),
    "too long": (audio(61.0, kind="FLAC"), 413, "longer than 60 s"),
    "too large": (bytes(1_000_001), 413, "more than 1 MB"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_recording_is_refused_in_one_line(server, case):
    body, status, message = BAD[case]
    answer = server.post(body)
    assert message in refusal(answer)
    assert answer.status_code == status
    assert server.post(WHOLE).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/score", 400, "whose recording is it? add ?machine=, one of fan, pu"),
        ("POST", "/score?machine=fam", 404, "did you mean 'fan'?"),
        ("GET", "/score", 405, "Method Not Allowed"),
        ("GET", "/../../etc/passwd", 404, "Not Found"),
        ("GET", "/%2e%2e/live.js", 404, "Not Found"),
        ("GET", "/docs", 404, "Not Found"),
        ("GET", "/spectrogram?machine=x", 404, "unknown machine 'x'"),
    ],
)
def test_what_is_not_there_is_said(server, method, path, status, message):
    with server.client as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    assert message in refusal(answer)


def test_metrics_count_what_was_done_in_prometheus_own_format():
    with served() as server:
        before = samples(server)
        assert before["gammavae_threshold", "fan"] == 0.5
        assert before["gammavae_alarms_total", "fan"] == 0
        assert before["gammavae_requests_total", "scored"] == 0
        for level in (0.2, 0.8, 0.6):
            server.post(audio(1.0, level))
        server.post(b"hello")
        after = samples(server)
    assert after["gammavae_requests_total", "scored"] == 3
    assert after["gammavae_requests_total", "refused"] == 1
    assert after["gammavae_alarms_total", "fan"] == 2
    assert after["gammavae_alarms_total", "pump"] == 0
    assert after["gammavae_recordings_total", "fan"] == 3
    assert after["gammavae_last_score", "fan"] == pytest.approx(0.6, abs=1e-3)
    assert after["gammavae_scoring_seconds_count",] == 4
    assert after["gammavae_uptime_seconds",] > before["gammavae_uptime_seconds",]


def test_machines_health_and_the_page_can_be_looked_at(server):
    assert [m["machine"] for m in server.get("/machines").json()["machines"]] == [
        "fan",
        "pump",
    ]
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
def test_a_page_of_another_server_may_not_ask(server, headers):
    judged = len(server.said())
    answer = server.post(WHOLE, headers=headers)
    assert answer.status_code == 403
    refusal(answer)
    assert "access-control-allow-origin" not in answer.headers
    assert len(server.said()) == judged


def test_a_page_of_another_server_may_lead_here_and_read_nothing(server):
    other = {"Sec-Fetch-Site": "cross-site"}
    assert server.get("/", headers=other | {"Sec-Fetch-Mode": "navigate"}).is_success
    for mode in ("no-cors", "cors"):
        headers = other | {"Sec-Fetch-Mode": mode}
        assert server.get("/machines", headers=headers).status_code == 403


def test_programs_and_the_own_page_may_ask(server):
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    for headers in ({}, own, {"Host": "localhost"}, {"Host": f"[::1]:{server.port}"}):
        answer = server.post(WHOLE, headers=headers)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
    with served(names=["monitor.plant"]) as named:
        proxied = {"Host": "Monitor.Plant", "Origin": "https://monitor.plant"}
        assert named.post(WHOLE, headers=proxied).status_code == 200


class Raw:
    """A client that may say anything."""

    def __init__(self, server, data=b""):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self.socket.sendall(data)

    def answer(self):
        """All that is sent until the server ends."""
        received = b""
        try:
            while data := self.socket.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        self.socket.close()
        return received.decode("utf-8", "replace")


def head(length, path="/score?machine=fan"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"{length}\r\n\r\n"
    ).encode()


def test_a_length_that_is_too_great_is_refused_before_the_body_comes(server):
    # To wait for the body would be answered by 408.
    answer = Raw(server, head("Content-Length: 99999999999")).answer()
    assert answer.startswith("HTTP/1.1 413 ")


def test_a_body_without_a_length_is_counted_as_it_comes(server):
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    client = Raw(server, head("Transfer-Encoding: chunked"))
    for _ in range(16):
        client.socket.sendall(chunk)
    assert client.answer().startswith("HTTP/1.1 413 ")
    whole = f"{len(WHOLE):x}\r\n".encode() + WHOLE + b"\r\n0\r\n\r\n"
    answer = Raw(server, head("Transfer-Encoding: chunked") + whole).answer()
    assert answer.startswith("HTTP/1.1 200 ")


def test_a_body_shorter_than_it_says_times_out(server):
    began = time.monotonic()
    answer = Raw(server, head(f"Content-Length: {2 * len(WHOLE)}") + WHOLE).answer()
    assert answer.startswith("HTTP/1.1 408 ")
    assert 0.9 < time.monotonic() - began < 5
    assert "not all arrived within 1 s" in answer


def test_a_body_longer_than_it_says_is_taken_by_its_word(server):
    answer = Raw(server, head(f"Content-Length: {len(WHOLE)}") + WHOLE + WHOLE).answer()
    assert answer.startswith("HTTP/1.1 200 ")
    answer = Raw(server, head("Content-Length: 5000") + WHOLE).answer()
    assert answer.startswith("HTTP/1.1 422 ")
    answer = Raw(server, head("Content-Length: -5") + WHOLE).answer()
    assert answer.startswith("HTTP/1.1 400 ")
    assert server.post(WHOLE).status_code == 200


def test_a_client_that_goes_is_counted_and_forgotten(server):
    gone = ("gammavae_requests_total", "gone")
    before = samples(server)[gone]
    Raw(server, head(f"Content-Length: {len(WHOLE)}") + WHOLE[:900]).socket.close()
    until(lambda: samples(server)[gone] == before + 1)
    assert server.service.uploads.held == 0


def test_slow_clients_do_not_hold_up_another(server):
    slow = [
        Raw(server, head(f"Content-Length: {len(WHOLE)}") + WHOLE[:100])
        for _ in range(40)
    ]
    assert server.post(WHOLE).status_code == 200
    assert server.service.uploads.held > 0  # by the slow ones, still
    assert all(client.answer().startswith("HTTP/1.1 408 ") for client in slow)
    assert server.service.uploads.held == 0


def test_a_connection_without_a_request_is_closed(monkeypatch):
    monkeypatch.setattr(serving.ImpatientProtocol, "header_seconds", 0.3)
    with served() as server:
        silent, half = Raw(server), Raw(server, b"POST /score HTTP/1.1\r\nHost:")
        dripping = Raw(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        dripping.socket.recv(65536)
        began = time.monotonic()
        while time.monotonic() - began < 2:
            try:
                dripping.socket.sendall(b"G")
            except OSError:
                break
            time.sleep(0.05)
        assert 0.2 < time.monotonic() - began < 2
        assert silent.answer() == half.answer() == ""
        dripping.socket.close()


def test_a_body_that_drips_after_its_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr(serving.ImpatientProtocol, "header_seconds", 0.3)
    with served(limits=LIMITS) as server:
        ask = head("Content-Length: 99999999999").replace(b"Connection: close\r\n", b"")
        client = Raw(server, ask)
        assert client.socket.recv(65536).startswith(b"HTTP/1.1 413 ")
        until(lambda: is_cut_off(client))


def is_cut_off(client):
    """Whether a byte more cannot be sent."""
    try:
        client.socket.sendall(b"x")
    except OSError:
        client.socket.close()
        return True
    return False


class Slow(LoudnessScorer):
    """Takes its time, until it is let go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def judge(self, clip, machine):
        self.go.wait(20)
        return super().judge(clip, machine)


def test_more_than_may_wait_are_put_off_and_the_others_are_scored():
    scorer, statuses = Slow(), []
    with served(scorer, LIMITS) as server:

        def post():
            statuses.append(server.post(WHOLE).status_code)

        threads = [threading.Thread(target=post) for _ in range(LIMITS.most_waiting)]
        for thread in threads:
            thread.start()
        until(lambda: server.service.waiting == LIMITS.most_waiting)
        answer = server.post(WHOLE)
        assert answer.status_code == 503
        assert "3 recordings are waiting: try again later" in refusal(answer)
        assert int(answer.headers["retry-after"]) > 0
        assert server.get("/health").json()["waiting"] == 3
        scorer.go.set()
        for thread in threads:
            thread.join()
        assert statuses == [200] * LIMITS.most_waiting
        assert server.post(WHOLE).status_code == 200


def test_scoring_that_takes_too_long_is_given_up():
    scorer = Slow()
    with served(scorer, Limits(score_seconds=0.2)) as server:
        answer = server.post(WHOLE)
        assert answer.status_code == 503
        assert "not scored within 0.2 s" in refusal(answer)
        scorer.go.set()
        until(lambda: server.service.waiting == 0)


def test_a_long_recording_is_not_heard_to_its_end_once_time_is_up():
    class Sleepy(LoudnessScorer):
        def judge(self, clip, machine):
            time.sleep(0.02)
            return super().judge(clip, machine)

    scorer = Sleepy()
    with served(scorer, Limits(score_seconds=0.2)) as server:
        assert server.post(audio(200.0)).status_code == 503
        until(lambda: server.service.waiting == 0)
        assert len(scorer.judged) < 100  # of 399


def test_a_failure_within_is_told_to_the_operator_alone():
    class Broken(LoudnessScorer):
        def judge(self, clip, machine):
            raise RuntimeError(f"at {__file__}")

    with served(Broken()) as server:
        answer = server.post(WHOLE)
        assert answer.status_code == 500
        assert refusal(answer) == "the server failed: its own messages say how"
        assert "RuntimeError" in server.said()[-1]
        assert samples(server)["gammavae_requests_total", "failed"] == 1


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def messages(response):
    """Server-sent events as they come."""
    event = None
    for line in response.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def test_listeners_are_told_of_the_past_and_of_each_recording():
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


def test_a_listener_that_never_reads_costs_little_and_holds_up_nobody(monkeypatch):
    with served() as server:
        deaf = Raw(server, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: len(server.service.broadcast) == 1)
        (waiting,) = server.service.broadcast._listeners.values()
        done = threading.Event()
        text = {"padding": "x" * 200_000}

        def flood():
            for number in range(200):
                server.service.broadcast.send("score", text | {"number": number})
            done.set()

        # Within the loop, as the service does: 120 MB, of which 13 MB are kept.
        for _ in range(3):
            done.clear()
            loop_of(server).call_soon_threadsafe(flood)
            assert done.wait(10)
            assert server.post(WHOLE).status_code == 200
        assert len(waiting) == 64
        assert '"number": 199' in waiting[-2]
        deaf.socket.close()
        until(lambda: len(server.service.broadcast) == 0)


def loop_of(server):
    return server.server.servers[0].get_loop()


def test_one_listener_too_many_is_put_off_by_a_status():
    with served() as server:
        server.service.broadcast._most_listeners = 2
        ask = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        open_ = [Raw(server, ask) for _ in range(2)]
        until(lambda: len(server.service.broadcast) == 2)
        assert server.get("/events").status_code == 503
        for client in open_:
            client.socket.close()
        until(lambda: len(server.service.broadcast) == 0)


def test_the_end_does_not_wait_for_listeners():
    with served() as server:
        open_ = Raw(server, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: len(server.service.broadcast) == 1)
        began = time.monotonic()
        server.server.should_exit = True
        server.thread.join(10)
        assert time.monotonic() - began < serving._SHUTDOWN_SECONDS
        assert "snapshot" in open_.answer()


def test_the_end_refuses_what_is_being_scored():
    scorer, answers = Slow(), []
    with served(scorer, LIMITS) as server:
        threads = [
            threading.Thread(target=lambda: answers.append(server.post(WHOLE)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        until(lambda: server.service.waiting == 2)
        server.server.should_exit = True
        for thread in threads:
            thread.join(10)
        assert [answer.status_code for answer in answers] == [503, 503]
        assert "the server is ending" in refusal(answers[0])
        scorer.go.set()


def malformed(number):
    """A request that is bad in some way, different for each number: type and body."""
    random_ = random.Random(number)
    kind = random_.choice(["WAV", "FLAC"])
    content_type, body = "audio/wav", bytearray(audio(0.2, kind=kind))
    if number % 3 == 0:  # a form, whose marks and headers lie too
        content_type = f"multipart/form-data; boundary=m{number % 7}"
        head = b'--m0\r\nContent-Disposition: form-data; name="f"; filename="a.wav"'
        body = bytearray(head + b"\r\n\r\n" + body + b"\r\n--m0--\r\n")
    way = random_.randrange(5)
    if way == 0:
        body = body[: random_.randrange(len(body))]
    elif way == 1:
        body = random_.randbytes(random_.randrange(3000))
    elif way == 2:  # a header that lies
        for _ in range(random_.randint(1, 8)):
            body[random_.randrange(min(120, len(body)))] = random_.randrange(256)
    elif way == 3:
        body = body[:4] + random_.randbytes(random_.randrange(3000))
    else:
        at = random_.randrange(len(body))
        body[at : at + random_.randrange(200)] = random_.randbytes(50)
    return content_type, bytes(body)


def post_malformed(server, numbers):
    """Each answer is a line of JSON, and good recordings in between are scored."""
    statuses = set()
    with server.client as client:
        for number in numbers:
            content_type, body = malformed(number)
            headers = {"Content-Type": content_type}
            answer = client.post("/score?machine=fan", content=body, headers=headers)
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (number, answer.text)
            if answer.status_code != 200:
                refusal(answer)
            if number % 20 == 0:
                answer = client.post("/score?machine=fan", content=WHOLE)
                assert answer.json()["score"] == pytest.approx(0.1, abs=1e-3)
    return statuses


def resident_bytes():
    """Of this process, in which the server runs."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_1000_malformed_bodies_are_refused_and_others_are_scored_meanwhile(server):
    """And nothing of them is kept."""
    statuses = post_malformed(server, range(200))
    before = resident_bytes() if Path("/proc").is_dir() else 0
    statuses |= post_malformed(server, range(200, 1000))
    assert {200, 400, 422} <= statuses <= {200, 400, 413, 422}
    assert server.service.uploads.held == 0
    if before:
        assert resident_bytes() - before < 50e6


@pytest.mark.slow
def test_3000_malformed_bodies(server):
    post_malformed(server, range(1000, 4000))


@pytest.mark.parametrize("name", ['fan"} 1\ngammavae_x 2', "a\\b", "<b>=1+1</b>"])
def test_a_hostile_machine_is_one_label_and_one_name(name):
    """To Prometheus, and in every answer."""
    with served(LoudnessScorer((name,))) as server:
        answer = server.post(WHOLE, machine=name)
        assert answer.json()["machine"] == name
        assert answer.text.count("\n") == 1
        found = samples(server)
        assert found["gammavae_recordings_total", name] == 1
        assert not [key for key in found if key[0] == "gammavae_x"]
        (machine,) = server.get("/machines").json()["machines"]
        assert machine["machine"] == name
        assert len(server.said()) == 1


def test_a_hostile_name_of_a_recording_and_of_a_request_stays_in_its_line(server):
    name = "../<script>\x1b[2J\r\nSet-Cookie: a=b"
    params = {"machine": "fan", "name": name}
    headers = {"X-Request-Id": '"><script>'}
    answer = server.post(WHOLE, params=params, headers=headers)
    assert answer.json()["name"] == "<script>?[2J??Set-Cookie: a=b"
    assert "set-cookie" not in answer.headers
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["content-type"] == "application/json"
    assert server.said()[-1].isprintable()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("no.such.", 0)])
def test_an_address_that_cannot_be_had_is_refused(server, host, port):
    port = server.port if port is None else port
    with pytest.raises(InputError, match="give another --host or --port"):
        listening_socket(host, port)


def test_scores_that_are_no_numbers_are_null():
    class Silent(LoudnessScorer):
        def judge(self, clip, machine):
            nan = float("nan")
            return super().judge(clip, machine)._replace(score=nan, p_value=nan)

    with served(Silent()) as server:
        answer = server.post(WHOLE).json()
        assert (answer["score"], answer["p_value"]) == (None, None)
        assert np.isnan(samples(server)["gammavae_last_score", "fan"])


def test_the_spectrogram_is_of_the_last_recording(server):
    server.post(audio(1.0, 0.4))
    shown = server.get("/spectrogram?machine=fan").json()
    assert shown["mels"] == 128
    assert shown["seconds"] == 1.0
    assert 0 < shown["columns"] <= 320
    assert RATE == 16000
    assert httpx.URL(server.url).host == "127.0.0.1"
