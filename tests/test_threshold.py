"""The threshold keeps its promise."""

import json

import numpy as np
import pytest

from gammavae_jax.threshold import (
    clips_needed,
    conformal_threshold,
    gamma_threshold,
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


def test_nine_clips_give_their_largest_score_for_ten_percent():
    assert conformal_threshold(np.arange(9.0), 0.1) == 8.0
    assert conformal_threshold(np.arange(19.0), 0.1) == 17.0


def test_too_few_clips_give_their_largest_score():
    assert conformal_threshold(np.array([2.0, 5.0, 1.0]), 0.1) == 5.0


@pytest.mark.parametrize(("rate", "n"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.5, 1)])
def test_clips_needed_is_where_the_quantile_begins_to_exist(rate, n):
    assert clips_needed(rate) == n


def test_gamma_threshold_matches_the_official_code(golden):
    stored = json.loads((golden / "evaluation.json").read_text())["threshold"]
    ours = gamma_threshold(np.array(stored["scores"]), 1 - stored["quantile"])
    np.testing.assert_allclose(ours, stored["threshold"], rtol=1e-6)


def test_scores_all_alike_are_their_own_gamma_threshold():
    assert gamma_threshold(np.full(5, 3.0), 0.1) == 3.0
