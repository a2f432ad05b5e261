"""The pooling of window errors into a clip's score, compared with NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax.scoring import residuals

RULES = [residuals.mean, residuals.largest, residuals.top, residuals.ranked]


def pool(rule, values, n_padding=0, padding=99.0):
    """Apply a pooling rule to the values, with padding windows among them."""
    weight = np.concatenate([np.ones(len(values)), np.zeros(n_padding)])
    padded = np.concatenate([values, np.full(n_padding, padding)])
    order = np.random.default_rng(len(values)).permutation(len(padded))
    return float(rule(jnp.float32(padded[order]), jnp.float32(weight[order])))


@pytest.fixture
def values():
    return np.random.default_rng(0).gamma(2.0, size=309)


def test_the_mean_and_the_largest_value_equal_those_of_numpy(values):
    np.testing.assert_allclose(pool(residuals.mean, values), values.mean(), rtol=1e-6)
    np.testing.assert_allclose(pool(residuals.largest, values), values.max(), rtol=1e-6)


@pytest.mark.parametrize(("n", "count"), [(309, 31), (310, 31), (311, 32), (4, 1)])
def test_the_top_score_is_the_mean_of_the_largest_tenth(values, n, count):
    values = np.resize(values, n)
    expected = np.sort(values)[-count:].mean()
    np.testing.assert_allclose(pool(residuals.top, values), expected, rtol=1e-5)


def test_the_weight_of_a_window_in_a_ranked_score_falls_with_its_rank(values):
    expected = np.average(np.sort(values)[::-1], weights=0.98 ** np.arange(309))
    np.testing.assert_allclose(pool(residuals.ranked, values), expected, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("padding", [99.0, -99.0, 0.0])
def test_padding_windows_do_not_change_a_pooled_score(values, rule, padding):
    ours = pool(rule, values, 80, padding)
    np.testing.assert_allclose(ours, pool(rule, values), rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_negative_values_are_pooled_like_positive_ones(values, rule):
    shifted = pool(rule, values - 50.0, 80)
    np.testing.assert_allclose(shifted, pool(rule, values) - 50.0, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_a_pooled_score_without_windows_is_zero(rule):
    assert pool(rule, np.zeros(0), 5) == 0.0


@pytest.mark.parametrize(
    ("constant", "rule", "value", "limit"),
    [
        ("RANK_DECAY", residuals.ranked, 1.0, residuals.mean),
        ("RANK_DECAY", residuals.ranked, 0.0, residuals.largest),
        ("TOP_FRACTION", residuals.top, 1.0, residuals.mean),
        ("TOP_FRACTION", residuals.top, 0.0, residuals.largest),
    ],
)
def test_top_and_ranked_lie_between_the_mean_and_the_largest(
    values, monkeypatch, constant, rule, value, limit
):
    assert pool(residuals.mean, values) < pool(rule, values)
    assert pool(rule, values) < pool(residuals.largest, values)
    monkeypatch.setattr(residuals, constant, value)
    np.testing.assert_allclose(pool(rule, values), pool(limit, values), rtol=1e-5)
