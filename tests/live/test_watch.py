"""A watched folder, from recordings to what is said of them."""

import io
import json
import os
import shutil
import time

import numpy as np
import pytest
import soundfile
from rich.console import Console
from support.live_stubs import RATE, LoudnessScorer, put, tone

from gammavae_jax.live import watch as watch_module
from gammavae_jax.live.announce import Announcer, JsonLines, clock
from gammavae_jax.live.scored_log import ScoredLog
from gammavae_jax.live.watch import FolderWatch, Watched
from gammavae_jax.live.windows import rolling
from gammavae_jax.log import Log


class Hooked:
    """Takes what a webhook would send."""

    def __init__(self):
        self.sent = []

    def send(self, alarm):
        json.dumps(alarm)
        self.sent.append(alarm)


class Watcher:
    """A watch of one folder, looking when it is told to."""

    def __init__(self, folder, machine=None, scorer=None):
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self.scorer = scorer or LoudnessScorer()
        self.json = folder.parent / "said.jsonl"
        self.hook = Hooked()
        self.json_lines = JsonLines(self.json)
        self.out = io.StringIO()
        self.machine = machine

    def __call__(self, looks=2):
        """Watch for a while; the lines that were said, without their times."""
        with ScoredLog(self.folder.parent / "state") as scored:
            self.watch = self.make(scored)
            for _ in range(looks):
                self.watch._look()
        return self.lines()

    def make(self, scored, settle=0.0):
        windows = rolling(self.scorer, None, None)
        watched = Watched(self.folder, self.machine, windows, 0.01, settle)
        log = Log(Console(file=self.out, width=1000))
        announcer = Announcer(log, self.json_lines, self.hook.send)
        return FolderWatch(watched, self.scorer, scored, announcer)

    def lines(self):
        lines = [line[21:] for line in self.out.getvalue().splitlines()]
        self.out.seek(0)
        self.out.truncate()
        return lines

    def events(self):
        return [json.loads(line) for line in self.json.read_text().splitlines()]


@pytest.fixture
def watcher(tmp_path):
    watcher = Watcher(tmp_path / "watched")
    yield watcher
    watcher.json_lines.close()


def test_each_recording_is_told_of_once_and_by_its_machine(watcher):
    put(watcher.folder / "fan" / "quiet.wav", tone(1.0, 0.25))
    put(watcher.folder / "line 2" / "pump" / "loud.flac", tone(1.0, 0.8))
    assert sorted(watcher()) == [
        "ALARM  pump  line 2/pump/loud.flac  score 0.8  p 0.6  threshold 0.5",
        "ok     fan  fan/quiet.wav  score 0.25  p 0.88  threshold 0.5",
    ]
    assert watcher.watch.counts == {"scored": 2, "alarms": 1}
    assert [sent["file"] for sent in watcher.hook.sent] == ["line 2/pump/loud.flac"]
    assert watcher.hook.sent[0]["text"].startswith("ALARM  pump  line 2/pump/loud.flac")
    assert watcher() == []  # a restart
    assert len(watcher.scorer.judged) == 2


def test_json_says_the_same(watcher):
    put(watcher.folder / "fan" / "loud.wav", tone(1.0, 0.75))
    watcher()
    (event,) = watcher.events()
    assert event.pop("time")[-6] in "+-"
    assert event.pop("score") == pytest.approx(0.75, abs=1e-3)
    assert event.pop("p_value") == pytest.approx(0.625, abs=1e-3)
    assert event == {
        "event": "recording",
        "file": "fan/loud.wav",
        "machine": "fan",
        "seconds": 1.0,
        "n_windows": 1,
        "n_alarms": 1,
        "threshold": 0.5,
        "is_anomaly": True,
    }


def test_a_long_recording_has_a_line_for_each_stretch_and_a_summary(watcher):
    samples = tone(100)
    samples[60 * RATE : 70 * RATE] *= 8
    put(watcher.folder / "fan" / "long.wav", samples)
    stretch, whole = watcher()
    assert stretch.startswith("ALARM  fan  fan/long.wav  1:00 to 1:10  score 0.8")
    assert whole.startswith(
        "ALARM  fan  fan/long.wav  all 1:40, 21 of 199 windows alarms  score 0.8"
    )
    assert [e["event"] for e in watcher.events()] == ["stretch", "recording"]
    assert [(s["start"], s["end"]) for s in watcher.hook.sent] == [(59.5, 70.5)]
    assert watcher.watch.counts == {"scored": 1, "alarms": 1}


def test_other_rates_are_resampled_and_said_once(watcher):
    for name in "ab":
        put(watcher.folder / "fan" / f"{name}.wav", tone(30.0, 0.4, 44100), rate=44100)
    said, *lines = watcher()
    assert said == "recordings at 44100 Hz are resampled to 16000 Hz"
    assert len(lines) == 2
    assert all("score 0.4" in line for line in lines)
    assert all(e["seconds"] == pytest.approx(30, abs=1e-3) for e in watcher.events())


def test_a_bad_file_is_named_once_in_one_line_and_the_rest_is_scored(watcher):
    bad = put(watcher.folder / "fan" / "bad\n.wav", tone(1.0))
    bad.write_bytes(bad.read_bytes()[:5000])
    (watcher.folder / "fan" / "empty.flac").write_bytes(b"")
    (watcher.folder / "fan" / "noise.wav").write_bytes(os.urandom(5000))
    put(watcher.folder / "fan" / "short.wav", tone(0.005))
    nan = np.full(RATE, np.nan, np.float32)
    soundfile.write(watcher.folder / "fan" / "nan.wav", nan, RATE, subtype="FLOAT")
    os.mkfifo(watcher.folder / "fan" / "pipe.wav")
    put(watcher.folder / "stray.wav", tone(1.0))
    put(watcher.folder / "fan" / "good.wav", tone(1.0))
    lines = watcher()
    assert sum(line.startswith("BAD ") for line in lines) == 7
    assert sum(line.startswith("ok ") for line in lines) == 1
    assert len(lines) == 8
    assert any("stray.wav: in no machine's folder (fan, pump)" in li for li in lines)
    assert [e["event"] for e in watcher.events()].count("bad_file") == 7
    assert watcher.watch.counts == {"scored": 1, "alarms": 0, "bad": 7}


def test_a_recording_that_no_code_was_ready_for_costs_no_other(watcher):
    class Surprised(LoudnessScorer):
        def judge(self, clip, machine):
            if np.abs(clip).max() > 0.5:
                raise TypeError("what\nis this?")
            return super().judge(clip, machine)

    watcher.scorer = Surprised()
    odd = put(watcher.folder / "fan" / "odd.wav", tone(1.0, 0.9))
    put(watcher.folder / "fan" / "quiet.wav", tone(1.0, 0.2))
    bad, good = sorted(watcher())
    assert bad == rf"BAD    {odd}: TypeError: what\nis this?"
    assert good.startswith("ok     fan  fan/quiet.wav")


def test_a_header_of_an_absurd_rate_is_refused_before_it_takes_all_memory(watcher):
    put(watcher.folder / "fan" / "odd.wav", tone(1.0), rate=1)
    (bad,) = watcher()
    assert bad.startswith("BAD ")
    assert "a sample rate of 1 Hz cannot be" in bad


def test_bad_files_that_are_gone_are_forgotten(watcher):
    path = put(watcher.folder / "fan" / "a.wav", tone(0.005))
    put(watcher.folder / "fan" / "b.wav", tone(0.005))
    with ScoredLog(watcher.folder.parent / "state") as scored:
        watch = watcher.make(scored)
        watch._look()
        assert watch._bad.keys() == {"fan/a.wav", "fan/b.wav"}
        path.unlink()
        watch._tidied = -watch_module._BETWEEN_TIDYINGS
        watch._look()
    assert watch._bad.keys() == {"fan/b.wav"}


def test_a_bad_file_that_is_put_right_is_scored(watcher):
    path = put(watcher.folder / "fan" / "a.wav", tone(1.0))
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    with ScoredLog(watcher.folder.parent / "state") as scored:
        watch = watcher.make(scored)
        watch._look()
        path.write_bytes(whole)
        watch._look()
        watch._look()
    bad, good = watcher.lines()
    assert bad.startswith("BAD ")
    assert good.startswith("ok ")


def test_a_recording_that_grows_is_not_scored_before_it_is_whole(watcher):
    path = put(watcher.folder / "fan" / "a.wav", tone(1.0))
    whole = path.read_bytes()
    with ScoredLog(watcher.folder.parent / "state") as scored:
        watch = watcher.make(scored, settle=0.05)
        for size in range(5000, 30000, 5000):
            path.write_bytes(whole[:size])
            watch._look()
        path.write_bytes(whole)
        assert watcher.lines() == []
        for _ in range(4):
            watch._look()
            watch_module.time.sleep(0.03)
    assert len(watcher.lines()) == 1
    assert watcher.scorer.judged == [("fan", RATE)]


def test_a_recording_that_changes_while_it_is_read_is_not_told_of(watcher):
    path = put(watcher.folder / "fan" / "a.wav", tone(1.0))

    class Slow(LoudnessScorer):
        def judge(self, clip, machine):
            if len(self.judged) == 0:
                put(path, tone(1.2))
            return super().judge(clip, machine)

    watcher.scorer = Slow()
    assert [line[:5] for line in watcher(looks=3)] == ["ok   "]
    assert [length for _, length in watcher.scorer.judged] == [RATE, RATE * 6 // 5]


def test_a_recording_that_goes_before_it_is_read_is_said(watcher, monkeypatch):
    path = put(watcher.folder / "fan" / "a.wav", tone(1.0))
    opened = watch_module.open_recording

    def gone(*arguments, **keywords):
        path.unlink()
        return opened(*arguments, **keywords)

    monkeypatch.setattr(watch_module, "open_recording", gone)
    assert watcher() == ["fan/a.wav: gone before it was read"]
    assert watcher.watch.counts == {}


def test_a_folder_that_vanishes_is_waited_for(watcher):
    put(watcher.folder / "fan" / "a.wav", tone(1.0))
    away = watcher.folder.with_name("away")
    with ScoredLog(watcher.folder.parent / "state") as scored:
        watch = watcher.make(scored)
        watch._look()
        shutil.move(watcher.folder, away)
        watch._look()
        watch._look()
        shutil.move(away, watcher.folder)
        put(watcher.folder / "fan" / "b.wav", tone(1.0))
        watch._look()
    first, gone, back, second = watcher.lines()
    assert "fan/a.wav" in first
    assert gone == f"{watcher.folder}: No such file or directory: waiting for it"
    assert back == f"{watcher.folder} is there again"
    assert "fan/b.wav" in second


def test_state_that_cannot_be_written_does_not_stop_the_watch(watcher, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScoredLog, "add", full)
    put(watcher.folder / "fan" / "a.wav", tone(1.0))
    lines = watcher(looks=1)
    assert lines[0].startswith("ok ")
    assert lines[1] == (
        "the state cannot be written (No space left on device): after a restart, "
        "recordings would be scored again"
    )


def test_once_scores_what_is_there_and_names_what_grows(watcher, monkeypatch):
    put(watcher.folder / "fan" / "a.wav", tone(1.0))
    growing = put(watcher.folder / "fan" / "b.wav", tone(1.0))
    sleep = time.sleep

    def grow_meanwhile(seconds):
        put(growing, tone(2.0))
        sleep(seconds)

    monkeypatch.setattr(watch_module.time, "sleep", grow_meanwhile)
    with ScoredLog(watcher.folder.parent / "state") as scored:
        watcher.make(scored, settle=0.05).run_once()
    lines = watcher.lines()
    assert len(lines) == 2
    assert "fan/a.wav" in lines[0]
    assert lines[1] == "fan/b.wav: still growing: left for later"


def test_what_was_there_may_be_taken_as_scored(watcher):
    put(watcher.folder / "fan" / "a.wav", tone(1.0))
    with ScoredLog(watcher.folder.parent / "state") as scored:
        watch = watcher.make(scored)
        watch.know_all()
        put(watcher.folder / "fan" / "b.wav", tone(1.0))
        watch._look()
        watch._look()
    (line,) = watcher.lines()
    assert "fan/b.wav" in line


def test_the_option_names_the_machine_where_folders_do_not(watcher):
    watcher.machine = "pump"
    put(watcher.folder / "a.wav", tone(1.0))
    assert watcher()[0].startswith("ok     pump  a.wav")


def test_the_only_machine_needs_no_name(watcher):
    watcher.scorer = LoudnessScorer(("fan",))
    put(watcher.folder / "2024" / "b.wav", tone(1.0))
    assert watcher()[0].startswith("ok     fan  2024/b.wav")


def test_lines_of_json_follow_one_that_was_cut_off(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"event": "rec')
    lines = JsonLines(path)
    lines.add({"a": 1})
    lines.close()
    assert path.read_text().splitlines() == ['{"event": "rec', '{"a": 1}']


def test_times_within_a_recording_read_like_a_clock():
    assert [clock(s) for s in (0.0, 59.6, 3599.0, 3661.0)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:01:01",
    ]
