"""Simulated days: false alarms, faults and their delays."""

import numpy as np
import pytest

from experiments.alarms import HOUR, Days, parse
from gammavae_jax.scoring.alarm_policy import AlarmPolicy
from gammavae_jax.scoring.decision import DecisionRule

SECONDS, N_HELD_OUT = 10.0, 99
HELD_OUT = np.arange(N_HELD_OUT, dtype=float)
RULE = DecisionRule("fan", 90.0, 0.1, HELD_OUT, np.ones(N_HELD_OUT))


def days(normal, anomaly, is_hour):
    scores = {"normal": normal, "anomaly": anomaly}
    clips = {
        label: [RULE.judge("x", [score], [SECONDS]) for score in of]
        for label, of in scores.items()
    }
    return Days(RULE, clips, SECONDS, is_hour)


@pytest.mark.parametrize("is_hour", [False, True])
def test_a_fault_of_an_hour_is_found_when_enough_segments_count(is_hour):
    policy = AlarmPolicy(0.05, 3, 4)
    machine = days([50.0], [98.5], is_hour)
    segment = 60.0 if is_hour else SECONDS
    assert list(machine.delays(policy, 2)) == [3 * segment] * 2
    assert machine.false_alarms(policy, 1) == 0
    assert list(days([50.0], [50.0], is_hour).delays(policy, 2)) == []


def test_an_alarm_that_began_before_the_fault_does_not_count():
    assert list(days([98.5], [98.5], False).delays(AlarmPolicy(0.05, 3, 4), 2)) == []


def test_false_alarms_are_counted_once_and_for_each_day():
    """One of ten clips counts, so alarms of single clips begin after 0.9 others."""
    machine = days([50.0] * 9 + [98.5], [50.0], False)
    policy = AlarmPolicy(0.05, 1, 1)
    expected = 86400 / SECONDS * 0.1 * 0.9
    assert machine.false_alarms(policy, 2) == pytest.approx(expected, rel=0.1)
    assert days([98.5], [50.0], False).false_alarms(policy, 2) == 0.5  # never ends


def test_an_hour_is_one_recording_or_many():
    rng = np.random.default_rng(0)
    (hour,) = days([50.0], [50.0], True).hour("normal", 7.0, rng)
    assert (hour.name, hour.seconds, len(hour.segments)) == ("7.0", HOUR, 60)
    clips = days([50.0], [50.0], False).hour("normal", 7.0, rng)
    assert [clip.name for clip in clips[:2]] == ["7.0", "17.0"]
    assert len(clips) == 360


def test_the_options_have_defaults():
    options = parse(["--data-root", "data"])
    assert (options.rates, options.machines) == ((0.2, 1, 5), ())
