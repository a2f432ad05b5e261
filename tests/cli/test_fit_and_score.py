"""`gammavae fit`, `score` and `demo` as a user runs them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from gammavae_jax.cli.fit import Fit
from gammavae_jax.cli.main import main

SMALL = ["model.hidden=[16]", "model.n_latent=4", "train.batch_size=32"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Folders with a healthy machine, and with a day on which it broke."""
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


def gammavae(*arguments):
    """Run the command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "gammavae_jax.cli.main", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def fitted(recordings):
    out = recordings / "pump.detector"
    run = gammavae(
        "fit", recordings / "normal", "--out", out, "--epochs", 3, "--set", *SMALL
    )
    assert run.returncode == 0, run.stderr
    assert "alarm above" in run.stdout
    return out


def test_the_broken_machine_has_the_highest_score_and_an_alarm(recordings, fitted):
    run = gammavae("score", fitted, recordings / "today", "--json", "-")
    assert run.returncode == 0, run.stderr
    scored = {r["name"]: r for r in json.loads(run.stdout)}
    assert max(scored.values(), key=lambda r: r["score"])["name"] == "broken.wav"
    assert scored["broken.wav"]["is_anomaly"]
    assert scored["broken.wav"]["p_value"] == pytest.approx(1 / 11)
    table = [line for line in run.stderr.splitlines() if ".wav" in line]
    assert table[0].split()[0] == "broken.wav"
    assert "ALARM" in table[0]


def test_an_existing_detector_is_not_replaced_without_overwrite(
    recordings, fitted, capsys
):
    before = (fitted / "detector.json").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(recordings / "normal"), "--out", str(fitted)])
    assert stop.value.code == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert (fitted / "detector.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "{root}/nothing", "--out", "{root}/x"], "No such file"),
        (["fit", "{root}/normal/0.wav", "--out", "{root}/x"], "has one clip"),
        (["fit", "{root}/normal", "--by-folder", "--out", "{root}/x"], "no subfolders"),
        (["score", "{root}/normal", "{root}/today"], "no checkpoint in"),
        (["demo", "--out", "{root}"], "exists: give another --out"),
        (["score", "x", "y", "--report", "{root}/no/x"], "is not a folder: make it"),
    ],
)
def test_bad_input_is_one_line(recordings, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main([argument.format(root=recordings) for argument in arguments])
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
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


def test_what_is_beside_the_machine_folders_is_named(tmp_path, capsys):
    for name in ("pump/0.wav", "@eaDir/0.wav", "1.wav", "2.mp3", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    machines = Fit((tmp_path,), tmp_path / "x", by_folder=True).recordings_by_machine()
    assert machines == {"pump": [tmp_path / "pump"]}
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "1 recording or folder outside the folders read (1.wav)",
        "1 file in another format (2.mp3)",
        "1 hidden or system file or folder (@eaDir)",
    ]


@pytest.mark.slow
def test_the_demo_detects_the_synthetic_faults_and_writes_a_page(tmp_path):
    run = gammavae("demo", "--out", tmp_path / "demo")
    assert run.returncode == 0, run.stderr
    assert "SYNTHETIC" in run.stdout
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    lines = [line for line in run.stdout.splitlines() if ".wav" in line]
    assert len(lines) == 12
    alarms = [line for line in lines if "ALARM" in line]
    assert sum("_anomaly_" in line for line in alarms) > sum(
        "_normal_" in line for line in alarms
    )
