"""One process at a time in a folder, however the one before has ended."""

import subprocess
import sys

import pytest

from gammavae_jax.files import FolderInUse, FolderLock

HOLDER = """
import sys, time
from pathlib import Path
from gammavae_jax.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1]), ".lock", stays=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_and_free_again_when_that_one_is_killed(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path, ".lock", stays=False)
    holder.kill()
    holder.communicate()
    assert (tmp_path / ".lock").exists()
    with FolderLock(tmp_path, ".lock", stays=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_leaves_no_folder_that_was_made_for_it_alone(tmp_path):
    with FolderLock(tmp_path / "a" / "b", ".lock", stays=False):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    with FolderLock(tmp_path / "a" / "b", ".lock", stays=False):
        (tmp_path / "a" / "b" / "result").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "result"]


def test_who_waited_with_the_file_of_a_lock_that_is_gone_takes_a_new_one(
    tmp_path, monkeypatch
):
    """Between its opening and its locking, the holder before removes the file."""
    from gammavae_jax import files

    real, calls = files._lock, []

    def slow(file):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(file)
        return real(file)

    monkeypatch.setattr(files, "_lock", slow)
    with FolderLock(tmp_path, ".lock", stays=True):
        monkeypatch.undo()
        assert len(calls) == 2
        with pytest.raises(FolderInUse):
            FolderLock(tmp_path, ".lock", stays=True)
    assert (tmp_path / ".lock").exists()
