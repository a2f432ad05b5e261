"""`gammavae watch` and `gammavae serve`, as commands."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import soundfile
from support.live_servers import audio
from support.live_stubs import RATE, LoudnessScorer, put, tone
from support.processes import ROOT

from gammavae_jax.cli.serve import Serve
from gammavae_jax.cli.watch import Watch
from gammavae_jax.errors import InputError
from gammavae_jax.live import scorer
from gammavae_jax.live import watch as watch_module
from gammavae_jax.live.watch_state import ScoredLog
from gammavae_jax.live.webhook import QuietHours, Webhook

# Runs in a separate process, with a stub in place of the saved detector.
PROGRAM = """
import sys
from pathlib import Path
from support.live_stubs import {scorer}
from gammavae_jax.cli.serve import Serve
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.cli.watch import Watch
from gammavae_jax.live import scorer
scorer.load_scorer = lambda *_: {scorer}()
with readable_errors():
    sys.exit({command}.run())
"""


def interrupts(test):
    """Run a test with each signal and the exit status that follows."""
    signals = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
    test = pytest.mark.parametrize(("number", "status"), signals)(test)
    return pytest.mark.usefixtures("heeded_interrupts")(test)


def start(command, stderr=subprocess.STDOUT, scorer="LoudnessScorer"):
    tests = ROOT / "tests"
    path = os.pathsep.join([str(tests), str(tests.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(command=command, scorer=scorer)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
    )


def lines_until(process, wanted):
    """Return the lines of a process up to the first that contains the wanted text."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if wanted in line:
            return lines
    raise AssertionError(lines)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A folder to watch, and a stub in place of the saved detector."""
    monkeypatch.setattr(scorer, "load_scorer", lambda *_: LoudnessScorer())
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    path = tmp_path / "watched"
    put(path / "fan" / "quiet.wav", tone(1.0, 0.2))
    put(path / "pump" / "loud.wav", tone(1.0, 0.8))
    return path


def watch(folder, **options):
    return Watch(
        folder, detector=Path("detector"), once=True, settle=0.01, **options
    ).run()


def test_watch_once_scores_each_recording_once(folder, capsys):
    assert watch(folder) == 0
    out = capsys.readouterr().out
    assert "ok     fan  fan/quiet.wav  score 0.2" in out
    assert "ALARM  pump  pump/loud.wav  score 0.8" in out
    assert "recordings scored: 2, alarms: 1, bad files: 0" in out
    assert watch(folder) == 0
    assert "recordings scored: 0, alarms: 0, bad files: 0" in capsys.readouterr().out
    assert (folder / ".gammavae-watch.jsonl").read_text().count("\n") == 2


def test_json_on_standard_output_is_not_mixed_with_other_lines(folder, capsys):
    watch(folder, json=Path("-"))
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert {e["file"]: e["is_anomaly"] for e in events} == {
        "fan/quiet.wav": False,
        "pump/loud.wav": True,
    }
    assert "recordings scored: 2" in err


def test_json_is_appended_to_a_file(folder, tmp_path):
    for _ in range(2):
        watch(folder, json=tmp_path / "out.jsonl")
    put(folder / "fan" / "new.wav", tone(1.0, 0.2))
    watch(folder, json=tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines][-1] == "fan/new.wav"
    assert len(lines) == 3


def test_the_watch_ends_without_bad_files_if_the_reader_of_its_json_is_gone(tmp_path):
    watched = tmp_path / "watched"
    put(watched / "fan" / "a.wav", tone(1.0))
    process = start(
        f"Watch(Path({str(watched)!r}), detector=Path('x'), json=Path('-'), "
        "settle=0.1)",
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    try:
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 2
    assert "ok     fan  fan/a.wav" in errors
    assert "error: --json: standard output cannot be written (Broken pipe)" in errors
    for word in ("BAD", "Traceback", "Exception ignored"):
        assert word not in errors
    state = watched / ".gammavae-watch.jsonl"
    assert state.read_text() == ""  # so it is reported again


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_the_watch_ends_in_one_line_if_the_disk_of_its_json_is_full(folder, capsys):
    with pytest.raises(InputError, match="--json: /dev/full cannot be written"):
        watch(folder, json=Path("/dev/full"))
    assert "BAD" not in capsys.readouterr().out


def test_existing_recordings_cannot_be_skipped_without_a_state(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScoredLog, "add", full)
    with pytest.raises(InputError, match="No space left on device"):
        watch(folder, skip_existing=True)
    monkeypatch.setattr(watch_module, "recordings_in", full)
    with pytest.raises(InputError, match="watched cannot be listed \\(No space"):
        watch(folder, skip_existing=True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"alarm_after": "5/6", "false_alarms_per_day": 1.0}, "use only one of them"),
        ({"alarm_after": "7/6"}, "--alarm-after is 7/6: use two numbers"),
        ({"alarm_after": "1/99"}, "--alarm-after is 1/99: use two numbers up to 12"),
        ({"false_alarms_per_day": 0.0}, "--false-alarms-per-day is 0: it must be"),
        ({"recordings_per_day": 24.0}, "--recordings-per-day has no effect without"),
        ({"hold": 5.0}, "--hold has no effect without a rule"),
        ({"alarm_after": "2/3", "hold": -5.0}, "--hold is -5: it must be above 0"),
        ({"alarm_after": "2/3", "quiet_hours": "22:00-06:00"}, "add --webhook"),
        ({"quiet_hours": "22-06"}, "--quiet-hours is 22-06: use two different times"),
    ],
)
def test_options_of_alarms_that_are_wrong_or_contradict_are_refused(
    folder, options, problem
):
    with pytest.raises(InputError, match=problem):
        watch(folder, **options)
    assert not (folder / ".gammavae-watch.jsonl").exists()
    if "quiet_hours" not in options:
        with pytest.raises(InputError, match=problem):
            Serve(detector=Path("detector"), **options).run()


def test_a_watch_describes_its_alarm_policy_and_applies_it(folder, capsys):
    put(folder / "pump" / "loud again.wav", tone(1.0, 0.9))
    watch(folder, alarm_after="2/2")
    out = capsys.readouterr().out
    assert "pump: alarm if 2 segments in a row have p <= 0.75 (segments of 1 s)" in out
    assert "above  pump  pump/loud.wav  score 0.8" in out
    assert "ALARM  pump  since 0:00 of pump/loud" in out
    assert "recordings scored: 3, alarms: 1" in out


def test_a_second_watch_continues_the_alarms_unless_the_rule_has_changed(
    folder, capsys
):
    watch(folder, alarm_after="2/2")
    assert "recordings scored: 2, alarms: 0" in capsys.readouterr().out
    put(folder / "pump" / "again.wav", tone(1.0, 0.9))
    watch(folder, alarm_after="2/2")
    out = capsys.readouterr().out
    assert "ALARM  pump  since 0:00 of pump/loud.wav" in out
    assert "recordings scored: 1, alarms: 1" in out
    watch(folder, alarm_after="2/3")
    assert "pump: the rule for alarms has changed" in capsys.readouterr().out


def test_a_watch_that_ends_in_quiet_hours_counts_what_it_did_not_deliver(
    folder, capsys, monkeypatch
):
    monkeypatch.setattr(QuietHours, "include", lambda *_: True)
    quiet = {"webhook": "http://127.0.0.1:9/", "quiet_hours": "22:00-06:00"}
    watch(folder, alarm_after="1/1", **quiet)
    out = capsys.readouterr().out
    assert "ALARM  pump  since 0:00 of pump/loud.wav: a segment has p <= 0.75" in out
    assert "messages from the quiet hours not delivered: 1" in out
    assert "messages delivered: 0, not delivered: 0" in out


def test_a_hanging_webhook_does_not_stop_scoring(folder, capsys, monkeypatch):
    close = Webhook.close
    monkeypatch.setattr(Webhook, "close", lambda self: close(self, 0.2))
    for number in range(20):
        put(folder / "fan" / f"{number}.wav", tone(0.1, 0.9))
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/"
        watch(folder, webhook=url)
    out = capsys.readouterr().out
    assert "alarms not delivered to 127.0.0.1 before the watch ended: 21" in out
    assert "recordings scored: 22, alarms: 21" in out
    assert "alarms delivered: 0, not delivered: 21" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"machine": "fam"}, "unknown machine 'fam': did you mean 'fan'?"),
        ({"poll": 0.0}, "--poll is 0 s: it must be above 0 s and below 1e6 s"),
        ({"webhook": "nowhere"}, "the value of --webhook is not an HTTP URL"),
        ({"json": Path("no/such/folder/x")}, "--json: no/such/folder/x cannot be"),
        ({"state": Path("no/such/folder/x")}, "choose a writable file with --state"),
    ],
)
def test_watch_refuses_an_unusable_option(folder, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        watch(folder, **options)


def test_watch_needs_a_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder: choose the"):
        watch(tmp_path / "nothing")
    (tmp_path / "recordings").mkdir()
    with pytest.raises(InputError, match=r"did you mean '.*/recordings'\?"):
        watch(tmp_path / "recodings")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")  # not suggested for itself
    with pytest.raises(InputError, match="is not a folder: choose the"):
        watch(tmp_path / "broken")


@interrupts
def test_an_interrupted_watch_ends_with_a_summary(tmp_path, number, status):
    put(tmp_path / "fan" / "a.wav", tone(1.0, 0.8))
    process = start(
        f"Watch(Path({str(tmp_path)!r}), detector=Path('x'), settle=0.1, poll=0.05)"
    )
    lines_until(process, "ALARM  fan  fan/a.wav")
    out = end(process, number, status)
    assert "recordings scored: 1, alarms: 1, bad files: 0" in out


def peak_megabytes(folder, minutes):
    """Return the peak memory of a process that scores one recording of this length."""
    path = folder / f"{minutes}" / "fan" / "long.wav"
    path.parent.mkdir(parents=True)
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as file:
        for _ in range(minutes):
            file.write(tone(60.0))
    folder = f"Path({str(path.parents[1])!r})"
    process = start(f"Watch({folder}, detector=Path('x'), once=True, settle=.1)")
    lines_until(process, "recordings scored: 1, alarms: 0")
    assert process.stdout is not None
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    path.unlink()
    return usage.ru_maxrss / 1024


def test_scoring_an_hour_takes_no_more_memory_than_five_minutes(tmp_path):
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
    five, hour = (peak_megabytes(tmp_path, minutes) for minutes in (5, 60))
    assert hour < five + 10


def start_serving(scorer="LoudnessScorer"):
    """Return the process of a service, and a function that posts a loud recording."""
    process = start("Serve(detector=Path('x'), port=0)", scorer=scorer)
    *_, line = lines_until(process, "serving at ")
    url = re.findall(r"http://127\.0\.0\.1:\d+/", line)[0]
    url, sound = f"{url}score?machine=fan", audio(1.0, 0.8)
    return process, lambda: httpx.post(url, content=sound, trust_env=False, timeout=30)


def end(process, number, status):
    process.send_signal(number)
    try:
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == status
    assert "Traceback" not in out
    return out


@interrupts
def test_serve_answers_until_it_is_interrupted(number, status):
    process, post = start_serving()
    assert post().json()["is_anomaly"] is True
    end(process, number, status)


@interrupts
def test_an_interrupt_ends_a_service_while_it_scores(number, status):
    process, post = start_serving("StuckScorer")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(post()))
    thread.start()
    lines_until(process, "stuck")
    end(process, number, status)
    thread.join(10)
    assert [answer.status_code for answer in answers] == [503]


def test_serve_names_the_extra_if_a_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in ("app", "service"):
        monkeypatch.delitem(sys.modules, f"gammavae_jax.live.{name}", raising=False)
    with pytest.raises(InputError, match=r'pip install "gammavae-jax\[serve\]"'):
        Serve(detector=Path("x")).run()


def test_serve_refuses_an_unusable_option():
    for value in (0.0, float("inf")):
        with pytest.raises(InputError, match=f"--max-megabytes is {value:g}: it must"):
            Serve(detector=Path("x"), max_megabytes=value).run()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1 port {port}"):
            Serve(detector=Path("x"), port=port).run()
