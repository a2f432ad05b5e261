import errno

import pytest

from gammavae_jax.data.download.answer import Version
from gammavae_jax.data.download.part_file import PartFile, size_so_far
from gammavae_jax.errors import InputError


class FullDisk:
    """A file on a disk with room for so many bytes more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written


def test_a_disk_that_fills_up_keeps_what_has_come(tmp_path):
    path = tmp_path / "a.zip"
    with PartFile(path) as part:
        part.restart(Version('"1"', "", 20))
        part._file = FullDisk(part._file, 10)  # type: ignore
        with pytest.raises(InputError, match="No space left on device: make room"):
            part.append(bytes(range(20)))
        assert part.size == 10
    assert size_so_far(path) == 10
    with PartFile(path) as part:
        assert (part.size, part.version) == (10, Version('"1"', "", 20))
        part.append(bytes(range(10, 20)))
        assert part.is_whole
        assert part.md5 == "1549d1aae20214e065ab4b76aaac89a8"  # md5sum
        part.finish()
    assert path.read_bytes() == bytes(range(20))
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/a\.zip\.part cannot be written"):
        PartFile(tmp_path / "file" / "a.zip")


def test_of_nothing_nothing_is_left(tmp_path):
    with PartFile(tmp_path / "a.zip") as part:
        part.restart(Version('"1"', "", 20))
    assert not list(tmp_path.iterdir())
