"""A run that is killed at any moment and resumed ends like an uninterrupted one."""

import random
import signal
import time

import pytest
from support.finished_runs import restored

from benchmarks.killed_runs import (
    Killing,
    differences,
    finish,
    kill_and_resume,
    seconds_of,
    start,
)
from gammavae_jax.runs.folder import read_metrics

SEED = 20240607


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """Return the folder of a run that was never killed."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    finish(data, out)
    return out


def kill(data, uninterrupted, folder, seconds, n_kills, per_run, seed=SEED):
    """Kill runs at random moments, a few times each, and compare what they end in."""
    killing, draw = Killing(), random.Random(seed)
    while killing.n_killed < n_kills:
        out = folder / f"{killing.n_ends}"
        left = min(per_run, n_kills - killing.n_killed)
        kill_and_resume(data, out, uninterrupted, draw, seconds, left, killing)
        assert killing.differences == []
    return killing


def test_a_run_killed_at_random_moments_ends_like_an_uninterrupted_one(
    data, uninterrupted, tmp_path
):
    kill(data, uninterrupted, tmp_path, seconds=6.0, n_kills=2, per_run=2)


@pytest.mark.slow
def test_a_run_killed_at_fifty_random_moments_ends_like_an_uninterrupted_one(
    data, uninterrupted, tmp_path
):
    seconds = seconds_of(data, tmp_path / "again")
    killing = kill(
        data, uninterrupted, tmp_path, seconds, n_kills=50, per_run=5, seed=SEED + 1
    )
    print(seconds, killing)
    assert killing.n_killed == 50
    assert len(killing.killed_when) >= 4  # the kills hit all parts of a run


@pytest.mark.usefixtures("heeded_interrupts")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_makes_a_run_save_the_current_epoch(
    data, uninterrupted, tmp_path, how
):
    """Even between regular checkpoints."""
    out = tmp_path / "out"
    run = start(data, out, "--set", "train.checkpoint_every=100")
    metrics = out / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.01)
    run.send_signal(how)
    output = run.communicate(timeout=60)[1]
    assert run.returncode == 128 + how
    assert "Traceback" not in output
    *_, saved, last = output.splitlines()
    assert last == {2: "interrupted", 15: "terminated"}[how]
    reached = restored(out / "checkpoint")
    assert saved == f"stopped after epoch {reached.epoch}: continue with --resume"
    assert [m["epoch"] for m in read_metrics(out)] == [*range(1, reached.epoch + 1)]
    assert 0 < reached.epoch < 12
    again = finish(data, out, "--resume", "--set", "train.checkpoint_every=100")
    assert f"resuming after epoch {reached.epoch} of 12" in again
    # It contains the checkpoint interval.
    assert differences(out, uninterrupted) == ["config.json"]
