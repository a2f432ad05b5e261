"""Thresholds keep the false-alarm rate; p-values agree with them."""

import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gammavae_jax.config import ScoringConfig
from gammavae_jax.scoring.sample_size import clips_needed
from gammavae_jax.scoring.threshold import (
    conformal_threshold,
    fit_thresholds,
    gamma_threshold,
    p_values,
)


@pytest.mark.parametrize(("n", "rate"), [(9, 0.1), (19, 0.1), (40, 0.05), (99, 0.01)])
def test_false_alarms_stay_at_or_below_the_nominal_rate(n, rate):
    rng = np.random.default_rng(n)
    scores = rng.gamma(2.0, size=(20_000, n))
    new = rng.gamma(2.0, size=20_000)
    thresholds = np.array([conformal_threshold(row, rate) for row in scores])
    achieved = (new > thresholds).mean()
    error = 4 * (rate / 20_000) ** 0.5
    # The conformal bounds are rate - 1/(n+1) < achieved <= rate.
    assert rate - 1 / (n + 1) - error < achieved < rate + error


def test_the_threshold_of_nine_clips_at_ten_percent_is_the_largest_score():
    assert conformal_threshold(np.arange(9.0), 0.1) == 8.0
    assert conformal_threshold(np.arange(19.0), 0.1) == 17.0


def test_the_threshold_of_too_few_clips_is_the_largest_score():
    assert conformal_threshold(np.array([2.0, 5.0, 1.0]), 0.1) == 5.0


def test_the_gamma_threshold_matches_the_official_code(golden):
    stored = json.loads((golden / "evaluation.json").read_text())["threshold"]
    ours = gamma_threshold(np.array(stored["scores"]), 1 - stored["quantile"])
    np.testing.assert_allclose(ours, stored["threshold"], rtol=1e-6)


def test_the_gamma_threshold_of_equal_scores_is_their_value():
    assert gamma_threshold(np.full(5, 3.0), 0.1) == 3.0


few_values = st.integers(0, 6).map(float)  # with ties
rates = st.sampled_from([0.01, 0.05, 0.07, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9])


@settings(deadline=None)
@given(rates, st.data())
def test_a_p_value_is_at_most_the_rate_if_and_only_if_the_threshold_is_exceeded(
    rate, data
):
    least = clips_needed(rate)
    values = few_values | st.floats(-1e6, 1e6)
    some = st.lists(values, min_size=least, max_size=least + 40)
    held_out = np.array(data.draw(some))
    new = np.array(data.draw(st.lists(values, min_size=1, max_size=30)))
    new = np.concatenate([new, held_out])
    is_alarm = new > conformal_threshold(held_out, rate)
    np.testing.assert_array_equal(p_values(new, held_out) <= rate, is_alarm)


@pytest.mark.parametrize("n", [5, 9, 40])
@pytest.mark.parametrize("n_values", [3, 10**9], ids=["ties", "no ties"])
def test_p_values_of_normal_clips_are_not_smaller_than_uniform(n, n_values):
    rng = np.random.default_rng(n)
    n_trials = 20_000
    scores = rng.integers(n_values, size=(n_trials, n + 1)).astype(float)
    ours = np.array([p_values(row[:1], row[1:])[0] for row in scores])
    for level in (0.05, 0.1, 0.25, 0.5, 0.9):
        error = 4 * (level * (1 - level) / n_trials) ** 0.5
        assert (ours <= level).mean() < level + error
        if n_values > n:  # without ties, they are not larger than necessary either
            assert (ours <= level).mean() > level - 1 / (n + 1) - error


def test_a_p_value_is_the_share_of_scores_as_high_including_the_clip():
    held_out = np.array([3.0, 1.0, 2.0, 2.0])
    new = np.array([[0.0, 2.0], [2.5, 3.5]])
    np.testing.assert_allclose(p_values(new, held_out), [[1.0, 0.8], [0.4, 0.2]])


def test_a_gamma_threshold_of_scores_near_the_end_of_float32_is_finite():
    """In float32, the powers that the fit computes would overflow."""
    scores = np.random.default_rng(0).gamma(2.0, 1e19, 12)
    ours = gamma_threshold(scores.astype(np.float32), 0.1)
    np.testing.assert_allclose(ours, gamma_threshold(scores, 0.1), rtol=1e-4)


@pytest.mark.parametrize("shared", [1.0, 0.7])
@pytest.mark.parametrize("sizes", [[10] * 11, [30, 1, 20, 2, 10, 3, 10, 30, 5, 5, 15]])
def test_clips_of_new_recordings_keep_the_rate_only_if_weighted_by_recording(
    sizes, shared
):
    """`shared` is the share of the variance that a recording's clips have in common."""
    rng, rate, n_sets = np.random.default_rng(0), 0.1, 4000
    of_clip = np.repeat(np.arange(len(sizes)), sizes)
    weights = 1.0 / np.repeat(sizes, sizes)
    offsets = shared**0.5 * rng.standard_normal((n_sets, len(sizes)))
    own = (1 - shared + 1e-3) ** 0.5 * rng.standard_normal((n_sets, len(of_clip)))
    scores = offsets[:, of_clip] + own

    def real_rate(weights):
        thresholds = [conformal_threshold(row, rate, weights) for row in scores]
        each = scipy.stats.norm.sf(thresholds, scale=(1 + 1e-3) ** 0.5)
        return each.mean(), 4 * each.std() / n_sets**0.5

    weighted, error = real_rate(weights)
    assert rate - 1 / (len(sizes) + 1) - error < weighted < rate + error
    plain, error = real_rate(None)
    assert plain > rate + 2 * error


def test_p_values_of_clips_of_new_recordings_are_not_smaller_than_uniform():
    rng, n_sets, sizes = np.random.default_rng(1), 5000, [1, 8, 2, 4, 8, 4, 2, 1]
    of_clip, weights = np.repeat(np.arange(8), sizes), 1.0 / np.repeat(sizes, sizes)
    offsets = rng.standard_normal((n_sets, 9))
    own = 0.3 * rng.standard_normal((n_sets, len(of_clip) + 1))
    scores = offsets[:, [*of_clip, 8]] + own  # the last is a clip of a new recording
    ours = np.array([p_values(row[-1:], row[:-1], weights)[0] for row in scores])
    for level in (0.12, 0.25, 0.5, 0.9):
        error = 4 * (level * (1 - level) / n_sets) ** 0.5
        assert level - 1 / 9 - error < (ours <= level).mean() < level + error


@pytest.mark.parametrize("m", [2, 3, 7])
def test_copies_of_each_clip_change_nothing_if_they_share_its_weight(m):
    rng = np.random.default_rng(m)
    held_out, new = rng.gamma(2.0, size=25), rng.gamma(2.0, size=50)
    copies, weights = np.repeat(held_out, m), np.full(25 * m, 1 / m)
    for rate in (0.05, 0.1, 0.3):
        expected = conformal_threshold(held_out, rate)
        assert conformal_threshold(copies, rate, weights) == expected
    ours = p_values(new, copies, weights)
    np.testing.assert_allclose(ours, p_values(new, held_out), rtol=1e-12)


def test_a_weighted_p_value_is_the_weight_of_scores_as_high_including_the_clip():
    held_out, weights = np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.5, 1.0, 0.25, 0.75])
    ours = p_values(np.array([0.0, 2.0, 2.5, 3.5]), held_out, weights)
    np.testing.assert_allclose(ours, [1.0, 2.5 / 3.5, 1.5 / 3.5, 1 / 3.5])


@settings(deadline=None)
@given(rates, st.data())
def test_a_weighted_p_value_is_at_most_the_rate_if_and_only_if_there_is_an_alarm(
    rate, data
):
    """Each recording has a weight of 1, or less if it is linked to others."""
    least = clips_needed(rate)
    sizes = data.draw(st.lists(st.integers(1, 10), min_size=least, max_size=least + 20))
    loose = data.draw(st.lists(st.integers(1, 12), max_size=9))
    weights = 1.0 / np.array([size for size in sizes for _ in range(size)] + loose)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    held_out = rng.integers(data.draw(st.sampled_from([9, 10**6])), size=len(weights))
    new = np.concatenate([held_out, held_out + 0.5, [-1.0, 1e9]])
    is_alarm = new > conformal_threshold(held_out.astype(float), rate, weights)
    ours = p_values(new, held_out.astype(float), weights)
    np.testing.assert_array_equal(ours <= rate, is_alarm)


@pytest.mark.parametrize("m", [2, 3, 6, 7, 10])
@pytest.mark.parametrize(("n", "rate"), [(9, 0.1), (39, 0.1), (39, 0.05), (9, 0.3)])
def test_weights_that_add_up_to_whole_recordings_alarm_exactly_at_the_rate(m, n, rate):
    """Three times a third may differ from 1 in floating point."""
    held_out, weights = np.arange(float(m * n)), np.full(m * n, 1 / m)
    new = np.concatenate([held_out, held_out + 0.5])
    is_alarm = new > conformal_threshold(held_out, rate, weights)
    np.testing.assert_array_equal(p_values(new, held_out, weights) <= rate, is_alarm)
    # The weight above the threshold is the largest multiple of 1 / m that is allowed.
    n_above = np.floor(round(m * ((n + 1) * rate - 1), 9))
    assert is_alarm[: m * n].sum() == n_above


def test_fractions_of_a_recording_count_exactly():
    """Eight clips with a weight of a quarter count as two recordings."""
    ours = p_values(np.arange(9.0), np.arange(8.0), np.full(8, 0.25))
    np.testing.assert_allclose(ours, (1 + (8 - np.arange(9)) / 4) / 3, rtol=1e-9)


@pytest.mark.parametrize("kind", ["conformal", "gamma"])
def test_the_thresholds_of_machines_ignore_unknown_scores_and_each_other(kind):
    rng = np.random.default_rng(0)
    scores = rng.gamma(2.0, size=(2, 3, 40))
    scores[0, 1, 25:] = scores[1, 1, ::2] = np.nan
    scores[1, 2] = np.nan  # the model diverged
    weights = rng.choice([1.0, 0.5, 0.25], (3, 40))
    config = ScoringConfig(threshold=kind)
    ours = fit_thresholds({"mse": scores}, config, weights)["mse"]
    for seed, machine in np.ndindex(2, 3):
        known = ~np.isnan(scores[seed, machine])
        of_model = scores[seed, machine, known]
        if not known.any():
            expected = np.nan
        elif kind == "gamma":
            expected = gamma_threshold(of_model, 0.1)
        else:
            expected = conformal_threshold(of_model, 0.1, weights[machine, known])
        np.testing.assert_equal(ours[seed, machine], expected)
