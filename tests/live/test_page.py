"""The live page in a real browser, while recordings arrive."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support import chromium
from support.live_servers import audio, served
from support.live_stubs import LoudnessScorer

from gammavae_jax.live.alarms import LiveAlarms
from gammavae_jax.scoring.alarm_policy import AlarmPolicy

ODD = "pump <b onclick=alert(1)>&amp;"


@pytest.fixture(scope="module")
def browser():
    with chromium.browser() as started:
        yield started


class Opened:
    """An open page, with the errors and requests that it caused."""

    def __init__(self, browser, server, width=1440, scheme="light"):
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page.set_default_timeout(10_000)
        self.errors, self.requests = [], []
        self.page.on("console", lambda m: self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda d: self.errors.append(d.message) or d.dismiss())
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(server.url)
        self.page.wait_for_selector("[data-live]")
        self.url = server.url

    def card(self, machine):
        return self.page.locator(".card").filter(has_text=machine).first

    def has(self, machine, state, text):
        """Wait until a card has this state and contains this text."""
        card = self.page.locator(f".card[data-state={state}]").filter(has_text=machine)
        card.filter(has_text=text).first.wait_for()
        return card.first

    def close(self):
        assert self.errors == []
        assert all(url.startswith(self.url) for url in self.requests)
        self.page.close()


@pytest.fixture
def server():
    with served(LoudnessScorer(("fan", ODD))) as server:
        yield server


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_shows_scores_and_alarms_as_recordings_arrive(
    browser, server, width, scheme
):
    opened = Opened(browser, server, width, scheme)
    opened.has("fan", "waiting", "no recording yet")
    name = {"name": "<img src=x onerror=alert(1)>.wav"}
    server.post(audio(1.0, 0.25), params={"machine": "fan"} | name)
    card = opened.has("fan", "ok", "threshold 0.5, p 0.875")
    assert card.locator(".score").inner_text() == "0.25"
    server.post(audio(1.0, 0.8), params={"machine": ODD} | name)
    card = opened.has("pump", "alarm", "▲ ALARM")
    assert card.locator(".machine").inner_text() == ODD
    assert "<img src=x" in card.locator(".alarms li").inner_text()
    assert card.locator("polygon.alarm").count() == 1
    assert opened.page.title() == "▲ 1 in alarm - Live scores"
    text = opened.page.locator("#announcement").text_content()
    assert text == f"Alarm: {ODD}, score 0.8"
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    opened.close()


def test_the_page_shows_the_alarms_of_a_policy(browser):
    alarms = LiveAlarms({"fan": AlarmPolicy(0.75, 2, 3)})
    with served(LoudnessScorer(("fan",)), alarms=alarms) as server:
        opened = Opened(browser, server)
        for state, level, text in (
            ("above", 0.8, "△ above threshold"),
            ("alarm", 0.9, "alarm since 0:00 of <b>0.8.wav"),
            ("alarm", 0.2, "▲ ALARM"),  # two of the last three are loud
            ("ok", 0.2, "● ok"),
        ):
            name = {"machine": "fan", "name": f"<b>{level}.wav"}
            server.post(audio(1.0, level), params=name)
            card = opened.has("fan", state, text)
        assert card.locator(".alarms li").count() == 1
        assert card.locator("polygon.alarm").count() == 1
        assert not card.locator(".standing").is_visible()
        opened.close()


def test_the_spectrogram_has_low_frequencies_at_the_bottom(browser, server):
    opened = Opened(browser, server)
    server.post(audio(1.0, 0.4))  # 440 Hz; the bands of the stub are 50 Hz wide
    opened.card("fan").locator(".levels", has_text="dB").wait_for()
    row = opened.page.evaluate(
        """() => {
            const canvas = document.querySelector(".spectrogram");
            const { data, width, height } =
                canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const light = (row) => data[4 * (row * width + 20) + 1];
            const rows = [...Array(height).keys()];
            return rows.reduce((a, b) => light(b) > light(a) ? b : a);
        }"""
    )
    assert 128 - row in (9, 10)
    opened.close()


def test_earlier_scores_are_shown_and_only_the_latest_are_kept(browser, server):
    for number in range(5):
        server.post(audio(0.1, 0.15 * number + 0.1), params={"machine": "fan"})
    opened = Opened(browser, server)
    card = opened.has("fan", "alarm", "▲ ALARM")
    assert card.locator("circle.dot").count() == 3
    assert card.locator("polygon.alarm").count() == 2
    opened.page.evaluate(
        """() => {
            const card = cards.get("fan");
            const one = card.scores.at(-1);
            for (let i = 0; i < 1000; i++) card.add({ ...one });
        }"""
    )
    assert opened.page.evaluate("cards.get('fan').scores.length") == 240
    assert card.locator(".alarms li").count() == 10
    opened.close()


def test_single_scores_can_be_read_with_the_keyboard(browser, server):
    for number in range(3):
        server.post(audio(0.1, 0.2), params={"machine": "fan", "name": f"{number}.wav"})
    opened = Opened(browser, server)
    opened.has("fan", "ok", "2.wav")
    opened.page.keyboard.press("Tab")
    readout = opened.card("fan").locator(".readout")
    for key, name in (
        *(("ArrowLeft", "2.wav"), ("ArrowLeft", "1.wav"), ("Home", "0.wav")),
        *(("ArrowLeft", "0.wav"), ("End", "2.wav"), ("ArrowRight", "2.wav")),
    ):
        opened.page.keyboard.press(key)
        assert name in readout.inner_text()
    assert opened.card("fan").locator("line.cursor").count() == 1
    opened.page.keyboard.press("Escape")
    assert readout.inner_text() == ""
    opened.close()


def test_the_page_reconnects_by_itself(browser, server):
    opened = Opened(browser, server)
    loop = server.server.servers[0].get_loop()
    server.service.broadcast._max_listeners = 0  # the next connection is refused
    loop.call_soon_threadsafe(server.service.broadcast.close)
    opened.page.get_by_text("connection lost: reconnecting").wait_for()
    server.post(audio(1.0, 0.8))
    server.service.broadcast._closed = False
    for _ in range(200):
        if any("503" in error for error in opened.errors):
            break
        opened.page.wait_for_timeout(50)
    server.service.broadcast._max_listeners = 9
    opened.has("fan", "alarm", "▲ ALARM")  # scored while the page was disconnected
    assert opened.page.locator("#connection").inner_text() == "live"
    assert all("503" in error for error in opened.errors)
    opened.errors.clear()
    opened.close()


class _Blank(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_page_of_another_server_can_neither_send_nor_read(browser, server):
    other = ThreadingHTTPServer(("127.0.0.1", 0), _Blank)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{other.server_port}/")
    server.post(audio())
    lines = server.lines()
    outcomes = page.evaluate(
        """async (url) => {
            const outcomes = [];
            for (const [path, options] of [
                ["/machines", {}],
                ["/events", {}],
                ["/score?machine=fan", { method: "POST", body: "x" }],
                ["/score?machine=fan", { method: "POST", body: "x", mode: "no-cors" }],
            ]) {
                try {
                    outcomes.push((await fetch(url + path, options)).status);
                } catch (error) {
                    outcomes.push(error.name);
                }
            }
            return outcomes;
        }""",
        server.url,
    )
    page.close()
    other.shutdown()
    other.server_close()
    assert outcomes == ["TypeError"] * 4
    assert server.lines() == lines
