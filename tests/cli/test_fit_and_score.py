"""`gammavae fit` and `score` as a user runs them."""

import contextlib
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from support.finished_runs import contents
from support.processes import GAMMAVAE, python

from gammavae_jax.cli.fit import Fit
from gammavae_jax.cli.main import main
from gammavae_jax.errors import InputError
from gammavae_jax.live.app import LiveServer

SMALL = ["model.hidden=[16]", "model.n_latent=4", "train.batch_size=32"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Folders of a healthy machine, and of a day on which it broke."""
    root = tmp_path_factory.mktemp("pump")
    rng = np.random.default_rng(0)
    for name, level, count in (("normal", 0.1, 10), ("today", 0.1, 2), ("bad", 1.0, 1)):
        (root / name).mkdir()
        for number in range(count):
            samples = rng.normal(0, level, (16000,))
            if name == "bad":
                samples *= np.arange(16000) % 4000 < 400
            soundfile.write(root / name / f"{number}.wav", samples, 16000)
    (root / "bad" / "0.wav").rename(root / "today" / "broken.wav")
    (root / "bad").rmdir()
    return root


@pytest.fixture(scope="module")
def fitted(recordings):
    out = recordings / "pump.detector"
    fit = ("fit", recordings / "normal", "--out", out, "--epochs", 3, "--set", *SMALL)
    run = python(*GAMMAVAE, *fit)
    assert "alarm if the score is above" in run.stdout
    assert "independent recordings. With a false-alarm rate of 10 %, " in run.stdout
    return out


def test_the_broken_machine_has_the_highest_score_and_an_alarm(recordings, fitted):
    run = python(*GAMMAVAE, "score", fitted, recordings / "today", "--json", "-")
    scored = {r["name"]: r for r in json.loads(run.stdout)}
    assert max(scored.values(), key=lambda r: r["score"])["name"] == "broken.wav"
    assert scored["broken.wav"]["is_anomaly"]
    assert scored["broken.wav"]["p_value"] == pytest.approx(1 / 11)
    table = [line for line in run.stderr.splitlines() if ".wav" in line]
    assert table[0].split()[0] == "broken.wav"
    assert "ALARM" in table[0]


def alarms(recordings, detector, *options):
    run = python(
        *GAMMAVAE, "score", detector, recordings / "today", "--json", "-", *options
    )
    return {r["name"]: r["is_anomaly"] for r in json.loads(run.stdout)}, run.stderr


def test_the_table_of_thresholds_changes_nothing(fitted):
    before = contents(fitted)
    run = python(*GAMMAVAE, "threshold", fitted)
    lines = [line.rstrip() for line in run.stdout.splitlines()]
    assert lines[0] == "pump: 10 held-out clips"
    rows = [re.split(r"  +", line.strip()) for line in lines if " of 10 " in line]
    assert [row[0] for row in rows] == ["20 %", "10 %", "5 %", "2 %", "1 %"]
    assert [row[2] for row in rows] == ["1 of 10", *["0 of 10"] * 4]
    assert [row[3:] for row in rows[1:3]] == [
        ["0.3 to 31 %", "current"],
        ["needs 19 recordings (has 10)"],
    ]
    assert lines[-1].endswith(f"gammavae threshold {fitted} --false-alarm-rate RATE")
    assert contents(fitted) == before


def test_the_rate_can_be_changed_after_fit_and_for_one_command(
    recordings, fitted, tmp_path
):
    copy = tmp_path / "pump.detector"
    shutil.copytree(fitted, copy)
    at_first, note = alarms(recordings, copy)
    assert at_first["broken.wav"]
    assert "independent recordings" not in note
    every, _ = alarms(recordings, copy, "--false-alarm-rate", 0.99)
    assert all(every.values())
    assert not all(at_first.values())
    run = python(
        *GAMMAVAE, "threshold", copy, "--false-alarm-rate", 0.99, "--json", "-"
    )
    rates = {r["false_alarm_rate"]: r for r in json.loads(run.stdout)}
    assert [rate for rate, r in rates.items() if r["is_current"]] == [0.99]
    assert rates[0.99]["held_out_alarms"] == 9
    assert f"written to {copy}, which now uses 99 %" in run.stderr
    assert alarms(recordings, copy)[0] == every
    _, note = alarms(recordings, copy, "--false-alarm-rate", 0.01)
    assert "needs 99 independent recordings" in note
    python(*GAMMAVAE, "threshold", copy, "--false-alarm-rate", 0.1)
    name = "anomaly_detector.json"
    assert (copy / name).read_bytes() == (fitted / name).read_bytes()
    assert alarms(recordings, copy)[0] == at_first


@pytest.mark.parametrize("command", ["score", "threshold", "watch", "serve"])
def test_too_few_recordings_for_a_given_rate_are_reported_once(
    recordings, fitted, tmp_path, capsys, monkeypatch, command
):
    """Even if the detector has this rate already."""
    monkeypatch.setattr(LiveServer, "run", lambda *_: None)
    detector = shutil.copytree(fitted, tmp_path / "pump.detector")
    arguments = {
        "score": (detector, recordings / "today"),
        "threshold": (detector,),
        "watch": (tmp_path, "--detector", detector, "--once"),
        "serve": ("--detector", detector, "--port", 0),
    }[command]
    for _ in range(2):
        given = (command, *arguments, "--false-alarm-rate", 0.01)
        with contextlib.suppress(SystemExit):
            main([*map(str, given)])
        text = "".join(capsys.readouterr())
        assert text.count("needs 99 independent recordings") == 1
        main(["threshold", str(detector), "--false-alarm-rate", "0.01"])
        capsys.readouterr()


def test_an_existing_detector_is_not_replaced_without_overwrite(
    recordings, fitted, refusal
):
    before = (fitted / "detector.json").read_bytes()
    message = refusal("fit", recordings / "normal", "--out", fitted)
    assert "add --overwrite" in message
    assert (fitted / "detector.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit nothing --out x", "No such file or directory: check the path"),
        ("fit nrmal --out x", "No such file or directory: did you mean 'normal'?"),
        ("score pump.detectr today", "does not exist: did you mean 'pump.detector'?"),
        ("fit normal --out x --seed -1", "--seed is -1: it must be from 0 to"),
        (
            "fit normal --out x --set seed=4",
            "the seed cannot be changed with --set: use --seed",
        ),
        ("fit normal/0.wav --out x", "has one clip"),
        ("fit normal --by-folder --out x", "no subfolders"),
        ("score normal today", "contains no detector: pass"),
        ("threshold normal", "contains no detector: pass"),
        ("threshold pump.detector --false-alarm-rate 2", "false_alarm_rate is"),
        ("score pump.detector . --false-alarm-rate 0", "rate is"),
        (
            "threshold pump.detector --false-alarm-rate .2 --json pump.detector/t",
            "t is inside the detector's folder, which is replaced: choose another path",
        ),
        ("demo --out .", "exists: choose another path for --out"),
        ("score x y --report no/x", "is not a folder: create it"),
    ],
)
def test_bad_input_is_one_line(
    recordings, fitted, arguments, message, refusal, monkeypatch
):
    monkeypatch.chdir(recordings)
    assert message in refusal(*arguments.split())
    assert not (recordings / "x").exists()


def test_each_subfolder_can_be_a_machine(tmp_path, capsys):
    """Only its normal recordings count; detectors and hidden folders are skipped."""
    for folder in ("pump/normal", "pump/today", "fan", ".cache", "old.detector"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "old.detector" / "detector.json").write_text("{}")

    def machines(out, **options):
        return Fit((tmp_path,), tmp_path / out, **options).recordings_by_machine()

    both = {"fan": [tmp_path / "fan"], "pump": [tmp_path / "pump" / "normal"]}
    assert machines("all.detector", by_folder=True) == both
    assert machines("saw-1.detector") == {"saw-1": [tmp_path]}
    assert machines("x", machine="saw") == {"saw": [tmp_path]}


def test_the_folder_of_normal_recordings_may_be_named_in_any_case(tmp_path, capsys):
    for folder in ("pump/Normal", "pump/test", "fan/TRAIN", "fan/Test"):
        (tmp_path / folder).mkdir(parents=True)
    fit = Fit((tmp_path,), tmp_path / "x", by_folder=True)
    assert fit.recordings_by_machine() == {
        "fan": [tmp_path / "fan" / "TRAIN"],
        "pump": [tmp_path / "pump" / "Normal"],
    }
    (tmp_path / "pump" / "normal").mkdir()
    with pytest.raises(InputError, match="the folders Normal and normal: merge"):
        fit.recordings_by_machine()


def test_what_is_beside_the_machine_folders_is_named(tmp_path, capsys):
    for name in ("pump/0.wav", "@eaDir/0.wav", "1.wav", "2.mp3", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    machines = Fit((tmp_path,), tmp_path / "x", by_folder=True).recordings_by_machine()
    assert machines == {"pump": [tmp_path / "pump"]}
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "1 recording or folder outside train and test (1.wav)",
        "1 file in another format (2.mp3)",
        "1 hidden or system file or folder (@eaDir)",
    ]
