"""New recordings in a folder, and the log of scored recordings."""

import json
import os
import struct
import subprocess
import sys

import pytest

from gammavae_jax.errors import InputError
from gammavae_jax.live import arrivals
from gammavae_jax.live.arrivals import (
    Arrival,
    Arrivals,
    ScoredLog,
    Stamp,
    recordings_in,
)


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


A = Arrival("fan/a.wav", Stamp(10, 5))
ODD = Arrival("\udcff\n.wav", Stamp(11, 6))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.jsonl"


def fill(path, *recordings):
    with ScoredLog(path) as log:
        for arrival in recordings:
            log.add(arrival)


def contained(path, *recordings):
    with ScoredLog(path) as log:
        return [log.contains(*arrival) for arrival in recordings]


def test_a_scored_recording_is_identified_by_name_size_and_time(path):
    fill(path, A, ODD)
    larger, later = A._replace(stamp=Stamp(11, 5)), A._replace(stamp=Stamp(10, 6))
    assert contained(path, A, ODD, larger, later) == [True, True, False, False]


def test_a_state_without_contents_is_read(path):
    """An earlier version wrote only a recording's size and time."""
    path.write_text('{"file": "a.wav", "size": 1, "mtime_ns": 5, "time": 9.0}\n')
    new = Arrival("a.wav", Stamp(1, 5, 7, 8))
    with ScoredLog(path) as log:
        assert log.moved_from(path.parent, new, "sum") == "a.wav"
        assert log.moved_from(path.parent, new._replace(name="b.wav"), "sum") is None


MOVES = {
    "renamed": ({}, "sum", "gone", True),
    "copied elsewhere and removed, with the time of another disk": (
        {"inode": 8, "mtime_ns": 5 + 10**9}, "sum", "gone", True,
    ),
    "another name of the same file": ({}, "sum", "there", True),
    "a copy beside the original": ({"inode": 8}, "sum", "there", False),
    "the same silence again": ({"inode": 8, "mtime_ns": 10**13}, "sum", "gone", False),
    "other contents": ({}, "other", "gone", False),
    "another size": ({"size": 11}, "sum", "gone", False),
}  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
def test_a_moved_recording_is_known_by_its_contents_and_time(path, move, monkeypatch):
    change, content, before, is_known = MOVES[move]
    scored = Arrival("in/a.wav", Stamp(10, 5, 7, 9))
    there = scored.stamp if before == "there" else None
    monkeypatch.setattr(arrivals, "stamp_of", lambda path: there)
    with ScoredLog(path) as log:
        log.add(scored, "sum")
    moved = Arrival("done/a.wav", scored.stamp._replace(ctime_ns=10, **change))
    with ScoredLog(path) as log:
        found = log.moved_from(path.parent, moved, content)
    assert found == ("in/a.wav" if is_known else None)


def test_after_a_truncated_line_the_other_lines_are_read(path):
    fill(path, A, ODD)
    path.write_bytes(path.read_bytes()[:-20])
    assert contained(path, A, ODD) == [True, False]
    fill(path, ODD)
    assert contained(path, A, ODD) == [True, True]


OTHER = ["notes\nof mine\n", '{"file": "x"}\n', "[]\n", "buy milk", "7"]


@pytest.mark.parametrize("text", [*OTHER, '{"file": "x"}', '{"note": "x'])
def test_another_kind_of_file_is_refused_and_left_unchanged(path, text):
    path.write_text(text)
    with pytest.raises(InputError, match=r"state\.jsonl is not the state file of"):
        ScoredLog(path)
    assert path.read_text() == text


@pytest.mark.parametrize("n_bytes", [0, 1, 5, 12, 30])
def test_a_log_whose_only_line_is_truncated_is_accepted(path, n_bytes):
    fill(path, A)
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert contained(path, A) == [False]


def test_two_watches_cannot_share_a_log(path):
    pytest.importorskip("fcntl")
    with ScoredLog(path) as log:
        log.add(A)
        assert json.loads(path.read_text())["file"] == "fan/a.wav"
        for _ in range(2):
            with pytest.raises(InputError, match="is in use by another watch"):
                ScoredLog(path)
            log.forget_gone({A.name: A.stamp})
        log.add(ODD)
    assert contained(path, A, ODD) == [True, True]


def test_only_recordings_scored_long_ago_and_removed_are_forgotten(path, monkeypatch):
    fill(path, A, ODD)
    present = {A.name: A.stamp}
    with ScoredLog(path) as log:
        log.forget_gone(present)
        assert log.contains(*ODD)
        later = arrivals.time.time() + 31 * 24 * 3600
        monkeypatch.setattr(arrivals.time, "time", lambda: later)
        log.forget_gone({})  # as if a network share were disconnected
        assert log.contains(*A)
        assert log.contains(*ODD)
        log.forget_gone(present)
        assert log.contains(*A)
        assert not log.contains(*ODD)
    assert contained(path, A, ODD) == [True, False]


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="choose a writable file with --state"):
        ScoredLog(tmp_path / "missing" / "state.jsonl")


def test_the_log_is_complete_again_after_a_full_disk(path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with ScoredLog(path) as log:
        monkeypatch.setattr(arrivals, "_line", full_disk)
        with pytest.raises(OSError, match="No space"):
            log.add(A)
        monkeypatch.undo()
        log.add(ODD)
    assert contained(path, A, ODD) == [True, True]


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


def test_of_watches_that_start_together_one_holds_the_log(path, monkeypatch):
    """The second watch starts at any point while the first one is starting."""
    refused = []

    def start_another(function):
        def during(*arguments):
            with pytest.raises(InputError, match="in use by another watch"):
                ScoredLog(path)
            refused.append(function)
            return function(*arguments)

        return during

    fill(path, A)
    read, write = arrivals._read, arrivals.write_text
    monkeypatch.setattr(arrivals, "_read", start_another(read))
    monkeypatch.setattr(arrivals, "write_text", start_another(write))
    with ScoredLog(path) as log:
        monkeypatch.undo()
        log.add(ODD)
    assert refused == [read, write]
    assert contained(path, A, ODD) == [True, True]


HOLDER = """
import sys, time
from pathlib import Path
from gammavae_jax.errors import InputError
from gammavae_jax.live.arrivals import ScoredLog
try:
    with ScoredLog(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except InputError:
    print("refused", flush=True)
"""


def test_of_six_processes_that_start_together_one_holds_the_log(path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    answers = sorted(process.stdout.readline() for process in processes)  # pyright: ignore
    for process in processes:
        process.communicate()
    assert answers == ["held\n", *["refused\n"] * 5]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_link_to_a_log_and_the_log_are_the_same(path, tmp_path):
    link = tmp_path / "elsewhere" / "link.jsonl"
    link.parent.mkdir()
    link.symlink_to(path)
    with ScoredLog(link) as log:
        log.add(A)
        with pytest.raises(InputError, match="in use by another watch"):
            ScoredLog(path)
    assert link.is_symlink()
    assert contained(path, A) == [True]
