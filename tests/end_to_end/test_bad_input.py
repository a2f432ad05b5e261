"""Bad input of the main job is reported in one line, or left out on request."""

import os
import re
import shutil

import numpy as np
import pytest
import soundfile
from support.main_job import TINY, command, notes_of, run_all, score_bytes

from gammavae_jax.cli.main import main
from gammavae_jax.presets import preset


def cpu_seconds():
    """Return the CPU time of finished child processes, whatever else is running."""
    times = os.times()
    return times.children_user + times.children_system


def test_help_takes_less_than_half_a_second():
    for script in ("run.py", "evaluate.py"):
        command(script, "--help")
        seconds = []
        for _ in range(5):
            start = cpu_seconds()
            command(script, "--help")
            seconds.append(cpu_seconds() - start)
        assert min(seconds) < 0.5


@pytest.fixture
def dry_run(data, capsys):
    """Return the output of a run that only says what it would do."""

    def of(out, *options):
        sources = ("--all-machines", "--data-root", str(data), "--out", str(out))
        assert main(["run", "--dry-run", *sources, *options]) == 0
        return capsys.readouterr().out

    return of


def test_a_dry_run_writes_nothing(dry_run, tmp_path):
    printed = dry_run(tmp_path / "dry")
    assert "fan_section_00: 15 training clips, 12 test clips" in printed
    assert not (tmp_path / "dry").exists()


def test_a_dry_run_ends_by_reporting_that_the_folder_would_be_refused(
    dry_run, tmp_path
):
    (tmp_path / "config.json").write_text("{}")
    *_, waves, last = dry_run(tmp_path, "--wave-size", "1").splitlines()
    assert waves == "this run would train in 2 waves (--wave-size 1)"
    assert last.startswith(f"this run would be refused: {str(tmp_path)!r} exists: pass")


def a_clip(root):
    return sorted((root / "fan" / "train").glob("*.wav"))[3]


def rewrite(root, change=lambda sound: sound, rate=16000):
    sound, _ = soundfile.read(a_clip(root))
    soundfile.write(a_clip(root), change(sound), rate, subtype="FLOAT")


def remove_machines(root):
    for machine in ("fan", "valve"):
        shutil.rmtree(root / machine)


def remove_anomalies(root):
    for path in (root / "fan" / "test").glob("*anomaly*"):
        path.unlink()


def refused(refusal, root, out, *options):
    sources = "--all-machines", "--data-root", root
    message = refusal("run", *sources, "--out", out, *options)
    assert not out.exists()
    return message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_machines, "no machine found"),
        (lambda root: shutil.rmtree(root / "fan" / "train"), "no recordings .*train"),
        (lambda root: shutil.rmtree(root / "fan" / "test"), "no recordings .*test"),
        (remove_anomalies, "all 6 test clips of fan_section_00 are normal"),
        (lambda root: a_clip(root).write_bytes(b""), "normal_0003.* empty"),
        (lambda root: rewrite(root, rate=8000), "0003.* 8000 Hz.* to 16000 Hz"),
        (lambda root: rewrite(root, lambda x: np.insert(x, 7, np.nan)), "_0003.*nan"),
        (lambda root: rewrite(root, lambda x: x[:1000]), "normal_0003.*too short"),
    ],
)
def test_bad_recordings_give_one_line_and_nothing_is_written(
    copied, tmp_path, refusal, damage, message
):
    damage(copied)
    assert re.search(message, refused(refusal, copied, tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--preset papper", "did you mean 'paper'"),
        ("--scores mze", "did you mean 'mse'"),
        ("--set train.epoch=3", "did you mean 'train.epochs'"),
        ("--set model.hidden=wide", "model.hidden"),
        ("--epochs 0", "epochs"),
        ("--resume", "nothing to resume"),
        ("--data-root nowhere", "data root 'nowhere' is not a folder"),
    ],
)
def test_bad_options_give_one_line_and_nothing_is_written(
    data, tmp_path, refusal, options, message
):
    assert message in refused(refusal, data, tmp_path / "out", *options.split())


@pytest.fixture(scope="module")
def unlabelled(data, tmp_path_factory):
    """Run on test clips without labels, and a training clip that is empty."""
    root = tmp_path_factory.mktemp("unlabelled")
    copied = root / "data"
    shutil.copytree(data, copied)
    a_clip(copied).write_bytes(b"")
    for machine in ("fan", "valve"):
        for i, path in enumerate(sorted((copied / machine / "test").iterdir())):
            path.rename(path.with_name(f"section_00_{i:04d}.wav"))
    run = run_all(copied, root / "out", "--epochs", 1, "--skip-bad-files", *TINY)
    return root / "out", run.stderr


def test_a_bad_recording_is_skipped_and_named_on_request(unlabelled):
    out, printed = unlabelled
    assert "skipped: " in printed
    assert "normal_0003" in notes_of(out)


def test_clips_without_labels_are_scored_but_not_evaluated(unlabelled):
    out, _ = unlabelled
    assert len(score_bytes(out)) == len(preset("default").scores) * 2 * 2
    assert (out / "results.csv").read_text().count("\n") == 1
