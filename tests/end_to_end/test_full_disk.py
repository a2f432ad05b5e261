"""A full or read-only disk gives one line, and nothing is half-written or lost."""

import errno
import os
import re
import shutil

import pytest
from support.disks import small_disk

from benchmarks.killed_runs import differences, finish, start
from gammavae_jax import files
from gammavae_jax.errors import InputError
from gammavae_jax.runs.folder import held_folder


def refusal(data, out, *options):
    """Return the error line of a run, which must end with it and status 2."""
    run = start(data, out, *options)
    output = run.communicate()[1]
    assert run.returncode == 2, output
    assert "Traceback" not in output
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert errors == output.splitlines()[-1:]
    return errors[0]


def test_a_disk_too_small_for_a_state_gives_one_line_and_a_run_to_resume(
    data, tmp_path
):
    with small_disk(tmp_path / "disk", "size=128k") as disk:
        out = disk / "run"
        message = refusal(data, out)
        reason = f"cannot be written ({os.strerror(errno.ENOSPC)}): make room (--resume"
        assert reason in message
        assert not list(out.rglob("*.json-*"))
        assert {path.name for path in out.iterdir()} <= {
            *("config.json", "metrics.jsonl", "checkpoint"),
        }
        assert list((out / "checkpoint" / "train").iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_moment_does_not_change_the_resumed_results(
    data, tmp_path
):
    uninterrupted = tmp_path / "uninterrupted"
    finish(data, uninterrupted)
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
            hold = held_folder(out, resume=False, overwrite=False)
            message = re.escape(
                f"{str(out)!r} cannot be written (Read-only file system)"
            )
            with pytest.raises(InputError, match=message), hold:
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
