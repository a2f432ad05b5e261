"""What is new in a folder, and whole."""

import os

from gammavae_jax.live.arrivals import Arrivals, recordings_in


class Folder:
    """A folder and a clock."""

    def __init__(self, path, settle=2.0):
        self.path = path
        self.now = 0.0
        self.arrivals = Arrivals(path, settle, lambda: self.now)
        self.known = {}

    def put(self, name, data=b"x", age=0):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1000 - age, 1000 - age))
        return path

    def look(self, seconds=1.0):
        """Names of what is whole after some seconds; known from then on."""
        self.now += seconds
        found = self.arrivals.look(lambda n, s: self.known.get(n) == s)
        self.known |= dict(found)
        return [arrival.name for arrival in found]


def test_a_recording_is_whole_once_it_has_stayed_the_same(tmp_path):
    folder = Folder(tmp_path)
    folder.put("a.wav", b"1")
    assert folder.look() == []
    folder.put("a.wav", b"12")
    assert [folder.look(), folder.look()] == [[], []]
    assert folder.arrivals.growing == ["a.wav"]
    assert folder.look() == ["a.wav"]
    assert folder.look(10) == []


def test_a_recording_that_is_written_anew_is_new(tmp_path):
    folder = Folder(tmp_path, settle=0.0)
    folder.put("a.wav", age=5)
    assert folder.look() == ["a.wav"]
    folder.put("a.wav", age=4)
    assert folder.look() == ["a.wav"]


def test_the_oldest_comes_first_and_only_recordings_count(tmp_path):
    folder = Folder(tmp_path, settle=0.0)
    folder.put("b.wav", age=1)
    folder.put("pump/deep/a.FLAC", age=9)
    for name in ("c.txt", ".d.wav", ".hidden/e.wav", "f.wav.part"):
        folder.put(name)
    assert folder.look() == ["pump/deep/a.FLAC", "b.wav"]


def test_links_are_followed_and_may_lead_back_or_nowhere(tmp_path):
    root, elsewhere = tmp_path / "root", Folder(tmp_path / "elsewhere")
    root.mkdir()
    elsewhere.put("a.wav")
    (root / "fan").symlink_to(elsewhere.path)
    (elsewhere.path / "back").symlink_to(elsewhere.path)
    (root / "gone.wav").symlink_to(root / "nothing")
    assert list(recordings_in(root)) == ["fan/a.wav"]


def test_names_that_are_no_text_are_found(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\n.wav")).write_bytes(b"x")
    assert list(recordings_in(tmp_path)) == ["\udcff\n.wav"]
