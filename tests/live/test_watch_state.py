"""What a watch saves for the next watch: scored recordings and alarm states."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gammavae_jax.errors import InputError
from gammavae_jax.live import watch_state
from gammavae_jax.live.arrivals import Arrival, Stamp
from gammavae_jax.live.watch_state import AlarmMemory, ScoredLog
from gammavae_jax.scoring.alarm_policy import AlarmPolicy, AlarmState
from gammavae_jax.scoring.verdict import Segment, Verdict

A = Arrival("fan/a.wav", Stamp(10, 5))
ODD = Arrival("\udcff\n.wav", Stamp(11, 6))
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
OTHER = ["notes\nof mine\n", '{"file": "x"}\n', "[]\n", "buy milk", "7"]
HOLDER = """
import sys, time
from pathlib import Path
from gammavae_jax.errors import InputError
from gammavae_jax.live.watch_state import ScoredLog
try:
    with ScoredLog(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except InputError:
    print("refused", flush=True)
"""
POLICY = AlarmPolicy(0.1, 2, 3, 35.0)


def after(p_values, state=None, policy=POLICY):
    """Return the state after recordings of 10 s, and the events."""
    state, events = state or AlarmState(), []
    for number, p in enumerate(p_values):
        segment = Segment(0.0, 10.0, 0.0, p)
        name = f"{number}.wav"
        verdict = Verdict(name, "fan", 0.0, p, 1.0, 10.0, segments=(segment,))
        state, new = policy.follow(state, verdict)
        events += new
    return state, events


@pytest.fixture(scope="module")
def alarm_file(tmp_path_factory):
    return tmp_path_factory.mktemp("memory") / "alarms.json"


@given(st.lists(st.sampled_from([0.05, 0.5]), max_size=12))
def test_any_state_is_read_as_it_was_written(alarm_file, p_values):
    state, _ = after(p_values)
    AlarmMemory(alarm_file, {"fan": POLICY}).write({"fan": state})
    memory = AlarmMemory(alarm_file, {"fan": POLICY, "pump": POLICY})
    assert memory.states == {"fan": state, "pump": AlarmState()}
    assert memory.notes == []


@pytest.mark.parametrize(
    "change",
    [
        {"level": 0.2},
        {"k": 3},
        {"n": 4},
        {"hold_seconds": 0.0},
        {"recording_seconds": 60.0},
    ],
)
def test_the_state_of_another_rule_is_ignored_with_a_line(alarm_file, change):
    AlarmMemory(alarm_file, {"fan": POLICY}).write({"fan": after([0.05] * 3)[0]})
    memory = AlarmMemory(alarm_file, {"fan": replace(POLICY, **change)})
    assert memory.states == {"fan": AlarmState()}
    assert memory.notes == [
        "fan: the rule for alarms has changed, so earlier recordings are ignored"
    ]


def broken(field, value):
    return lambda entry: entry | {field: value}


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: [],
        lambda entry: {},
        broken("window", None),
        broken("window", [[True, "x.wav", 0.0]] * 4),
        broken("window", [["yes", "x.wav", 0.0]]),
        broken("window", [[True, 5, 0.0]]),
        broken("clock", "0"),
        broken("clock", True),
        broken("clock", 10**400),
        broken("hold_ends", [0]),
        broken("alarm", {"start": None}),
        broken("alarm", {"start": {"recording": "x", "seconds": 0, "more": 1}}),
    ],
)
def test_a_malformed_state_is_ignored_with_a_line(alarm_file, damage):
    AlarmMemory(alarm_file, {"fan": POLICY}).write({"fan": after([0.05] * 3)[0]})
    entry = json.loads(alarm_file.read_text())["fan"]
    alarm_file.write_text(json.dumps({"fan": damage(entry)}))
    _is_ignored(alarm_file)


@pytest.mark.parametrize(
    "text", ["", "[]", "5", '{"fan": ', '{"fan": NaN}', "[" * 9999]
)
def test_a_file_that_is_not_an_alarm_memory_is_ignored_with_a_line(alarm_file, text):
    alarm_file.write_text(text)
    _is_ignored(alarm_file)


def test_invalid_text_and_a_folder_are_ignored(alarm_file, tmp_path):
    alarm_file.write_bytes(b"\xff\xfe")
    _is_ignored(alarm_file)
    memory = AlarmMemory(tmp_path, {"fan": POLICY})
    assert "cannot be read (Is a directory)" in memory.notes[0]


def _is_ignored(alarm_file):
    memory = AlarmMemory(alarm_file, {"fan": POLICY})
    assert memory.states == {"fan": AlarmState()}
    (note,) = memory.notes
    assert note.endswith(
        "alarms.json is not the alarm file of a watch: earlier recordings are ignored "
        "for alarms"
    )


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


@pytest.mark.parametrize("move", MOVES)
def test_a_moved_recording_is_known_by_its_contents_and_time(path, move, monkeypatch):
    change, content, before, is_known = MOVES[move]
    scored = Arrival("in/a.wav", Stamp(10, 5, 7, 9))
    there = scored.stamp if before == "there" else None
    monkeypatch.setattr(watch_state, "stamp_of", lambda path: there)
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
        later = watch_state.time.time() + 31 * 24 * 3600
        monkeypatch.setattr(watch_state.time, "time", lambda: later)
        log.forget_gone({})  # as if a network share were disconnected
        assert log.contains(*A)
        assert log.contains(*ODD)
        log.forget_gone(present)
        assert log.contains(*A)
        assert not log.contains(*ODD)
    assert contained(path, A, ODD) == [True, False]


def test_a_new_log_does_not_continue_the_alarms_of_a_removed_one(path):
    fill(path, A)
    with ScoredLog(path) as log:
        AlarmMemory(log.alarms_path, {"fan": POLICY}).write({"fan": AlarmState()})
    with ScoredLog(path) as log:
        assert log.alarms_path.exists()
    path.unlink()
    with ScoredLog(path) as log:
        assert not log.alarms_path.exists()


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="choose a writable file with --state"):
        ScoredLog(tmp_path / "missing" / "state.jsonl")


def test_the_log_is_complete_again_after_a_full_disk(path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with ScoredLog(path) as log:
        monkeypatch.setattr(watch_state, "_line", full_disk)
        with pytest.raises(OSError, match="No space"):
            log.add(A)
        monkeypatch.undo()
        log.add(ODD)
    assert contained(path, A, ODD) == [True, True]


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
    read, write = watch_state._read, watch_state.write_text
    monkeypatch.setattr(watch_state, "_read", start_another(read))
    monkeypatch.setattr(watch_state, "write_text", start_another(write))
    with ScoredLog(path) as log:
        monkeypatch.undo()
        log.add(ODD)
    assert refused == [read, write]
    assert contained(path, A, ODD) == [True, True]


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
