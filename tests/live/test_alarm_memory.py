"""The alarm states that a watch saves for the next watch."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gammavae_jax.live.alarm_memory import AlarmMemory
from gammavae_jax.scoring.alarm_policy import AlarmPolicy, AlarmState
from gammavae_jax.scoring.verdict import Segment, Verdict

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
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("memory") / "alarms.json"


@given(st.lists(st.sampled_from([0.05, 0.5]), max_size=12))
def test_any_state_is_read_as_it_was_written(path, p_values):
    state, _ = after(p_values)
    AlarmMemory(path, {"fan": POLICY}).write({"fan": state})
    memory = AlarmMemory(path, {"fan": POLICY, "pump": POLICY})
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
def test_the_state_of_another_rule_is_ignored_with_a_line(path, change):
    AlarmMemory(path, {"fan": POLICY}).write({"fan": after([0.05] * 3)[0]})
    memory = AlarmMemory(path, {"fan": replace(POLICY, **change)})
    assert memory.states == {"fan": AlarmState()}
    assert memory.notes == [
        "fan: the rule for alarms has changed, so earlier recordings do not count"
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
def test_a_malformed_state_is_ignored_with_a_line(path, damage):
    AlarmMemory(path, {"fan": POLICY}).write({"fan": after([0.05] * 3)[0]})
    entry = json.loads(path.read_text())["fan"]
    path.write_text(json.dumps({"fan": damage(entry)}))
    _is_ignored(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "5", '{"fan": ', '{"fan": NaN}', "[" * 9999]
)
def test_a_file_that_is_not_an_alarm_memory_is_ignored_with_a_line(path, text):
    path.write_text(text)
    _is_ignored(path)


def test_invalid_text_and_a_folder_are_ignored(path, tmp_path):
    path.write_bytes(b"\xff\xfe")
    _is_ignored(path)
    memory = AlarmMemory(tmp_path, {"fan": POLICY})
    assert "cannot be read (Is a directory)" in memory.notes[0]


def _is_ignored(path):
    memory = AlarmMemory(path, {"fan": POLICY})
    assert memory.states == {"fan": AlarmState()}
    (note,) = memory.notes
    assert note.endswith(
        "alarms.json is not the alarm file of a watch: earlier recordings do not count "
        "for alarms"
    )
