"""A watched folder, from new recordings to the printed lines."""

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
from gammavae_jax.live.announce import Announcer, JsonLines
from gammavae_jax.live.watch import FolderWatch, WatchOptions
from gammavae_jax.live.watch_state import ScoredLog
from gammavae_jax.log import Log


class Watcher:
    """A watch of one folder that polls when asked to."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir()
        self.fan = folder / "fan"
        self.scorer = LoudnessScorer()
        self.machine = None
        self.json = folder.parent / "events.jsonl"
        self.json_lines = JsonLines(self.json)
        self.sent = []
        self.out = io.StringIO()
        self.scored = ScoredLog(folder.parent / "state")

    def start(self, settle=0.0):
        options = WatchOptions(self.folder, self.machine, 0.01, settle)
        log = Log(Console(file=self.out, width=1000))
        announcer = Announcer(log, self.json_lines, self.sent.append)
        self.watch = FolderWatch(options, self.scorer, self.scored, announcer)
        return self.watch

    def lines(self, polls=0):
        """Poll with a new watch, and return the printed lines without their times."""
        if polls:
            self.start()
        for _ in range(polls):
            self.watch._poll()
        lines = [line[21:] for line in self.out.getvalue().splitlines()]
        self.out.seek(0)
        self.out.truncate()
        return lines

    def events(self):
        return [json.loads(line) for line in self.json.read_text().splitlines()]


@pytest.fixture
def watcher(tmp_path):
    watcher = Watcher(tmp_path / "watched")
    with watcher.scored:
        yield watcher
    watcher.json_lines.close()


def test_each_recording_is_reported_once_and_for_its_machine(watcher):
    put(watcher.fan / "quiet.wav", tone(1.0, 0.25))
    put(watcher.folder / "line 2" / "pump" / "loud.flac", tone(1.0, 0.8))
    assert sorted(watcher.lines(2)) == [
        "ALARM  pump  line 2/pump/loud.flac  score 0.8  p 0.6  threshold 0.5",
        "ok     fan  fan/quiet.wav  score 0.25  p 0.88  threshold 0.5",
    ]
    assert watcher.watch.counts == {"scored": 2, "alarms": 1}
    (sent,) = watcher.sent
    assert sent["file"] == "line 2/pump/loud.flac"
    assert sent["text"].startswith("ALARM  pump  line 2/pump/loud.flac")
    assert watcher.lines(2) == []  # after a restart
    assert len(watcher.scorer.judged) == 2


def test_json_lines_report_the_same_events(watcher):
    put(watcher.fan / "loud.wav", tone(1.0, 0.75))
    watcher.lines(2)
    (event,) = watcher.events()
    assert event.pop("time")[-6] in "+-"
    assert event.pop("score") == pytest.approx(0.75, abs=1e-3)
    assert event.pop("p_value") == pytest.approx(0.625, abs=1e-3)
    assert event == {
        "event": "recording",
        "file": "fan/loud.wav",
        "machine": "fan",
        "seconds": 1.0,
        "n_clips": 1,
        "n_alarms": 1,
        "n_recordings": 19999.0,
        "state": "running",
        "states": {"running": 1},
        "stretches": [{"start": 0.0, "end": 1.0, "score": pytest.approx(0.75, 1e-3)}],
        "threshold": 0.5,
        "is_anomaly": True,
        "sample_rate": RATE,
        "notes": [],
    }


def test_a_long_recording_raises_one_alarm_that_says_where(watcher):
    samples = tone(100)
    samples[5 * RATE : 6 * RATE] *= 7
    samples[15 * RATE : 100 * RATE] *= 9.8
    put(watcher.fan / "long.wav", samples)
    (line,) = watcher.lines(2)
    where = "86 of 100 clips above the threshold of one clip, highest 0:15 to 1:40"
    assert line.startswith(f"ALARM  fan  fan/long.wav  {where}  score 0.")
    (event,), (sent,) = watcher.events(), watcher.sent
    times = [(s["start"], s["end"]) for s in event["stretches"]]
    assert times == [(5.0, 6.0), (15.0, 100.0)]
    assert (sent["event"], sent["stretches"]) == ("alarm", event["stretches"])
    assert watcher.watch.counts == {"scored": 1, "alarms": 1}


def test_resampling_is_reported_once(watcher):
    for name in "ab":
        put(watcher.fan / f"{name}.wav", tone(30.0, 0.4, 44100), rate=44100)
    message, *lines = watcher.lines(2)
    assert message.endswith(".wav: recordings at 44100 Hz")
    assert len(lines) == 2
    assert all("score 0.4" in line for line in lines)
    for event in watcher.events():
        assert event["seconds"] == pytest.approx(30, abs=1e-3)
        assert event["sample_rate"] == 44100
        assert event["notes"] == ["recordings at 44100 Hz"]


@pytest.mark.parametrize("name", ["done/0.wav", "fan/checked_0.wav", "fan/0.WAV"])
def test_a_recording_that_is_moved_is_not_scored_again(watcher, name):
    path = put(watcher.fan / "0.wav", tone(1.0, 0.8))
    assert len(watcher.lines(2)) == 1
    (watcher.folder / name).parent.mkdir(exist_ok=True)
    path.rename(watcher.folder / name)
    expected = [f"{name} was already scored as fan/0.wav: not scored again"]
    assert watcher.lines(2) == expected  # also by a new watch
    assert watcher.lines(2) == []
    assert len(watcher.sent) == 1


def test_a_recording_that_is_moved_to_another_machine_is_scored_for_it(watcher):
    path = put(watcher.fan / "0.wav", tone(1.0))
    watcher.lines(2)
    (watcher.folder / "pump").mkdir()
    path.rename(watcher.folder / "pump" / "0.wav")
    (line,) = watcher.lines(2)
    assert line.startswith("ok     pump  pump/0.wav")


@pytest.mark.parametrize("how", ["replaced", "overwritten"])
def test_other_contents_of_the_same_name_size_and_time_are_scored(watcher, how):
    path, old = watcher.fan / "latest.wav", (315532800, 315532800)
    put(path, tone(1.0, 0.2))
    os.utime(path, old)
    assert watcher.lines(2)[0].startswith("ok ")
    new = watcher.folder.parent / "new.wav" if how == "replaced" else path
    put(new, tone(1.0, 0.8))
    os.utime(new, old)
    new.replace(path)
    assert watcher.lines(2)[0].startswith("ALARM")


def test_a_recording_whose_permissions_change_is_not_scored_again(watcher):
    path = put(watcher.fan / "0.wav", tone(1.0))
    watcher.lines(2)
    path.chmod(0o600)
    os.link(path, watcher.folder.parent / "backup.wav")
    assert watcher.lines(2) == []


def test_the_same_silence_in_a_new_recording_is_scored(watcher):
    """A dead microphone repeats the same recording; each one must be reported."""
    for number in range(3):
        path = put(watcher.fan / f"{number}.wav", np.zeros(RATE))
        os.utime(path, (1000 * number, 1000 * number))
    assert len(watcher.lines(2)) == 3


def test_a_folder_named_after_a_machine_in_another_unicode_form_is_its_own(watcher):
    """On macOS, file names are stored with decomposed characters."""
    watcher.scorer = LoudnessScorer(("L\u00fcfter", "pump"))
    put(watcher.folder / "Lu\u0308fter" / "0.wav", tone(1.0))
    assert watcher.lines(2)[0].startswith("ok     L\u00fcfter")


def test_what_is_left_out_is_named_once(watcher):
    (watcher.fan).mkdir()
    for name in ("a.mp3", ".a.wav"):
        (watcher.fan / name).write_bytes(b"x")
    watch = watcher.start()
    watch._poll()
    watch._poll()
    lines = watcher.lines()
    assert [line.split(": ")[1] for line in lines] == [
        "1 hidden or system file or folder (fan/.a.wav)",
        "1 file in another format (fan/a.mp3)",
    ]
    for name in ("b.mp3", ".b.wav"):
        (watcher.fan / name).write_bytes(b"x")
    watch._poll()
    assert [line.split(": ")[1] for line in watcher.lines()] == [
        "1 file in another format (fan/b.mp3)"
    ]


def test_a_bad_file_is_reported_once_in_one_line_and_the_others_are_scored(watcher):
    bad = put(watcher.fan / "bad\n.wav", tone(1.0))
    bad.write_bytes(bad.read_bytes()[:5000])
    (watcher.fan / "empty.flac").write_bytes(b"")
    (watcher.fan / "noise.wav").write_bytes(os.urandom(5000))
    put(watcher.fan / "short.wav", tone(0.005))
    nan = np.full(RATE, np.nan, np.float32)
    soundfile.write(watcher.fan / "nan.wav", nan, RATE, subtype="FLOAT")
    os.mkfifo(watcher.fan / "pipe.wav")
    put(watcher.folder / "stray.wav", tone(1.0))
    (watcher.fan / "gone.wav").symlink_to("nothing")
    put(watcher.fan / "rate.wav", tone(1.0), rate=1)  # would take all memory
    put(watcher.fan / "good.wav", tone(1.0))
    lines = watcher.lines(2)
    assert sorted(line.split()[0] for line in lines) == ["BAD"] * 9 + ["ok"]
    stray = "stray.wav is not in a folder named after a machine (fan, pump)"
    assert any(stray in line for line in lines)
    assert any("a sample rate of 1 Hz is implausible" in x for x in lines)
    assert [e["event"] for e in watcher.events()].count("bad_file") == 9
    assert watcher.watch.counts == {"scored": 1, "alarms": 0, "bad": 9}


def test_after_an_unexpected_error_the_other_recordings_are_scored(watcher):
    class Broken(LoudnessScorer):
        def score_clip(self, clip, machine):
            if np.abs(clip).max() > 0.5:
                raise TypeError("what\nis this?")
            return super().score_clip(clip, machine)

    watcher.scorer = Broken()
    odd = put(watcher.fan / "odd.wav", tone(1.0, 0.9))
    put(watcher.fan / "quiet.wav", tone(1.0, 0.2))
    bad, good = sorted(watcher.lines(2))
    assert bad == rf"BAD    {odd}: TypeError: what\nis this?"
    assert good.startswith("ok     fan  fan/quiet.wav")


def test_bad_files_that_were_removed_are_forgotten(watcher):
    path = put(watcher.fan / "a.wav", tone(0.005))
    put(watcher.fan / "b.wav", tone(0.005))
    watch = watcher.start()
    watch._poll()
    assert watch._bad.keys() == {"fan/a.wav", "fan/b.wav"}
    path.unlink()
    watch._cleaned = -watch_module._CLEANUP_SECONDS
    watch._poll()
    assert watch._bad.keys() == {"fan/b.wav"}


def test_a_repaired_file_is_scored(watcher):
    path = put(watcher.fan / "a.wav", tone(1.0))
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    watch = watcher.start()
    watch._poll()
    path.write_bytes(whole)
    watch._poll()
    watch._poll()
    bad, good = watcher.lines()
    assert bad.startswith("BAD ")
    assert good.startswith("ok ")


def test_a_growing_recording_is_not_scored_before_it_is_complete(watcher):
    path = put(watcher.fan / "a.wav", tone(1.0))
    whole = path.read_bytes()
    watch = watcher.start(settle=0.05)
    for size in range(5000, 30000, 5000):
        path.write_bytes(whole[:size])
        watch._poll()
    path.write_bytes(whole)
    assert watcher.lines() == []
    for _ in range(4):
        watch._poll()
        time.sleep(0.03)
    assert len(watcher.lines()) == 1
    assert watcher.scorer.judged == [("fan", RATE)]


def test_a_recording_that_changes_while_it_is_read_is_not_reported(watcher):
    path = put(watcher.fan / "a.wav", tone(1.0))

    class Slow(LoudnessScorer):
        def score_clip(self, clip, machine):
            if len(self.judged) == 0:
                put(path, tone(1.2))
            return super().score_clip(clip, machine)

    watcher.scorer = Slow()
    assert [line[:5] for line in watcher.lines(3)] == ["ok   "]
    assert [length for _, length in watcher.scorer.judged] == [RATE, RATE * 6 // 5]


def test_a_recording_that_is_removed_before_it_is_read_is_not_bad(watcher, monkeypatch):
    path = put(watcher.fan / "a.wav", tone(1.0))
    opened = watch_module.open_recording

    def remove_first(*arguments, **keywords):
        path.unlink()
        return opened(*arguments, **keywords)

    monkeypatch.setattr(watch_module, "open_recording", remove_first)
    assert watcher.lines(2) == ["fan/a.wav was removed before it was scored"]
    assert watcher.watch.counts == {}


def test_the_watch_waits_for_a_folder_that_vanishes(watcher):
    put(watcher.fan / "a.wav", tone(1.0))
    away = watcher.folder.with_name("away")
    watch = watcher.start()
    watch._poll()
    shutil.move(watcher.folder, away)
    watch._poll()
    watch._poll()
    shutil.move(away, watcher.folder)
    put(watcher.fan / "b.wav", tone(1.0))
    watch._poll()
    first, gone, back, second = watcher.lines()
    assert "fan/a.wav" in first
    problem = "cannot be listed (No such file or directory): waiting until"
    assert gone == f"{watcher.folder} {problem} it is available"
    assert back == f"{watcher.folder} is available again"
    assert "fan/b.wav" in second


def test_an_unwritable_state_does_not_stop_the_watch(watcher, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScoredLog, "add", full)
    put(watcher.fan / "a.wav", tone(1.0))
    lines = watcher.lines(1)
    assert lines[0].startswith("ok ")
    assert lines[1] == (
        "the state file cannot be written (No space left on device): a restarted watch "
        "would score recordings again"
    )


def test_once_scores_complete_recordings_and_names_growing_ones(watcher, monkeypatch):
    put(watcher.fan / "a.wav", tone(1.0))
    growing = put(watcher.fan / "b.wav", tone(1.0))
    sleep = time.sleep

    def grow_meanwhile(seconds):
        put(growing, tone(2.0))
        sleep(seconds)

    monkeypatch.setattr(watch_module.time, "sleep", grow_meanwhile)
    watcher.start(settle=0.05).run_once()
    scored, left = watcher.lines()
    assert "fan/a.wav" in scored
    problem = "fan/b.wav is still growing, so it was not scored"
    assert left == f"{problem}: run the watch again later"


def test_once_says_why_it_scores_nothing(watcher):
    watcher.start().run_once()
    folder, state = watcher.folder, watcher.scored.path
    assert watcher.lines() == [f"{folder} contains no recordings to score"]
    for name in ("a", "b"):
        put(watcher.fan / f"{name}.wav", tone(1.0))
    watcher.start().run_once()
    assert len(watcher.lines()) == 2
    watcher.start().run_once()
    problem = "2 of 2 recordings were scored or skipped before"
    assert watcher.lines() == [f"{problem}: delete {state} to score them again"]


def test_existing_recordings_can_be_skipped(watcher):
    put(watcher.fan / "a.wav", tone(1.0))
    watch = watcher.start()
    watch.skip_existing()
    put(watcher.fan / "b.wav", tone(1.0))
    watch._poll()
    watch._poll()
    (line,) = watcher.lines()
    assert "fan/b.wav" in line


def test_the_machine_is_that_of_the_option_or_the_only_one(watcher):
    watcher.machine = "pump"
    put(watcher.folder / "a.wav", tone(1.0))
    assert watcher.lines(1)[0].startswith("ok     pump  a.wav")
    watcher.machine, watcher.scorer = None, LoudnessScorer(("fan",))
    put(watcher.folder / "2024" / "b.wav", tone(1.0))
    assert watcher.lines(1)[0].startswith("ok     fan  2024/b.wav")
