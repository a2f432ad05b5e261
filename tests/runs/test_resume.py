"""A run that was stopped, or is to be scored anew, goes on: or is refused."""

import shutil
from pathlib import Path

import pytest
import soundfile
from rich.console import Console
from support.main_job import TINY, command, run_to_the_end, score_bytes, two_machines

from gammavae_jax.config_json import override, to_dict
from gammavae_jax.data.loading import Source
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.tables import to_json
from gammavae_jax.log import Log
from gammavae_jax.runs import run
from gammavae_jax.runs.folder import RunFolder, held_folder, read_config
from gammavae_jax.runs.resume import FolderObserver


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
        "--seeds", 3, *TINY, "model.n_latent=5", check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "other settings (n_seeds=2, not 3; model.n_latent=4, not 5):" in run.stderr


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


def test_an_overwriting_that_was_killed_is_begun_again(finished, tmp_path):
    """What is left of the older run's training is of other settings."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    before = read_config(out)
    assert before is not None
    config = override(before, ["model.n_latent=5"])
    folder, log = RunFolder(out, resume=True), Log(Console(quiet=True))
    observer = FolderObserver(config, folder, {}, log)
    with pytest.raises(InputError, match="was made with other settings"):
        observer.begin()
    text = to_json(to_dict(config))
    (out / "config.json").write_text(text)  # the first thing that overwriting does
    assert observer.begin() is None


def test_a_second_run_in_a_folder_is_refused_before_it_reads_anything(
    finished, data, tmp_path
):
    out = tmp_path / "out"
    config = read_config(finished)
    assert config is not None
    job = Source(data, ("fan", "valve")), RunFolder(out), None
    log = Log(Console(quiet=True))
    refused = pytest.raises(InputError, match=f"another run is writing to '{out}'")
    with held_folder(out, resume=False, overwrite=False):
        with refused:
            run.run(config, *job, log)
        with refused:
            run.evaluate(finished / "checkpoint", *job, log)
    assert not out.exists()


def test_a_damaged_state_is_said_and_the_one_before_gone_on_from(
    finished, data, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    largest = max(
        (path for path in (out / "checkpoint/train/4").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    largest.write_bytes(largest.read_bytes()[:-1])
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", out, "--resume",
        "--epochs", 4, "--seeds", 2, *TINY,
    )  # fmt: skip
    assert "train/4' is damaged" in run.stderr
    assert "going back to the state after epoch 2" in run.stderr
    assert score_bytes(out) == score_bytes(finished)
    for name in ("metrics.jsonl", "clips.csv", "results.csv"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
