"""New recordings in a watched folder."""

import os
import struct

import pytest

from gammavae_jax.live.arrivals import Arrivals, recordings_in


class Folder:
    """A watched folder with a clock that the test moves."""

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

    def poll(self, seconds=1.0):
        """Return the names of new complete recordings after some seconds."""
        self.now += seconds
        new = self.arrivals.poll(lambda n, s: self.known.get(n) == s)
        self.known |= dict(new)
        return [arrival.name for arrival in new]


def test_a_recording_is_complete_once_it_has_stopped_changing(tmp_path):
    folder = Folder(tmp_path)
    folder.put("a.wav", b"1")
    assert folder.poll() == []
    folder.put("a.wav", b"12")
    assert [folder.poll(), folder.poll()] == [[], []]
    assert folder.arrivals.growing == ["a.wav"]
    assert folder.poll() == ["a.wav"]
    assert folder.poll(10) == []
    folder.put("a.wav", b"12", age=4)  # rewritten, so it is new
    assert [folder.poll(), folder.poll(10)] == [[], ["a.wav"]]


def test_only_visible_recordings_are_found_and_the_oldest_is_first(tmp_path):
    folder = Folder(tmp_path, settle=0.0)
    folder.put("b.wav", age=1)
    folder.put("pump/deep/a.FLAC", age=9)
    for name in ("c.txt", ".d.wav", ".hidden/e.wav", "f.wav.part"):
        folder.put(name)
    assert folder.poll() == ["pump/deep/a.FLAC", "b.wav"]


def test_links_are_followed_even_if_circular(tmp_path):
    root, elsewhere = tmp_path / "root", Folder(tmp_path / "elsewhere")
    root.mkdir()
    elsewhere.put("a.wav")
    (root / "fan").symlink_to(elsewhere.path)
    (elsewhere.path / "back").symlink_to(elsewhere.path)
    assert list(recordings_in(root)[0]) == ["fan/a.wav"]


def test_names_that_are_not_valid_text_are_found(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\n.wav")).write_bytes(b"x")
    assert list(recordings_in(tmp_path)[0]) == ["\udcff\n.wav"]


def header(riff, data):
    """Return a WAV header with these sizes."""
    fields = (16, 1, 1, 16000, 32000, 2, 16)
    fmt = b"fmt " + struct.pack("<IHHIIHH", *fields)
    sizes = (struct.pack("<I", size) for size in (riff, data))
    return b"RIFF%sWAVE%sdata%s" % (next(sizes), fmt, next(sizes))


OPEN = {
    "sizes of a pipe": header(0xFFFFFFFF, 0xFFFFFFFF),
    "sizes of an empty file": header(36, 0),
    "no sizes": header(0, 0),
    "more than was copied": header(320036, 320000),
    "FLAC without a length": b"fLaC\0\0\0\x22" + bytes(34),
    "nothing": b"",
}


@pytest.mark.parametrize("name", OPEN)
def test_a_recording_whose_header_is_open_must_be_unchanged_for_longer(tmp_path, name):
    folder = Folder(tmp_path)
    for size in range(3):
        folder.put("a.wav", OPEN[name] + bytes(size) * bool(OPEN[name]), age=-size)
        assert [folder.poll() for _ in range(5)] == [[]] * 5
    assert [folder.poll(), folder.poll()] == [[], ["a.wav"]]


def test_a_recording_is_complete_once_its_recorder_has_closed_it(tmp_path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("there is no /proc")
    folder = Folder(tmp_path)
    with open(folder.path / "a.wav", "wb", buffering=0) as recorder:
        recorder.write(OPEN["sizes of a pipe"])
        for _ in range(2):
            recorder.write(bytes(100))
            assert [folder.poll(9) for _ in range(4)] == [[]] * 4
        assert folder.arrivals.open_files == {"a.wav"}
    assert folder.poll() == ["a.wav"]
    assert folder.arrivals.open_files == set()
