"""Thresholds keep the false-alarm rate; p-values agree with them."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gammavae_jax.config import Config, ScoringConfig, TrainConfig
from gammavae_jax.scoring.threshold import (
    clips_needed,
    conformal_threshold,
    gamma_threshold,
    p_values,
    too_few_clips,
)


@pytest.mark.parametrize(("n", "rate"), [(9, 0.1), (19, 0.1), (40, 0.05), (99, 0.01)])
def test_false_alarms_stay_at_or_below_the_nominal_rate(n, rate):
    rng = np.random.default_rng(n)
    scores = rng.gamma(2.0, size=(20_000, n))
    new = rng.gamma(2.0, size=20_000)
    thresholds = np.array([conformal_threshold(row, rate) for row in scores])
    achieved = (new > thresholds).mean()
    error = 4 * (rate / 20_000) ** 0.5
    # The conformal bound from both sides: rate - 1/(n+1) < achieved <= rate.
    assert rate - 1 / (n + 1) - error < achieved < rate + error


def test_the_threshold_of_nine_clips_at_ten_percent_is_the_largest_score():
    assert conformal_threshold(np.arange(9.0), 0.1) == 8.0
    assert conformal_threshold(np.arange(19.0), 0.1) == 17.0


def test_the_threshold_of_too_few_clips_is_the_largest_score():
    assert conformal_threshold(np.array([2.0, 5.0, 1.0]), 0.1) == 5.0


@pytest.mark.parametrize(("rate", "n"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.5, 1)])
def test_clips_needed_is_the_smallest_count_with_a_quantile(rate, n):
    assert clips_needed(rate) == n


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
def test_a_p_value_is_at_most_the_rate_exactly_if_the_threshold_is_exceeded(rate, data):
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
        if n_values > n:  # without ties they are not larger than necessary either
            assert (ours <= level).mean() > level - 1 / (n + 1) - error


def test_a_p_value_is_the_share_of_scores_as_high_including_the_clip():
    held_out = np.array([3.0, 1.0, 2.0, 2.0])
    new = np.array([[0.0, 2.0], [2.5, 3.5]])
    np.testing.assert_allclose(p_values(new, held_out), [[1.0, 0.8], [0.4, 0.2]])


def test_a_gamma_threshold_of_scores_near_the_end_of_float32_is_finite():
    """The powers that the fit computes would overflow."""
    scores = np.random.default_rng(0).gamma(2.0, 1e19, 12)
    ours = gamma_threshold(scores.astype(np.float32), 0.1)
    np.testing.assert_allclose(ours, gamma_threshold(scores, 0.1), rtol=1e-4)


ONE_EACH = np.arange(100)


@pytest.mark.parametrize(
    ("recording", "rate", "expected"),
    [
        (None, 0.01, "which needs 99 held-out clips: .* fan \\(80\\)"),
        (ONE_EACH, 0.01, "which needs 99 held-out clips: .* fan \\(80\\)"),
        (None, 0.1, ""),
        (ONE_EACH, 0.1, ""),
        # Five recordings cut into 100 clips; four of the recordings are held out.
        (ONE_EACH // 20, 0.01, "99 held-out recordings: .* \\(4\\)\\. Add recordings"),
        (ONE_EACH // 20, 0.1, "needs 9 held-out recordings: .* fan \\(4\\)"),
        (ONE_EACH // 20, 0.2, ""),
        (ONE_EACH * 0, 0.1, "held-out recordings: .* fan \\(1\\)"),  # a long one
        (ONE_EACH // 9, 0.1, ""),
    ],
)
def test_recordings_count_and_not_the_clips_cut_from_them(recording, rate, expected):
    config = Config(
        train=TrainConfig(n_folds=2),
        scoring=ScoringConfig(false_alarm_rate=rate),
        n_seeds=2,
    )
    held_out = np.zeros((4, 1, 110), bool)  # with padding, and a second seed
    held_out[0, 0, :40] = held_out[1, 0, 40:80] = held_out[2:, 0, :100] = True
    note = too_few_clips(held_out, [recording], ["fan"], config)
    assert re.search(expected, note)
    assert bool(note) == bool(expected)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_note_on_too_few_clips_counts_those_of_one_seed(tiny, n_seeds):
    config = tiny("default", f"n_seeds={n_seeds}", "scoring.false_alarm_rate=0.1")
    fold = np.arange(9) % 2 == 0
    is_clip = np.array([np.arange(9) < 8, np.arange(9) < 9])  # nine clips are needed
    held_out = np.stack([is_clip & fold, is_clip & ~fold] * n_seeds)
    note = too_few_clips(held_out, [None, None], ["eight", "nine"], config)
    assert "needs 9 held-out clips" in note
    assert "for eight (8). Add clips." in note
    assert too_few_clips(held_out[:, 1:], [None], ["nine"], config) == ""
