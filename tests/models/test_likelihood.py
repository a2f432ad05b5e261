"""Power likelihoods, compared with SciPy's densities in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from gammavae_jax.models.likelihood import (
    POWER,
    SCALE,
    Concentrations,
    TrainedConcentrations,
    concentrations_of,
    deviance_residual,
    half_deviance,
    negative_log_likelihood,
)

LIKELIHOODS = ["gamma", "f"]


def cells(likelihood, largest=15.0):
    """Return log ratios, and concentrations over the whole trained range."""
    rng = np.random.default_rng(0)

    def within(bounds):
        return np.exp(rng.uniform(np.log(bounds.least), np.log(bounds.most), 2000))

    power, scale = jnp.asarray(within(POWER)), jnp.asarray(within(SCALE))
    log_ratio = jnp.asarray(rng.uniform(-largest, largest, 2000))
    return log_ratio, Concentrations(power, scale if likelihood == "f" else None)


def scipy_density(log_ratio, concentrations):
    """Return minus the log density of the log ratio, in float64."""
    log_ratio = np.asarray(log_ratio, np.float64)
    k, ratio = np.asarray(concentrations[0], np.float64), np.exp(log_ratio)
    if concentrations[1] is None:
        return -scipy.stats.gamma.logpdf(ratio, k, scale=1 / k) - log_ratio
    a = np.asarray(concentrations[1], np.float64)
    return -scipy.stats.f.logpdf(ratio, 2 * k, 2 * a) - log_ratio


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_likelihood_is_scipys_density_of_the_log_power(likelihood):
    with jax.enable_x64(True):
        given = cells(likelihood)
        assert given[0].dtype == jnp.float64
        ours = negative_log_likelihood(*given)
        np.testing.assert_allclose(ours, scipy_density(*given), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_float32_is_enough_for_the_likelihood(likelihood):
    given = cells(likelihood)
    ours = negative_log_likelihood(*given)
    np.testing.assert_allclose(ours, scipy_density(*given), rtol=2e-5, atol=2e-5)


def test_an_f_likelihood_with_a_steady_scale_is_a_gamma_likelihood():
    with jax.enable_x64(True):
        log_ratio, (power, _) = cells("gamma", largest=3.0)
        steady = Concentrations(power, jnp.full_like(power, 1e8))
        for function in (negative_log_likelihood, deviance_residual):
            ours = function(log_ratio, steady)
            expected = function(log_ratio, Concentrations(power, None))
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def slope(log_ratio, concentrations):
    """Return each cell's derivative with respect to the log of the mean power."""

    def total(log_ratio):
        return negative_log_likelihood(log_ratio, concentrations).sum()

    return -jax.grad(total)(log_ratio)


def test_the_slope_of_an_f_likelihood_is_bounded_by_its_concentrations():
    log_ratio, (k, a) = cells("f", largest=200.0)
    assert a is not None
    found = np.asarray(slope(log_ratio, Concentrations(k, a)))
    assert (found >= -a * (1 + 1e-4)).all()
    assert (found <= k * (1 + 1e-4)).all()
    # k - (k + a) k r / (k r + a), written so that nothing overflows.
    share = jax.nn.sigmoid(log_ratio + jnp.log(k / a))
    np.testing.assert_allclose(found, k - (k + a) * share, rtol=2e-3, atol=2e-3)


def test_the_slope_of_a_gamma_likelihood_is_proportional_to_the_excess_power():
    log_ratio, given = cells("gamma", largest=10.0)
    expected = -given.power * jnp.expm1(log_ratio)
    np.testing.assert_allclose(slope(log_ratio, given), expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(slope(jnp.full_like(log_ratio, 200.0), given)).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_match_scipys_density(likelihood):
    """Compare automatic differentiation with central differences, both in float64."""
    with jax.enable_x64(True):
        log_ratio, given = cells(likelihood, largest=5.0)
        leaves, tree = jax.tree.flatten((log_ratio, given))

        def total(*leaves):
            return negative_log_likelihood(*jax.tree.unflatten(tree, leaves)).sum()

        found = jax.grad(total, tuple(range(len(leaves))))(*leaves)
        for i, gradient in enumerate(found):
            step = 1e-5 * np.maximum(np.abs(leaves[i]), 1.0)
            values = [
                scipy_density(
                    *jax.tree.unflatten(tree, [*leaves[:i], moved, *leaves[i + 1 :]])
                )
                for moved in (leaves[i] + step, leaves[i] - step)
            ]
            expected = (values[0] - values[1]) / (2 * step)
            np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_residuals_are_the_signed_roots_of_the_published_deviance(likelihood):
    """`sign(log r) sqrt(2 [(k + a) log((k r + a) / (k + a)) - k log r])`."""
    with jax.enable_x64(True):
        log_ratio, given = cells(likelihood, largest=10.0)
        k, r = given.power, jnp.exp(log_ratio)
        half = k * (r - 1 - log_ratio)
        if (a := given.scale) is not None:
            half = (k + a) * jnp.log((k * r + a) / (k + a)) - k * log_ratio
        expected = jnp.sign(log_ratio) * jnp.sqrt(2 * half)
        found = deviance_residual(log_ratio, given)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_near_the_mean_power_a_residual_is_linear_in_the_log_ratio(likelihood):
    """The deviance of a tiny log ratio may be smaller than a rounding error."""
    tiny = np.float32(10.0) ** np.arange(-12, -2, dtype=np.float32)
    log_ratio = jnp.asarray(np.concatenate([-tiny, [0.0], tiny]).astype(np.float32))
    for power in (POWER.least, 1.0, POWER.most):
        scale = jnp.array(10.0) if likelihood == "f" else None
        given = Concentrations(jnp.array(power), scale)
        found = np.asarray(deviance_residual(log_ratio, given))
        curvature = power if scale is None else power * 10.0 / (power + 10.0)
        np.testing.assert_allclose(found, np.sqrt(curvature) * log_ratio, atol=2e-4)
        assert (np.sign(found) * np.sign(log_ratio) >= 0).all()
        assert np.isfinite(slope(log_ratio, given)).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_cell_at_its_mean_power_has_no_deviance_and_others_have_some(likelihood):
    log_ratio, given = cells(likelihood)
    at_mean = half_deviance(jnp.zeros_like(log_ratio), given)
    np.testing.assert_array_equal(at_mean, 0.0)
    assert (np.asarray(half_deviance(log_ratio, given)) > 0).all()


@pytest.mark.parametrize("scale", [None, 20.0])
@pytest.mark.parametrize("power", [1.0, 2.0, 5.0])
def test_residuals_of_simulated_power_are_about_standard_normal(power, scale):
    rng = np.random.default_rng(1)
    ratio = rng.gamma(power, 1 / power, 100_000)
    if scale is not None:
        ratio /= rng.gamma(scale, 1 / scale, ratio.shape)
    given = Concentrations(
        jnp.array(power), None if scale is None else jnp.array(scale)
    )
    found = np.asarray(deviance_residual(jnp.log(jnp.asarray(ratio)), given))
    # Deviance residuals of a skewed distribution have a mean of about -1/(3 sqrt(k)).
    assert -0.4 / np.sqrt(power) < found.mean() < -0.2 / np.sqrt(power)
    assert 0.9 < np.mean(found**2) < 1.2
    assert 0.9 < found.std() < 1.1
    assert abs(scipy.stats.skew(found)) < 0.1


def test_the_mean_squared_residual_matches_the_density():
    given = Concentrations(jnp.array(1.5), jnp.array(8.0))

    def deviance(log_ratio):
        with jax.enable_x64(True):
            return float(2 * half_deviance(jnp.array([log_ratio]), given)[0])

    expected, _ = scipy.integrate.quad(
        lambda x: deviance(x) * np.exp(-scipy_density(x, (1.5, 8.0))), -40, 20
    )
    ratio = scipy.stats.f.rvs(3.0, 16.0, size=200_000, random_state=2)
    found = deviance_residual(jnp.log(jnp.asarray(ratio, jnp.float32)), given)
    assert np.mean(np.asarray(found) ** 2) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("has_scale", [False, True])
def test_trained_concentrations_start_as_documented_and_stay_within_bounds(has_scale):
    model = TrainedConcentrations(4, has_scale)
    variables = model.init(jax.random.key(0))
    params: Any = variables["params"]
    started = concentrations_of(params)
    np.testing.assert_allclose(started.power, POWER.initial, rtol=1e-4)
    assert (started.scale is not None) == has_scale
    for size in (-1e3, 1e3):
        far = concentrations_of({n: leaf + size for n, leaf in params.items()})
        for values, bounds in zip(far, (POWER, SCALE), strict=True):
            if values is not None:
                expected = bounds.least if size < 0 else bounds.most
                np.testing.assert_allclose(values, expected)
