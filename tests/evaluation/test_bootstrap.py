import math

import numpy as np
import pytest

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.bootstrap import bootstrap
from gammavae_jax.evaluation.metrics import SectionScores, evaluate_section
from gammavae_jax.evaluation.official import official_score

TOLERANCE = 1e-12


def four_strata(seed, n_each=25):
    """Scores with ties for `n_each` clips of each label and domain."""
    rng = np.random.default_rng(seed)
    is_anomaly = np.repeat([False, True, False, True], n_each)
    is_target = np.repeat([False, False, True, True], n_each)
    scores = rng.normal(size=4 * n_each) + is_anomaly + 0.5 * is_target
    return scores.round(1), is_anomaly, is_target


def assert_same(left, right):
    np.testing.assert_allclose(left, right, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("year", [2020, 2021, 2022, 2026])
def test_every_resample_of_clips_drawn_once_has_the_official_score(year, monkeypatch):
    class DrawEachClipOnce:
        def multinomial(self, n, pvals, size):
            return np.ones((size, n))

    clips = [four_strata(8, n_each=11), four_strata(9)]
    monkeypatch.setattr(np.random, "default_rng", lambda seed: DrawEachClipOnce())
    sections = [SectionScores(f"m{k}", "00", *c) for k, c in enumerate(clips)]
    expected = official_score([evaluate_section(*c, year=year) for c in clips], year)
    found = bootstrap(sections, year=year, n_resamples=3)
    assert_same(found, (expected, 0, expected, expected))


def test_bootstrap_is_centred_and_reproducible():
    clips = four_strata(10, n_each=50)
    order = np.random.default_rng(0).permutation(200)
    sections = [SectionScores("fan", "00", *clips), SectionScores("pump", "00", *clips)]
    shuffled = [s._replace(scores=clips[0][order]) for s in reversed(sections)]
    shuffled = [
        s._replace(is_anomaly=clips[1][order], is_target=clips[2][order])
        for s in shuffled
    ]
    found = bootstrap(sections, seed=3)
    assert_same(found, bootstrap(shuffled, seed=3))
    assert found != bootstrap(sections, seed=4)
    assert found.low < found.mean < found.high
    score = official_score([evaluate_section(*clips)])
    assert abs(found.mean - score) < found.std < 0.05
    assert 3 < (found.high - found.low) / found.std < 5


def test_bootstrap_of_separable_scores_has_no_spread():
    scores, is_anomaly, is_target = four_strata(11)
    section = SectionScores(
        "fan", "00", scores + 100 * is_anomaly, is_anomaly, is_target
    )
    assert_same(bootstrap([section]), (1, 0, 1, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores, is_anomaly, is_target = four_strata(12)
    scores[7] = value
    with pytest.raises(InputError, match=r"fan section 02: the score of clip 7 is"):
        bootstrap([SectionScores("fan", "02", scores, is_anomaly, is_target)])


def test_nothing_to_bootstrap_is_refused():
    with pytest.raises(InputError, match="no sections"):
        bootstrap([])


@pytest.mark.parametrize("n_resamples", [-1, 0, 1])
def test_resamples_without_a_spread_are_refused(n_resamples):
    section = SectionScores("fan", "00", *four_strata(17))
    with pytest.raises(InputError, match="give at least 2"):
        bootstrap([section], n_resamples=n_resamples)
