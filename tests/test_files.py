import errno
import os
import threading
from pathlib import Path

import pytest

from gammavae_jax.errors import unwritable, writing
from gammavae_jax.files import atomic_folder, file_checksums, write_text


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_text_is_written_as_utf8_with_its_line_endings(tmp_path):
    write_text(tmp_path / "a.csv", "é,1\nb,2\n")
    assert (tmp_path / "a.csv").read_bytes() == "é,1\nb,2\n".encode()
    assert names(tmp_path) == ["a.csv"]


def test_a_file_is_replaced_but_a_reader_that_has_it_open_keeps_the_old_text(tmp_path):
    (tmp_path / "a").write_text("the old text")
    with (tmp_path / "a").open() as reader:
        write_text(tmp_path / "a", "new")
        assert reader.read() == "the old text"
    assert (tmp_path / "a").read_text() == "new"


def test_writing_to_the_path_of_a_folder_is_an_error_and_leaves_no_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "a", "text")
    assert names(tmp_path) == ["a"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nowhere" / "a", "text")


def test_an_interrupted_atomic_folder_leaves_the_previous_one(tmp_path, monkeypatch):
    target = tmp_path / "detector"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("first")
    real = os.replace

    def interrupted(source, destination):
        if Path(destination) == target and Path(source).joinpath("b").exists():
            raise KeyboardInterrupt
        real(source, destination)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as folder:
        (folder / "b").write_text("second")
    assert [path.name for path in tmp_path.rglob("*")] == ["detector", "a"]
    monkeypatch.setattr(os, "replace", real)
    with atomic_folder(target) as folder:
        (folder / "b").write_text("second")
    assert [path.name for path in tmp_path.rglob("*")] == ["detector", "b"]


def test_a_folder_written_meanwhile_is_not_overwritten(tmp_path):
    target = tmp_path / "detector"
    second = atomic_folder(target, overwrite=False)
    (second.__enter__() / "b").write_text("second")
    with atomic_folder(target, overwrite=False) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(FileExistsError):
        second.__exit__(None, None, None)
    assert [path.name for path in tmp_path.rglob("*")] == ["detector", "a"]


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("is_folder", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, is_folder, is_there):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "v1", tmp_path / "current"
    if is_there:
        target.mkdir() if is_folder else target.write_text("old")
    link.symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(Path("store", "v1"))  # a link to a link
    if is_folder:
        with atomic_folder(link) as unfinished:
            (unfinished / "a").write_text("new")
    else:
        write_text(link, "new")
    assert (target / "a" if is_folder else target).read_text() == "new"
    assert link.is_symlink()
    assert sorted(names(tmp_path)) == ["current", "other", "store"]
    assert names(tmp_path / "store") == ["v1"]


def test_a_link_to_itself_is_an_error_and_stays(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        write_text(tmp_path / "loop", "text")
    assert names(tmp_path) == ["loop"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    texts = []
    reader = threading.Thread(
        target=lambda: texts.append((tmp_path / "pipe").read_text())
    )
    reader.start()
    write_text(tmp_path / "pipe", "text")
    reader.join(10)
    assert texts == ["text"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_disk_mentions_resume_only_where_there_is_a_run_to_continue():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    assert "--resume" in str(unwritable(full, resumable=True))
    for resumable in (False, True):
        with pytest.raises(ValueError, match="free up disk space") as caught:  # noqa: SIM117
            with writing(Path("out"), resumable=resumable):
                raise full
        assert ("--resume" in str(caught.value)) == resumable


def test_a_folder_that_may_not_be_listed_is_not_left_out_of_checksums(
    tmp_path, monkeypatch
):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_text("text")
    assert list(file_checksums(tmp_path)) == ["deep/a"]
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        file_checksums(tmp_path)
