"""With a clock that goes back an hour at every call, no time is negative or lost."""

import itertools
import json
import os
import time
from pathlib import Path

import pytest
from rich.console import Console
from support.live_servers import audio, served
from support.live_stubs import LoudnessScorer, put, tone

from gammavae_jax.cli.watch import Watch
from gammavae_jax.live import scorer
from gammavae_jax.log import Log
from gammavae_jax.process import _MAX_PROGRAMS, _remove_oldest


@pytest.fixture
def _backwards(monkeypatch):
    times = itertools.count(1.7e9, -3600.0)
    monkeypatch.setattr(time, "time", lambda: next(times))


@pytest.mark.usefixtures("_backwards")
def test_no_stage_of_a_run_takes_negative_time(capsys):
    log = Log(Console(stderr=True))
    assert time.time() > time.time()
    with log.timed("train_s"), log.progress("epochs", 2) as advance:
        advance("loss 1")
        advance("loss 1")
    assert 0 <= log.seconds["train_s"] < 60
    assert "-" not in capsys.readouterr().err


@pytest.mark.usefixtures("_backwards")
def test_a_watch_scores_each_recording_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scorer, "load_scorer", lambda *_: LoudnessScorer())
    watch = Watch(tmp_path, detector=Path("detector"), once=True, settle=0.01)
    for name in "abc":
        put(tmp_path / "fan" / f"{name}.wav", tone(1.0, 0.2))
    later = 1.7e9 + 1e6  # written when the clock was still ahead
    os.utime(tmp_path / "fan" / "a.wav", (later, later))
    for scored in (3, 0):
        watch.run()
        assert f"recordings scored: {scored}, alarms: 0" in capsys.readouterr().out
    lines = (tmp_path / ".gammavae-watch.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["file"] for line in lines) == [
        "fan/a.wav", "fan/b.wav", "fan/c.wav",
    ]  # fmt: skip


@pytest.mark.usefixtures("_backwards")
def test_a_service_answers_and_its_uptime_is_not_negative():
    with served() as server:
        answers = [server.post(audio(1.0, level)).json() for level in (0.2, 0.8)]
        assert [answer["is_anomaly"] for answer in answers] == [False, True]
        assert server.get("/health").json()["uptime_seconds"] >= 0
        assert " -" not in server.get("/metrics").text
        assert server.get("/machines").status_code == 200


def test_programs_dated_in_the_future_do_not_displace_more_than_the_oldest(tmp_path):
    for number in range(_MAX_PROGRAMS + 2):
        path = tmp_path / f"{number}-cache"
        path.touch()
        ahead = 1e6 if number < 2 else 0.0
        os.utime(path, (1.7e9 + ahead, 1.7e9 + ahead + number))
    _remove_oldest(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == _MAX_PROGRAMS
    assert {"0-cache", "1-cache"} <= left
