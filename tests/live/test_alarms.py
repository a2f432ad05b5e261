"""Alarm policies in a watch and in the service, where loud clips raise alarms."""

import io
import json
import os

import pytest
from rich.console import Console
from support.live_servers import audio, served
from support.live_stubs import LoudnessScorer, put, tone

from gammavae_jax.live.alarms import LiveAlarms
from gammavae_jax.live.announce import Announcer, JsonLines
from gammavae_jax.live.watch import FolderWatch, WatchOptions
from gammavae_jax.live.watch_state import AlarmMemory, ScoredLog
from gammavae_jax.log import Log
from gammavae_jax.scoring.alarm_policy import AlarmPolicy

# The p-value of a clip is 1 minus half its loudness.
LEVELS = [0.2, 0.9, 0.9, 0.9, 0.2, 0.2, 0.9, 0.9]


class Watched:
    """A folder with recordings of `fan`, which one watch after another scores."""

    def __init__(self, folder):
        self.folder, self.sent, self.n_recordings = folder, [], 0
        self.lines = []  # the printed lines, without their times

    def record(self, *levels):
        for level in levels:
            path = self.folder / "fan" / f"{self.n_recordings}.wav"
            put(path, tone(1.0, level))
            self.n_recordings += 1
            os.utime(path, (self.n_recordings, self.n_recordings))

    def watch(self, policy):
        """Score the new recordings, and return the counts."""
        out = io.StringIO()
        announcer = Announcer(Log(Console(file=out, width=1000)), send=self.sent.append)
        options = WatchOptions(self.folder, None, 0.01, 0.0)
        with ScoredLog(self.folder / "state") as scored:
            memory = AlarmMemory(scored.alarms_path, {"fan": policy})
            self.lines += memory.notes
            alarms = LiveAlarms({"fan": policy}, memory)
            watch = FolderWatch(options, LoudnessScorer(), scored, announcer, alarms)
            watch.run_once()
        self.lines += [line[21:] for line in out.getvalue().splitlines()]
        return watch.counts


@pytest.fixture
def alarms():
    """Return alarms that need two loud clips of three, and hold for six seconds."""
    return LiveAlarms(dict.fromkeys(("fan", "pump"), AlarmPolicy(0.75, 2, 3, 6.0)))


def test_a_watch_reports_when_alarms_are_raised_and_end(tmp_path, alarms):
    folder, out, sent = tmp_path / "watched", io.StringIO(), []
    for number, level in enumerate(LEVELS):
        put(folder / "fan" / f"{number}.wav", tone(1.0, level))
    put(folder / "pump" / "a.wav", tone(1.0, 0.9))  # does not count for the fan
    lines = JsonLines(tmp_path / "events.jsonl")
    announcer = Announcer(Log(Console(file=out, width=1000)), lines, sent.append)
    options = WatchOptions(folder, None, 0.01, 0.0)
    with ScoredLog(tmp_path / "state") as scored:
        watch = FolderWatch(options, LoudnessScorer(), scored, announcer, alarms)
        watch.run_once()
    lines.close()
    assert watch.counts == {"scored": 9, "alarms": 2}
    printed = [line[21:] for line in out.getvalue().splitlines()]
    rule = "2 of the last 3 segments have p <= 0.75"
    first = f"ALARM  fan  since 0:00 of fan/1.wav: {rule}"
    over = "over   fan  at 0:01 of fan/5.wav: alarm since 0:00 of fan/1.wav"
    held = f"ALARM  fan  since 0:00 of fan/6.wav: {rule}"
    held += "  (held back: soon after another alarm)"
    assert [x for x in printed if not x.startswith(("ok", "above"))] == [
        first,
        over,
        held,
    ]
    of_fan = [x[:5] for x in printed if "fan/" in x and "score" in x]
    assert of_fan == ["above" if level > 0.5 else "ok   " for level in LEVELS]
    assert [(m["event"], m["text"]) for m in sent] == [
        ("alarm", first),
        ("alarm_over", over),
    ]
    assert sent[0]["raised"] == {"recording": "fan/2.wav", "seconds": 1.0}
    events = [
        json.loads(x) for x in (tmp_path / "events.jsonl").read_text().split("\n")[:-1]
    ]
    kinds = [e["event"] for e in events if e["machine"] == "fan"]
    assert [kinds.count(k) for k in ("recording", "alarm", "alarm_over")] == [8, 2, 1]
    standing = [
        e["alarm"] is not None
        for e in events
        if e["event"] == "recording" and e["machine"] == "fan"
    ]
    assert standing == [False, False, True, True, True, False, False, True]


def test_a_real_fault_soon_after_a_false_alarm_is_sent_when_the_hold_time_ends(
    tmp_path,
):
    watched = Watched(tmp_path)
    watched.record(0.9, 0.2, *[0.9] * 6)
    counts = watched.watch(AlarmPolicy(0.75, 1, 1, 4.0))
    assert counts == {"scored": 8, "alarms": 2}
    sent = [(m["event"], m["start"]["recording"], m["file"]) for m in watched.sent]
    assert sent == [
        ("alarm", "fan/0.wav", "fan/0.wav"),
        ("alarm_over", "fan/0.wav", "fan/1.wav"),
        ("alarm", "fan/2.wav", "fan/4.wav"),
    ]


def test_watches_that_score_one_recording_each_raise_the_alarms_of_a_single_one(
    tmp_path,
):
    policy = AlarmPolicy(0.75, 2, 3, 7.0)
    levels = [*LEVELS, 0.9, 0.9]
    one, many = Watched(tmp_path / "one"), Watched(tmp_path / "many")
    one.record(*levels)
    counts = one.watch(policy)
    of_each = []
    for level in levels:
        many.record(level)
        of_each.append(many.watch(policy))
    assert many.lines == one.lines
    assert sum(of["alarms"] for of in of_each) == counts["alarms"] == 2
    kinds = [message["event"] for message in many.sent]
    assert kinds == ["alarm", "alarm_over", "alarm"]  # the last after the hold time
    (tmp_path / "many" / "state").unlink()  # the watch starts from scratch
    many.lines.clear()
    many.watch(policy)
    assert many.lines == one.lines


def test_alarms_that_cannot_be_saved_are_reported_and_scoring_continues(tmp_path):
    watched = Watched(tmp_path)
    watched.record(0.2)
    watched.watch(AlarmPolicy(0.75, 1, 1))
    kept = tmp_path / "state.alarms.json"
    kept.unlink()
    kept.mkdir()
    watched.record(0.9)
    watched.lines.clear()
    assert watched.watch(AlarmPolicy(0.75, 1, 1)) == {"scored": 1, "alarms": 1}
    assert "cannot be read (Is a directory)" in watched.lines[0]
    assert "a restarted watch would not know of earlier alarms" in watched.lines[-1]


def test_a_recording_with_more_segments_than_planned_is_noted_once(tmp_path):
    watched = Watched(tmp_path)
    for name in ("a.wav", "b.wav"):
        put(tmp_path / "fan" / name, tone(12.0))
    policy = AlarmPolicy(0.75, 2, 3, recording_seconds=3600.0, most_segments=1)
    watched.watch(policy)
    notes = [line for line in watched.lines if "segments" in line]
    assert notes == [
        "fan/a.wav: 2 segments, but training recordings have at most 1: expect more "
        "false alarms than stated, or record shorter files"
    ]


def test_a_recording_with_as_many_segments_as_planned_needs_no_note(tmp_path):
    watched = Watched(tmp_path)
    put(tmp_path / "fan" / "a.wav", tone(12.0))
    watched.watch(AlarmPolicy(0.75, 2, 3, most_segments=2))
    assert not [line for line in watched.lines if "segments" in line]


def test_the_service_reports_the_state_of_the_alarm(alarms):
    with served(alarms=alarms) as server:
        answers = [server.post(audio(1.0, level)).json() for level in LEVELS]
        metrics = server.metrics()
        lines = server.lines()
    standing = [answer["alarm"] is not None for answer in answers]
    assert standing == [False, False, True, True, True, False, False, True]
    raised = [len(answer["alarm_events"]) for answer in answers]
    assert raised == [0, 0, 1, 0, 0, 1, 0, 1]
    assert answers[2]["alarm_events"][0] == answers[4]["alarm"]
    assert answers[7]["alarm"]["is_held"]
    assert (metrics["gammavae_alarm", "fan"], metrics["gammavae_alarm", "pump"]) == (
        1,
        0,
    )
    assert metrics["gammavae_alarms_total", "fan"] == 2
    assert sum(line.startswith("ALARM") for line in lines) == 2


def test_without_a_policy_responses_and_metrics_have_no_alarm():
    with served() as server:
        assert "alarm" not in server.post(audio(1.0, 0.9)).json()
        assert ("gammavae_alarm", "fan") not in server.metrics()
