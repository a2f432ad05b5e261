"""Alarms after k of n segments: when they are raised, end and are held back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gammavae_jax.errors import InputError
from gammavae_jax.scoring.alarm_policy import (
    Alarm,
    AlarmPolicy,
    AlarmState,
    Moment,
    duration,
    rounded,
)
from gammavae_jax.scoring.verdict import Segment, Verdict


def recording(p_values, name="x.wav", seconds=10.0):
    """Return the verdict on a recording whose segments have these p-values."""
    segments = [
        Segment(seconds * i, seconds * (i + 1), -p, p) for i, p in enumerate(p_values)
    ]
    length = seconds * max(1, len(segments))
    return Verdict(name, "fan", 0.0, 0.5, 1.0, length, segments=tuple(segments))


def times(alarms):
    """Return, for each alarm, the indices of the segments that raised and ended it."""
    return [
        (round(a.raised.seconds / 10) - 1, a.end and round(a.end.seconds / 10) - 1)
        for a in alarms
    ]


def test_an_alarm_is_raised_by_three_of_four_and_ends_at_one_of_four():
    counts = [0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0]
    (alarm,) = AlarmPolicy(0.1, 3, 4).alarms(
        [recording([0.05 if c else 0.5 for c in counts])]
    )
    start, raised = Moment("x.wav", 10.0), Moment("x.wav", 50.0)
    # In the windows that end at segments 5, 6 and 7, two, one and two segments count.
    assert alarm == Alarm(start, raised, Moment("x.wav", 70.0))


def test_an_alarm_starts_with_the_first_segment_that_counts():
    (alarm,) = AlarmPolicy(0.1, 2, 3).alarms([recording([0.5, 0.05, 0.05])])
    assert (alarm.start.seconds, alarm.raised.seconds) == (10.0, 30.0)


def test_an_active_alarm_is_reported_once():
    for hold in (0.0, 15.0):
        policy = AlarmPolicy(0.1, 1, 1, hold)
        _, events = policy.follow(AlarmState(), recording([0.05] * 5))
        assert [event.raised.seconds for event in events] == [10.0]


def test_an_alarm_that_has_not_ended_stays_active():
    (alarm,) = AlarmPolicy(0.1, 2, 2).alarms([recording([0.1, 0.1, 0.1])])
    assert alarm.end is None
    assert AlarmPolicy(0.1, 2, 2).alarms([recording([0.1])]) == []


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(0, 4))
def test_alarms_match_their_definition(counts, k, more):
    n = k + more
    found = AlarmPolicy(0.1, k, n).alarms(
        [recording([0.1 if c else 0.11 for c in counts])]
    )
    expected, began = [], None
    for last in range(len(counts)):
        n_counted = sum(counts[max(0, last + 1 - n) : last + 1])
        if began is None and n_counted >= k:
            began = last
        elif began is not None and n_counted <= k // 2:
            expected.append((began, last))
            began = None
    expected += [] if began is None else [(began, None)]
    assert times(found) == expected


def test_recordings_are_one_sequence_even_if_the_machine_is_off_between_them():
    policy = AlarmPolicy(0.1, 3, 3)
    parts = [[0.05], [], [0.05, 0.05], [0.5] * 3]
    verdicts = [recording(p, f"{i}.wav") for i, p in enumerate(parts)]
    (alarm,) = policy.alarms(verdicts)
    assert alarm.start == Moment("0.wav", 0.0)
    assert alarm.raised == Moment("2.wav", 20.0)
    assert alarm.end == Moment("3.wav", 20.0)


def test_alarms_within_the_hold_time_are_held_back():
    p_values = [0.05, 0.5] * 4  # an alarm every 20 s
    for hold, per_recording, held in (
        (0.0, 0.0, [False] * 4),
        (35.0, 0.0, [False, True, False, True]),
        (20.0, 0.0, [False] * 4),  # each alarm is raised just when the hold time ends
        (35.0, 40.0, [False] * 4),  # a recording of 10 s every 40 s
    ):
        policy = AlarmPolicy(0.1, 1, 1, hold, per_recording)
        alarms = policy.alarms([recording([p], f"{p}.wav") for p in p_values])
        assert [alarm.is_held for alarm in alarms] == held


def test_the_hold_time_is_measured_from_and_to_the_ends_of_segments():
    policy = AlarmPolicy(0.1, 1, 1, 35.0)  # held back from 10 s to 45 s
    lengths = (10.0, 10.0, 30.0)
    parts = zip([0.05, 0.5, 0.05], lengths, strict=True)
    alarms = policy.alarms([recording([p], seconds=s) for p, s in parts])
    assert [alarm.is_held for alarm in alarms] == [False, False]  # the last at 50 s


def test_a_held_alarm_that_outlasts_the_hold_time_is_reported():
    policy = AlarmPolicy(0.1, 1, 1, 35.0)
    p_values = [0.05, 0.5, 0.05, 0.05, 0.05, 0.05, 0.5, 0.05]
    _, events = policy.follow(AlarmState(), recording(p_values))
    found = [(e.raised.seconds, e.is_held, e.end and e.end.seconds) for e in events]
    assert found == [
        (10.0, False, None),
        (10.0, False, 20.0),
        (30.0, True, None),
        (30.0, False, None),  # at 50 s; another hold time begins
        (30.0, False, 70.0),
        (80.0, True, None),
    ]


def test_a_p_value_equal_to_the_level_up_to_rounding_counts():
    policy = AlarmPolicy(3 / 21, 1, 1)
    p = np.nextafter(3 / 21, 1)
    assert policy.counts(Segment(0.0, 1.0, 0.0, float(p)))
    assert not policy.counts(Segment(0.0, 1.0, 0.0, 4 / 21))
    assert not policy.counts(Segment(0.0, 1.0, 0.0, float("nan")))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ((0.1, 0, 3), "after 0 of 3"),
        ((0.1, 4, 3), "after 4 of 3"),
        ((0.1, 4, 99), "at most 12"),
        ((1.0, 1, 1), "the level is 1"),
        ((0.1, 1, 1, -1.0), "the hold time is -1 s"),
    ],
)
def test_impossible_policies_are_refused(values, problem):
    with pytest.raises(InputError, match=problem):
        AlarmPolicy(*values)


def test_rules_and_durations_are_described_in_words():
    assert AlarmPolicy(0.12, 5, 6).rule == "5 of the last 6 segments have p <= 0.12"
    assert AlarmPolicy(0.12, 3, 3).rule == "3 segments in a row have p <= 0.12"
    assert AlarmPolicy(0.12, 1, 1).rule == "a segment has p <= 0.12"
    lengths = (9.98, 110.0, 540.0, 8964.0, 172800.0)
    expected = ["10 s", "110 s", "9 minutes", "2.5 hours", "2 days"]
    assert [duration(seconds) for seconds in lengths] == expected
    assert [rounded(x) for x in (0.0123, 138.4, 25_000.0)] == ["0.012", "140", "25000"]
    text = AlarmPolicy(0.12, 5, 6, 1800.0).description
    assert text == (
        "alarm if 5 of the last 6 segments have p <= 0.12, then hold for 30 minutes."
    )
