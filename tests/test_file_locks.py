"""Only one process at a time uses a folder, however the previous one ended."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from gammavae_jax.files import FolderInUse, FolderLock

HOLDER = """
import sys, time
from pathlib import Path
from gammavae_jax.files import FolderLock
with FolderLock(Path(sys.argv[1]), ".lock", stays=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_holds_a_folder_and_killing_it_frees_the_folder(tmp_path):
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


def test_a_lock_removes_the_empty_folders_that_it_created(tmp_path):
    with FolderLock(tmp_path / "a" / "b", ".lock", stays=False):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    with FolderLock(tmp_path / "a" / "b", ".lock", stays=False):
        (tmp_path / "a" / "b" / "result").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "result"]


def test_a_lock_file_removed_between_opening_and_locking_is_created_again(
    tmp_path, monkeypatch
):
    """The previous holder of the lock may remove the file at that moment."""
    real, calls = fcntl.flock, []

    def slow(file, operation):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(operation)
        return real(file, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with FolderLock(tmp_path, ".lock", stays=True):
        monkeypatch.undo()
        assert len(calls) > 1
        with pytest.raises(FolderInUse):
            FolderLock(tmp_path, ".lock", stays=True)
    assert (tmp_path / ".lock").exists()


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_folder_can_be_used_where_the_file_system_has_no_locks(
    tmp_path, monkeypatch, number
):
    def no_lock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    with FolderLock(tmp_path / "new", ".lock", stays=False):
        (tmp_path / "new" / "result").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "result"]
