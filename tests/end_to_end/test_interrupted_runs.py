"""A run that is killed or fills the disk keeps its files whole and can be resumed."""

import errno
import os
import random
import re
import shutil
import signal
import time

import pytest
from support.disks import small_disk
from support.finished_runs import restored

from benchmarks.killed_runs import (
    Killing,
    differences,
    finish,
    kill_and_resume,
    seconds_of,
    start,
)
from gammavae_jax import files
from gammavae_jax.errors import InputError
from gammavae_jax.runs.folder import locked_folder, read_metrics

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


def test_a_disk_too_small_for_a_state_gives_one_line_and_a_run_to_resume(
    data, tmp_path
):
    with small_disk(tmp_path / "disk", "size=128k") as disk:
        out = disk / "run"
        run = start(data, out)
        output = run.communicate()[1]
        assert run.returncode == 2, output
        assert "Traceback" not in output
        *_, last = output.splitlines()
        assert output.count("error: ") == 1
        full = os.strerror(errno.ENOSPC)
        reason = f"cannot be written ({full}): free up disk space (--resume"
        assert last.startswith("error: ")
        assert reason in last
        assert not list(out.rglob("*.json-*"))
        assert {path.name for path in out.iterdir()} <= {
            *("config.json", "metrics.jsonl", "checkpoint"),
        }
        assert list((out / "checkpoint" / "train").iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_moment_does_not_change_the_resumed_results(
    data, uninterrupted, tmp_path
):
    files_of_run = [p for p in uninterrupted.rglob("*") if p.is_file()]
    needed = 2 * sum(path.stat().st_size for path in files_of_run)
    errors, step = set(), needed // 12
    with small_disk(tmp_path / "disk", f"size={2 * needed}") as disk:
        out = disk / "run"
        for free in range(step, needed, step):
            shutil.rmtree(out, ignore_errors=True)
            filler = disk / "filler"
            filler.write_bytes(bytes(shutil.disk_usage(disk).free - free))
            run = start(data, out)
            error = run.communicate()[1]
            filler.unlink()
            if run.returncode == 0:
                break
            assert run.returncode == 2, error
            assert "Traceback" not in error
            errors.add(error.splitlines()[-1])
            finish(data, out, "--resume")
            assert differences(out, uninterrupted) == []
    assert len(errors) == 1
    assert "No space left on device" in errors.pop()


def test_a_folder_on_a_read_only_disk_is_refused_immediately(tmp_path):
    with small_disk(tmp_path / "disk", "ro") as disk:
        for out in (disk, disk / "new" / "run"):
            lock = locked_folder(out, resume=False, overwrite=False)
            message = re.escape(
                f"{str(out)!r} cannot be written (Read-only file system)"
            )
            with pytest.raises(InputError, match=message), lock:
                pass


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_failed_atomic_write_leaves_the_old_file(tmp_path, monkeypatch, operation):
    """Simulates a full disk on every system."""
    (tmp_path / "a").write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, operation, full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(tmp_path / "a", "new", durable=True)
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]
