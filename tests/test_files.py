import os
from pathlib import Path

import pytest

from gammavae_jax.files import atomic_folder, write_text


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


def test_a_folder_of_that_name_is_an_error_and_leaves_no_file(tmp_path):
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
