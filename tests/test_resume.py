"""A run that was stopped, or is to be scored anew, goes on: or is refused."""

import shutil
from pathlib import Path

import pytest
import soundfile
from main_job import TINY, command, run_to_the_end, score_bytes, two_machines


def refusal_to_resume(out, data):
    """What the same run says when it refuses to go on in a folder."""
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", out, "--resume",
        "--epochs", 4, "--seeds", 2, *TINY, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    return run.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two synthetic machines of different sizes and lengths."""
    return two_machines(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of a run of two seeds and four epochs."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_to_the_end(data, out)
    return out


@pytest.fixture
def copied(data, tmp_path):
    """A copy of the data, to be spoilt."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def test_a_resumed_run_ends_as_the_unbroken_one(finished, data, tmp_path):
    out = finished
    half = tmp_path / "half"
    common = [
        "--all-machines", "--data-root", data, "--seeds", 2, "--out", half,
    ]  # fmt: skip
    command("run.py", *common, "--epochs", 2, *TINY)
    command("run.py", *common, "--epochs", 4, "--resume", *TINY)
    assert score_bytes(half) == score_bytes(out)
    assert (half / "metrics.jsonl").read_bytes() == (out / "metrics.jsonl").read_bytes()


def test_resuming_with_machines_in_another_order_is_refused(finished, data):
    out = finished
    run = command(
        "run.py", "--machines", "valve", "fan", "--data-root", data, "--out", out,
        "--resume", "--epochs", 4, "--seeds", 2, *TINY, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "another order" in run.stderr


def test_resuming_never_takes_results_away_without_a_training(finished, data, tmp_path):
    out = finished
    again = tmp_path / "again"
    command(
        "evaluate.py", "--checkpoint", out / "checkpoint", "--data-root", data,
        "--out", again,
    )  # fmt: skip
    before = score_bytes(again)
    assert "no training to go on with" in refusal_to_resume(again, data)
    assert score_bytes(again) == before


def test_resuming_with_other_recordings_of_the_same_names_is_refused(
    finished, copied, tmp_path
):
    out = finished
    (first, *_) = sorted((copied / "fan" / "train").iterdir())
    samples, rate = soundfile.read(first)
    soundfile.write(first, 0.5 * samples, rate)
    again = tmp_path / "again"
    shutil.copytree(out, again)
    assert "was trained on other recordings" in refusal_to_resume(again, copied)
    assert score_bytes(again) == score_bytes(out)


def test_resuming_with_other_settings_is_refused(finished, data):
    out = finished
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", out, "--resume",
        "--seeds", 2, "--set", "model.n_latent=5", check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "other settings" in run.stderr


def test_trained_models_are_scored_anew_as_if_they_had_been_so_from_the_start(
    finished, data, tmp_path
):
    out = finished
    common = ["--all-machines", "--data-root", data, "--epochs", 4, "--seeds", 2]
    other = [
        "--scores", "mse_top", "fusion_max", *TINY, "scoring.false_alarm_rate=0.3",
        "scoring.smote_ratio=0.5",
    ]  # fmt: skip
    anew = tmp_path / "anew"
    shutil.copytree(out, anew)
    run = command("run.py", *common, "--out", anew, "--resume", *other)
    assert "all 4 epochs are there: scoring alone" in run.stderr
    command("run.py", *common, "--out", tmp_path / "fresh", *other)
    assert score_bytes(anew) == score_bytes(tmp_path / "fresh")
    for name in ("results.csv", "clips.csv", "metrics.jsonl", "config.json"):
        assert (anew / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_resuming_a_finished_run_trains_no_further_unless_told_to(
    finished, data, tmp_path
):
    """Its own epochs hold, not the preset's."""
    out = finished
    again = tmp_path / "again"
    shutil.copytree(out, again)
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", again, "--resume",
        "--seeds", 2, *TINY,
    )  # fmt: skip
    assert "all 4 epochs are there: scoring alone" in run.stderr
    assert score_bytes(again) == score_bytes(out)
    assert (again / "metrics.jsonl").read_bytes() == (
        out / "metrics.jsonl"
    ).read_bytes()
