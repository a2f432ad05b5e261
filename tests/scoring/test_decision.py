"""The verdict on a recording: its score, p-value and threshold, and false alarms."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gammavae_jax.data.states import State
from gammavae_jax.errors import InputError
from gammavae_jax.scoring.decision import CLIPS_IN_SEGMENT, DecisionRule
from gammavae_jax.scoring.threshold import conformal_threshold, p_values


def rule_of(held_out, rate=0.1, weights=None, sizes=()):
    """Return a rule whose threshold for single clips fits the held-out scores."""
    held_out = np.array(held_out, float)
    weights = np.ones(len(held_out)) if weights is None else np.array(weights)
    threshold = conformal_threshold(held_out, rate, weights)
    return DecisionRule("fan", threshold, rate, held_out, weights, sizes)


def held_out_of(rule) -> np.ndarray:
    assert rule.held_out is not None
    return rule.held_out


def judge(rule, scores, seconds=10.0):
    return rule.judge("x.wav", scores, [seconds] * len(scores))


@given(st.floats(-5, 25), st.sampled_from([0.05, 0.1, 0.3]))
@settings(deadline=None)
def test_a_single_clip_is_compared_with_single_held_out_clips(score, rate):
    rule = rule_of(range(20), rate)
    verdict = judge(rule, [score])
    assert (verdict.score, verdict.threshold) == (score, rule.threshold)
    assert verdict.p_value == p_values(np.array([score]), held_out_of(rule))[0]
    assert verdict.is_anomaly == (verdict.p_value <= rate)


def test_a_recording_of_a_minute_is_compared_with_training_recordings_of_a_minute():
    """The mean score of a minute varies less than the scores of single clips."""
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(40, 6))
    rule = rule_of(clips.ravel(), weights=np.full(240, 1 / 6), sizes=(6,) * 40)
    verdict = judge(rule, [0.8] * 6)
    assert verdict.threshold == conformal_threshold(clips.mean(1), 0.1)
    assert verdict.p_value == p_values(np.array([0.8]), clips.mean(1))[0]
    assert verdict.is_anomaly
    assert not judge(rule, [0.8]).is_anomaly


def test_two_minutes_of_a_training_recording_count_as_one_recording():
    clips = np.arange(24.0).reshape(2, 12)
    rule = rule_of(clips.ravel(), 0.4, np.full(24, 1 / 12), sizes=(12, 12))
    halves = clips.reshape(4, 6).mean(1)
    verdict = judge(rule, [9.0] * 6)
    assert verdict.p_value == p_values(np.array([9.0]), halves, np.full(4, 0.5))[0]
    assert verdict.p_value == (1 + 2 * 0.5) / 3


def test_shorter_training_recordings_are_used_as_they_are():
    """One of twenty recordings is short, so the usual size is still six clips."""
    sizes = (2, *(6,) * 19)
    clips = np.concatenate([[50.0, 60.0], np.arange(114.0)])
    weights = np.concatenate([[0.5] * 2, [1 / 6] * 114])
    rule = rule_of(clips, weights=weights, sizes=sizes)
    means = [55.0, *np.arange(114.0).reshape(19, 6).mean(1)]
    assert judge(rule, [100.0] * 6).p_value == (1 + (np.array(means) >= 100).sum()) / 21


def test_clips_that_were_not_held_out_do_not_count():
    clips = np.arange(12.0)
    clips[6:] = np.nan
    rule = DecisionRule("fan", 5.0, 0.4, clips, np.full(12, 1 / 6), (6, 6))
    assert judge(rule, [9.0] * 6).p_value == 1 / 2


def test_a_long_recording_needs_more_segments_if_each_is_less_unusual():
    """Simes: the k-th highest of n segments needs a p-value of k / n times the rate."""
    rule = rule_of(range(99))  # p-values in steps of 0.01
    normal, n_segments = 30.0, 10

    def minutes(*scores):
        rest = [normal] * (n_segments - len(scores))
        return judge(rule, np.repeat([*scores, *rest], CLIPS_IN_SEGMENT).tolist())

    one = minutes(98.5)  # p = 0.01 in one of ten segments
    assert (one.p_value, one.score, one.is_anomaly) == (0.1, 98.5, True)
    assert one.threshold == conformal_threshold(held_out_of(rule), 0.01)
    two = minutes(97.5, 97.5)  # p = 0.02 in two of ten segments
    assert (two.p_value, two.is_anomaly) == (0.1, True)
    slight = minutes(97.5, 96.5)  # p = 0.02 and p = 0.03
    assert (slight.p_value, slight.is_anomaly) == (pytest.approx(0.15), False)
    assert not minutes(97.5).is_anomaly
    assert minutes().p_value == pytest.approx(
        p_values(np.array([30.0]), held_out_of(rule))
    )


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_held_out=st.integers(1, 60),
    n_clips=st.integers(1, 80),
    rate=st.sampled_from([0.01, 0.05, 0.1, 0.25]),
)
def test_the_decision_agrees_with_the_p_value_and_with_the_threshold(
    seed, n_held_out, n_clips, rate
):
    rng = np.random.default_rng(seed)
    rule = rule_of(rng.normal(size=n_held_out), rate)
    verdict = judge(rule, (rng.normal(size=n_clips) + rng.exponential(2)).tolist())
    assert verdict.is_anomaly == (verdict.score > verdict.threshold)
    if (1 + n_held_out) * rate >= 1:  # otherwise, the highest score is the threshold
        assert verdict.is_anomaly == (verdict.p_value <= rate)
    assert 0 < verdict.p_value <= 1


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("n_clips", [1, 6, 60, 360])
def test_normal_recordings_of_any_length_raise_at_most_the_nominal_alarms(
    n_clips, shared
):
    """`shared` is the correlation of the clips of one recording."""
    rng, n_trained, n_tries = np.random.default_rng(n_clips), 99, 1000

    def recordings(count, n):
        own = rng.normal(size=(count, n)) * math.sqrt(1 - shared)
        return own + rng.normal(size=(count, 1)) * math.sqrt(shared)

    n_alarms = 0
    for _ in range(n_tries):
        rule = rule_of(recordings(n_trained, 1)[:, 0])
        n_alarms += judge(rule, recordings(1, n_clips)[0]).is_anomaly
    sigma = math.sqrt(0.1 * 0.9 / n_tries)
    assert n_alarms / n_tries <= 0.1 + 3 * sigma
    if shared == 1.0 or n_clips == 1:  # then the rate is exact
        assert n_alarms / n_tries >= 0.1 - 3 * sigma


def test_a_faulty_minute_in_an_hour_raises_an_alarm_if_there_are_enough_recordings():
    rng = np.random.default_rng(0)
    hour = rng.normal(size=360)
    hour[60:66] += 100
    few, many = (rule_of(rng.normal(size=n)) for n in (100, 1000))
    assert not judge(few, hour).is_anomaly
    assert judge(many, hour).is_anomaly
    assert any(s.start <= 600 and s.end >= 660 for s in judge(few, hour).stretches)


def test_stretches_join_consecutive_clips_above_the_threshold_of_one_clip():
    rule = DecisionRule("fan", 5.0)
    verdict = rule.judge(
        "x", [9.0, 1.0, 6.0, 8.0, 5.0, 7.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    )
    times = [(s.start, s.end, s.score) for s in verdict.stretches]
    assert times == [(0, 1, 9), (3, 10, 8), (15, 21, 7)]
    assert (verdict.seconds, verdict.n_clips, verdict.n_alarms) == (21, 6, 4)


def test_with_too_few_recordings_the_mean_of_all_clips_is_compared_with_the_highest():
    """Without this rule, a fault would have to fill a long recording completely."""
    rule = rule_of(range(5))  # a rate of 10 % needs nine recordings
    nearly_all = [9.0] * 50 + [1.0] * 10
    verdict = judge(rule, nearly_all)
    assert (verdict.score, verdict.threshold) == (pytest.approx(np.mean(nearly_all)), 4)
    assert verdict.is_anomaly
    assert verdict.p_value == 1 / 6
    assert not judge(rule, [9.0] * 6 + [1.0] * 54).is_anomaly


def test_a_gamma_threshold_applies_to_the_mean_of_all_clips():
    rule = dataclasses.replace(rule_of(range(99)), threshold=50.0, is_conformal=False)
    for n_high, is_alarm in ((20, False), (40, True)):
        verdict = judge(rule, [90.0] * n_high + [10.0] * (60 - n_high))
        assert verdict.score == pytest.approx((90 * n_high + 10 * (60 - n_high)) / 60)
        assert (verdict.threshold, verdict.is_anomaly) == (50.0, is_alarm)
        assert (
            verdict.p_value == p_values(np.array([verdict.score]), held_out_of(rule))[0]
        )


def test_a_score_that_is_not_judged_need_not_be_finite():
    rule, states = rule_of(range(9)), [State.RUNNING, State.NO_SIGNAL]
    verdict = rule.judge("x.wav", [3.0, math.nan], [1.0, 1.0], states)
    assert (verdict.score, verdict.clips_text) == (
        3.0,
        "0 of 1 (not judged: 1 no signal)",
    )


def test_official_thresholds_apply_to_the_mean_of_all_clips():
    rule = DecisionRule("fan", 5.0, is_conformal=False)
    verdict = judge(rule, [1.0] * 6 + [6.0] * 6 + [2.0] * 6)
    assert (verdict.score, verdict.threshold, verdict.is_anomaly) == (3.0, 5.0, False)
    assert math.isnan(verdict.p_value)
    assert json.loads(json.dumps(verdict.entry(), allow_nan=False))["p_value"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused_by_name(bad):
    with pytest.raises(InputError, match=r"^x\.wav: the score is not finite"):
        judge(rule_of(range(9)), [1.0, bad])


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([20.0], "<= 0.1"),  # above all nine scores
        ([7.5], "0.2"),
        ([20.0] * 60, "<= 0.1"),
        ([20.0] * 12 + [0.0] * 48, "0.5"),  # in two of ten segments
    ],
)
def test_the_smallest_possible_p_value_is_shown_as_a_limit(scores, text):
    verdict = judge(rule_of(range(9)), scores)
    assert (verdict.p_text, verdict.n_recordings) == (text, 9.0)


def test_an_unknown_p_value_is_a_dash():
    assert judge(DecisionRule("fan", 5.0), [1.0]).p_text == "-"


def test_segments_leave_out_the_clips_in_which_the_machine_is_off():
    rule = rule_of(range(20))
    scores = np.arange(14.0) + 4
    states = [State.OFF if i in (0, 7) else State.RUNNING for i in range(14)]
    verdict = rule.judge("x.wav", scores.tolist(), [10.0] * 14, states)
    assert [(s.start, s.end) for s in verdict.segments] == [(10, 70), (80, 140)]
    means = [scores[1:7].mean(), scores[8:].mean()]
    assert [s.score for s in verdict.segments] == means
    expected = p_values(np.array(means), held_out_of(rule))
    assert [s.p_value for s in verdict.segments] == expected.tolist()
    off = rule.judge("x.wav", [30.0], [10.0], [State.OFF])
    assert off.segments == ()
    assert "segments" not in verdict.entry()
