"""Alarm policies that are planned for a number of false alarms per day."""

import dataclasses
import re

import numpy as np
import pytest
import scipy.stats

from gammavae_jax.errors import InputError
from gammavae_jax.scoring.alarm_plan import (
    AlarmRequest,
    Stream,
    _candidates,
    _share_of_fault,
    choose_policy,
    plan_policy,
)
from gammavae_jax.scoring.alarm_rate import chance_given_share, expected_segments
from gammavae_jax.scoring.decision import DecisionRule


def rule_of(held_out):
    """Return a rule for held-out scores, one row for each recording."""
    n_recordings, size = held_out.shape
    weights = np.full(held_out.size, 1 / size)
    sizes = (size,) * n_recordings
    return DecisionRule("fan", 1.0, 0.1, held_out.ravel(), weights, sizes)


def independent(n_recordings, seed=0):
    return rule_of(np.random.default_rng(seed).standard_normal((n_recordings, 1)))


def plan(rule, rate, per_day=None, **others):
    return plan_policy(rule, 10.0, AlarmRequest(rate, per_day, **others))


@pytest.mark.parametrize("rate", [0.2, 1.0, 5.0])
def test_the_chosen_policy_comes_close_to_the_rate_without_exceeding_it(rate):
    policy = plan(independent(100), rate)
    expected = policy.expected
    assert expected is not None
    assert 0.3 * rate < expected.false_alarms_per_day <= rate
    assert expected.upper_limit > expected.false_alarms_per_day
    assert expected.segments_per_day == 8640
    assert policy.n <= 12


@pytest.mark.parametrize("rate", [0.5, 5.0])
def test_no_other_policy_within_the_rate_reports_the_reference_fault_earlier(rate):
    stream = Stream("fan", 100.0, (np.zeros(3),), 10.0, 8640.0)  # no correlation
    waits = [
        expected_segments(k, n, _share_of_fault(rank / 101))
        for k, n, rank in _candidates(stream, rate / stream.segments_per_day)
    ]
    expected = choose_policy(stream, rate).expected
    assert expected is not None
    assert expected.delay_of_half == pytest.approx(10 * min(waits))


def test_more_false_alarms_or_recordings_shorten_the_delay():
    def delay(n_recordings, rate):
        expected = plan(independent(n_recordings), rate).expected
        assert expected is not None
        return expected.delay_of_half

    assert delay(50, 5.0) < delay(50, 0.5)
    assert delay(300, 0.5) < delay(50, 0.5)


@pytest.mark.parametrize(
    ("n_recordings", "size", "correlation"), [(19, 1, 0.0), (50, 6, 0.3)]
)
def test_simulated_machines_keep_to_the_rate_on_average(
    n_recordings, size, correlation
):
    """Each machine has its own training recordings and therefore its own threshold."""
    rng, rate, of_each, limits = np.random.default_rng(0), 1.0, [], []
    for _ in range(8):
        common = np.sqrt(correlation) * rng.standard_normal((n_recordings, 1))
        own = rng.standard_normal((n_recordings, size))
        held_out = common + np.sqrt(1 - correlation) * own
        parts = tuple(held_out) if size > 1 else (held_out.ravel(),)
        stream = Stream("fan", float(n_recordings), parts, 60.0, 1440.0)
        policy = choose_policy(stream, rate)
        rank = round(policy.level * (n_recordings + 1))
        threshold = np.sort(held_out.ravel())[::-1][(rank - 1) * size]
        share = np.array([scipy.stats.norm.sf(threshold)])
        chance = chance_given_share(share, correlation, policy.k, policy.n)
        of_each.append(1440 * chance[0])
        assert policy.expected is not None
        limits.append(policy.expected.upper_limit)
    assert np.mean(of_each) <= rate
    assert np.mean(np.array(of_each) <= limits) >= 0.85  # nominal: 0.95


def test_a_rate_that_cannot_be_guaranteed_is_refused_with_what_would_be_enough():
    rule = independent(12)
    with pytest.raises(InputError) as caught:
        plan(rule, 0.0001)
    text = str(caught.value)
    assert text.startswith(
        "fan: with 12 independent training recordings and 8640 segments per day, "
        "0.0001 false alarms per day cannot be guaranteed: ask for "
    )
    found = re.search(
        r"ask for ([\d.e-]+) or more, or score at most (\d+) segments per day", text
    )
    assert found
    assert plan(rule, float(found[1])).n == 12
    assert plan(rule, 0.0001, float(found[2])).n == 12
    with pytest.raises(InputError):
        plan(rule, 0.9 * float(found[1]))
    with pytest.raises(InputError):
        plan(rule, 0.0001, 1.1 * float(found[2]))
    assert re.search(r"or train with \d\d independent recordings$", text)


def test_a_policy_with_given_k_and_n_is_described():
    policy = plan(independent(40), None, 24.0, after=(2, 3), hold_seconds=60.0)
    assert (policy.level, policy.k, policy.n) == (0.1, 2, 3)
    assert (policy.hold_seconds, policy.recording_seconds) == (60.0, 3600.0)
    expected = policy.expected
    assert expected is not None
    assert expected.segments_per_day == 24
    assert expected.delay_of_all == 7200
    chance = scipy.stats.betabinom.sf(1, 3, 4, 37)  # p <= 0.1: among the highest 4
    assert expected.false_alarms_per_day >= 24 * chance
    for part in (
        "alarm if 2 of the last 3 segments have p <= 0.1, then hold for 60 s",
        "false alarms per day",
        "after 2 hours.",
    ):
        assert part in policy.description


def test_recordings_of_a_minute_are_one_segment_each():
    rng = np.random.default_rng(0)
    policy = plan(rule_of(rng.standard_normal((40, 6))), 1.0)
    assert policy.expected is not None
    assert policy.expected.segment_seconds == 60
    assert policy.expected.segments_per_day == 1440
    longer = plan(rule_of(rng.standard_normal((40, 18))), 1.0, 24.0).expected
    assert longer is not None
    assert longer.segments_per_day == 72


def test_recordings_of_different_lengths_count_by_their_mean_number_of_segments():
    sizes = (6,) * 8 + (60,) * 32
    weights = np.repeat(1 / np.array(sizes), sizes)
    held_out = np.random.default_rng(0).standard_normal(sum(sizes))
    rule = DecisionRule("fan", 1.0, 0.1, held_out, weights, sizes)
    policy = plan(rule, 1.0, 24.0)
    assert policy.expected is not None
    assert policy.expected.segments_per_day == pytest.approx(24 * (8 + 320) / 40)
    assert policy.most_segments == 10
    assert plan(rule, 1.0).most_segments is None


@pytest.mark.parametrize(
    ("changes", "request_", "problem"),
    [
        ({"is_conformal": False}, AlarmRequest(1.0), "no conformal thresholds"),
        ({"held_out": None}, AlarmRequest(1.0), "no conformal thresholds"),
        ({}, AlarmRequest(-1.0), "the number of false alarms per day is -1"),
        ({}, AlarmRequest(1.0, 0.0), "the number of recordings per day is 0"),
        ({}, AlarmRequest(), "either false alarms per day or k of n"),
        ({}, AlarmRequest(1.0, None, (1, 2)), "either false alarms per day or k of n"),
        (
            {"false_alarm_rate": 0.01},
            AlarmRequest(after=(1, 2)),
            "too few .* record 99",
        ),
    ],
)
def test_impossible_plans_are_refused(changes, request_, problem):
    rule = dataclasses.replace(independent(20), **changes)
    with pytest.raises(InputError, match=problem):
        plan_policy(rule, 10.0, request_)
