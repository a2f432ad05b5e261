"""The number of segments that count, compared with SciPy and simulations."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from gammavae_jax.scoring.alarm_policy import AlarmPolicy
from gammavae_jax.scoring.alarm_rate import (
    cautious_correlation,
    chance_given_share,
    chance_of_alarm,
    expected_segments,
)
from gammavae_jax.scoring.verdict import Segment, Verdict


@pytest.mark.parametrize(
    ("rank", "n", "k", "of"),
    [(1, 9, 1, 1), (3, 20, 5, 6), (1, 50, 3, 3), (60, 300, 8, 12)],
)
def test_without_correlation_the_number_of_counting_segments_is_beta_binomial(
    rank, n, k, of
):
    expected = scipy.stats.betabinom.sf(k - 1, of, rank, n + 1 - rank)
    chance = chance_of_alarm(rank, float(n), 0.0, k, of)
    assert chance == pytest.approx(expected, rel=1e-6)
    assert chance_of_alarm(rank, float(n), 1e-9, k, of) == pytest.approx(chance, 1e-3)


def test_with_correlation_the_probability_matches_simulated_machines():
    """Calibration and new segments are drawn again for each machine."""
    rng, n_machines, correlation, rank = np.random.default_rng(0), 40_000, 0.4, 3
    held_out = np.sort(rng.standard_normal((n_machines, 19)))
    common = np.sqrt(correlation) * rng.standard_normal((n_machines, 1))
    own = np.sqrt(1 - correlation) * rng.standard_normal((n_machines, 6))
    counts = common + own > held_out[:, [-rank]]
    for k in (2, 4, 6):
        chance = chance_of_alarm(rank, 19.0, correlation, k, 6)
        share = np.mean(counts.sum(1) >= k)
        assert share == pytest.approx(chance, abs=4 * np.sqrt(chance / n_machines))


def test_there_are_fewer_alarms_than_windows_even_if_the_correlation_decays():
    """The normal scores follow an autoregressive process, not a common factor."""
    memory, noise = 0.8, np.random.default_rng(0).standard_normal(20_000)
    noise[1:] *= np.sqrt(1 - memory**2)
    scores = scipy.signal.lfilter([1.0], [1.0, -memory], noise)
    p_values = scipy.stats.norm.sf(scores).tolist()
    segments = [Segment(float(i), i + 1.0, 0.0, p) for i, p in enumerate(p_values)]
    for k, n, level in ((6, 9, 0.16), (12, 12, 0.3)):
        lags = np.arange(1, n)
        correlation = ((n - lags) * memory**lags).sum() * 2 / (n * (n - 1))
        verdict = Verdict("x", "fan", 0.0, 0.5, 1.0, segments=tuple(segments))
        alarms = AlarmPolicy(level, k, n).alarms([verdict])
        share = np.array([level])
        most = len(segments) * chance_given_share(share, float(correlation), k, n)[0]
        assert len(alarms) <= most
        assert len(alarms) > 20


@pytest.mark.parametrize("chance", [0.3, 0.9])
def test_the_wait_for_a_run_matches_its_closed_form(chance):
    for k in (1, 3, 12):
        expected = (1 - chance**k) / (chance**k * (1 - chance))
        assert expected_segments(k, k, chance) == pytest.approx(expected, rel=1e-6)


def test_the_wait_for_k_of_n_matches_simulations():
    rng = np.random.default_rng(0)
    counts = rng.random((20_000, 300)) < 0.4
    before = np.pad(counts, ((0, 0), (5, 0))).cumsum(1)
    waits = (before[:, 5:] - before[:, :-5] >= 3).argmax(1) + 1
    error = waits.std() / np.sqrt(len(waits))
    assert expected_segments(3, 5, 0.4) == pytest.approx(waits.mean(), abs=4 * error)
    assert expected_segments(3, 5, 0.0) == np.inf
    assert expected_segments(3, 5, 1.0) == pytest.approx(3)


def simulated(rng, n_recordings, n_segments, correlation):
    common = np.sqrt(correlation) * rng.standard_normal((n_recordings, 1))
    own = np.sqrt(1 - correlation) * rng.standard_normal((n_recordings, n_segments))
    return list(np.exp(common + own))  # ranks do not depend on the scale


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.7])
def test_the_correlation_within_a_recording_is_estimated(correlation):
    sequences = simulated(np.random.default_rng(0), 2000, 6, correlation)
    found = cautious_correlation(sequences, 2000.0, 6)
    assert correlation <= found <= correlation + 0.05


def test_an_uncertain_correlation_is_overestimated():
    rng = np.random.default_rng(0)
    draws = [simulated(rng, 20, 6, 0.3) for _ in range(200)]
    found = [cautious_correlation(sequences, 20.0, 6) for sequences in draws]
    assert np.mean(found) > 0.3
    assert np.mean(np.array(found) > 0.3) > 0.7


def test_a_single_sequence_counts_as_fewer_windows_than_recordings():
    """In 60 independent segments, only 5 windows of 12 do not overlap."""
    rng = np.random.default_rng(0)
    draws = [[rng.standard_normal(60)] for _ in range(50)]
    found = [cautious_correlation(sequence, 60.0, 12) for sequence in draws]
    assert min(found) == pytest.approx(np.sqrt(2 / (12 * 11 * 5)))


def test_a_correlation_stays_below_1():
    sequences = simulated(np.random.default_rng(0), 5, 6, 1.0)
    assert cautious_correlation(sequences, 5.0, 6) == 0.95


def test_recordings_of_one_segment_are_correlated_if_they_follow_each_other():
    rng = np.random.default_rng(0)
    slow = np.repeat(rng.standard_normal(100), 20) + rng.standard_normal(2000)
    near, far = (cautious_correlation([slow], 2000.0, n) for n in (2, 12))
    assert 0.45 < near < 0.55
    assert 0.3 < far < near  # `far` averages over longer distances
    assert cautious_correlation([rng.permutation(slow)], 2000.0, 12) < 0.02


def test_scores_without_order_or_variety_have_no_correlation():
    assert cautious_correlation([np.array([1.0])], 1.0, 12) == 0.0
    assert cautious_correlation([np.ones(30)], 30.0, 12) == 0.0
    assert cautious_correlation([np.arange(30.0)], 30.0, 1) == 0.0
