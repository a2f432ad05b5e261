"""Intervals of shares and of the AUC, against SciPy, closed forms and simulations."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from support.labelled_scores import assert_close, four_strata

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.intervals import RocArea, Share, bootstrap, roc_area
from gammavae_jax.evaluation.metrics import SectionScores, auc, evaluate_section
from gammavae_jax.evaluation.official import official_score

Z = 1.959963984540054
groups = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12).map(np.array)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(counts):
    expected = scipy.stats.binomtest(*counts).proportion_ci(method="exact")
    np.testing.assert_allclose(Share(*counts).interval, expected, atol=1e-12)


def test_a_share_of_another_total_keeps_its_rate():
    scaled = Share(3, 12).of_total(40)
    assert scaled == (10.0, 40)
    np.testing.assert_allclose(scaled.interval, Share(10, 40).interval)


@given(groups, groups)
def test_the_area_is_the_auc_and_its_interval_is_symmetric(normal, faulty):
    area = roc_area(normal, faulty)
    is_faulty = np.repeat([False, True], [len(normal), len(faulty)])
    expected = auc(np.concatenate([normal, faulty]), is_faulty)
    assert area.value == pytest.approx(expected, abs=1e-12)
    low, high = area.interval
    assert 0 <= low <= area.value <= high <= 1
    swapped = roc_area(faulty, normal)
    np.testing.assert_allclose(swapped.interval, [1 - high, 1 - low], atol=1e-7)


@pytest.mark.parametrize("scores", [(0.0, 1.0), (1.0, 0.0)])
def test_the_interval_of_a_single_pair_is_wilsons(scores):
    """For one pair, Newcombe's variance is binomial, as in Wilson's equation."""
    normal, faulty = (np.array([score]) for score in scores)
    test = scipy.stats.binomtest(int(faulty[0] > normal[0]), 1)
    expected = test.proportion_ci(method="wilson")
    np.testing.assert_allclose(roc_area(normal, faulty).interval, expected, atol=1e-7)


def hanley_mcneil(area, n_normal, n_faulty):
    """Return the variance, by the formula in the paper."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    total = area * (1 - area)
    total += (n_faulty - 1) * (q1 - area**2) + (n_normal - 1) * (q2 - area**2)
    return total / (n_normal * n_faulty)


def test_the_limits_are_1_96_standard_errors_of_hanley_and_mcneil_away():
    # The example in their paper has 58 normal and 51 abnormal images.
    assert hanley_mcneil(0.893, 58, 51) ** 0.5 == pytest.approx(0.032, abs=6e-4)
    for value in (0.3, 0.6, 0.893, 0.99, 1.0):
        for n in (4, 20, 100):
            for limit in RocArea(value, n, n, 0.0, 0.0).interval:
                error = hanley_mcneil(limit, n, n) ** 0.5
                assert abs(limit - value) == pytest.approx(Z * error, abs=1e-7)


def test_a_perfect_area_has_the_lower_limit_that_solves_the_equation():
    for n in (3, 10, 50):
        (low, high) = RocArea(1.0, n, n, 0.0, 0.0).interval
        assert high == 1
        # Both sides are divided by sqrt(1 - area), to remove the solution 1.
        expected = scipy.optimize.brentq(
            lambda a, n=n: (
                (1 - a) ** 0.5 - Z * (hanley_mcneil(a, n, n) / (1 - a)) ** 0.5
            ),
            0.01,
            1 - 1e-12,
        )
        assert low == pytest.approx(expected, abs=1e-7)
    assert RocArea(1.0, 10, 10, 0.0, 0.0).interval[0] == pytest.approx(0.8002, abs=1e-4)


def mixed(rng, n_normal, n_faulty, share=0.5):
    """Return scores; `share` of the faults are obvious, and the others look normal."""
    faulty = rng.normal(size=n_faulty)
    faulty[rng.random(n_faulty) < share] += 20
    return rng.normal(size=n_normal), faulty


def test_the_interval_is_that_of_a_stratified_bootstrap_if_recordings_are_many():
    normal, faulty = mixed(np.random.default_rng(0), 150, 100)
    expected = scipy.stats.bootstrap(
        (normal, faulty),
        lambda a, b: roc_area(a, b).value,
        n_resamples=2000,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(roc_area(normal, faulty).interval, expected, atol=0.012)


def binormal(area, deviation):
    shift = scipy.stats.norm.ppf(area) * (1 + deviation**2) ** 0.5
    return lambda rng, n, m: (rng.normal(size=n), rng.normal(shift, deviation, m))


DISTRIBUTIONS = [
    (binormal(0.8, 1.0), 0.8, (20, 10)),
    (binormal(0.97, 1.0), 0.97, (20, 5)),
    (binormal(0.9, 3.0), 0.9, (200, 8)),
    (binormal(0.9, 0.3), 0.9, (10, 30)),
    (mixed, 0.75, (20, 10)),
    (lambda rng, n, m: mixed(rng, n, m, 0.8), 0.9, (200, 8)),
]


@pytest.mark.parametrize(("draw", "area", "sizes"), DISTRIBUTIONS)
def test_the_interval_covers_the_area_in_95_percent_of_samples(draw, area, sizes):
    """The interval may cover more; either variance alone sometimes covers less."""
    rng, n_samples = np.random.default_rng(sum(sizes)), 400
    intervals = [roc_area(*draw(rng, *sizes)).interval for _ in range(n_samples)]
    covered = np.mean([low <= area <= high for low, high in intervals])
    assert covered > 0.95 - 3 * (0.95 * 0.05 / n_samples) ** 0.5
    assert np.mean(np.diff(intervals)) < 0.6  # it does not cover everything


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
    assert_close(found, (expected, 0, expected, expected))


def test_bootstrap_is_centred_and_reproducible():
    clips = four_strata(10, n_each=50)
    order = np.random.default_rng(0).permutation(200)
    sections = [SectionScores("fan", "00", *clips), SectionScores("pump", "00", *clips)]
    mixed = [array[order] for array in clips]
    shuffled = [SectionScores(name, "00", *mixed) for name in ("pump", "fan")]
    found = bootstrap(sections, seed=3)
    assert_close(found, bootstrap(shuffled, seed=3))
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
    assert_close(bootstrap([section]), (1, 0, 1, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores, is_anomaly, is_target = four_strata(12)
    scores[7] = value
    with pytest.raises(InputError, match=r"fan section 02: the score of clip 7 is"):
        bootstrap([SectionScores("fan", "02", scores, is_anomaly, is_target)])


def test_a_bootstrap_without_sections_is_refused():
    with pytest.raises(InputError, match="at least one section"):
        bootstrap([])


@pytest.mark.parametrize("n_resamples", [-1, 0, 1])
def test_fewer_than_two_resamples_are_refused(n_resamples):
    section = SectionScores("fan", "00", *four_strata(17))
    with pytest.raises(InputError, match="use at least 2"):
        bootstrap([section], n_resamples=n_resamples)
