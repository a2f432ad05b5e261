"""The divergence of Gammas and its derivatives, compared with SciPy in float64."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gammavae_jax.models.distributions import Gamma, Gaussian
from gammavae_jax.models.gamma_divergence import exponential_excess, gamma_divergence


def parameters(kind, n=300):
    """Return concentrations and rates of two Gammas, between 1e-3 and 1e3."""
    rng = np.random.default_rng(0)
    a, r, b, s = 10 ** rng.uniform(-3, 3, (4, n))
    near = 1 + 10 ** rng.uniform(-6, -1, (2, n)) * rng.choice([-1, 1], (2, n))
    if kind == "nearly equal":
        b, s = near * [a, r]
    if kind == "equal means":
        b = near[0] * a
        s = r * b / a
    return np.clip([a, r, b, s], 1e-3, 1e3).astype(np.float32)


def exact(a, r, b, s):
    """Return the divergence, its four derivatives, and the size of their terms."""
    a, r, b, s = (mpmath.mpf(float(x)) for x in (a, r, b, s))
    log_ratio, change = mpmath.log(r / s), (a - b) * mpmath.psi(1, a)
    digammas = mpmath.digamma(b) - mpmath.digamma(a)
    value = (a - b) * mpmath.digamma(a) - mpmath.loggamma(a) + mpmath.loggamma(b)
    value += b * log_ratio + a * (s / r - 1)
    derivatives = (
        change + s / r - 1,
        b / r - a * s / r**2,
        digammas + log_ratio,
        a / r - b / s,
    )
    sizes = abs(change) + abs(s / r - 1), b / r, abs(digammas) + abs(log_ratio), b / s
    return [float(x) for x in (value, *derivatives, *sizes)]


@pytest.mark.parametrize("kind", ["any", "nearly equal", "equal means"])
def test_the_divergence_and_its_derivatives_are_exact_over_the_whole_range(kind):
    values = parameters(kind)
    with mpmath.workdps(40):
        expected = np.array([exact(*x) for x in values.T])
    ours = gamma_divergence(*map(jnp.asarray, values))
    assert (expected[:, 0] > 0).all()
    np.testing.assert_allclose(ours, expected[:, 0], rtol=1e-5)
    derivatives = jax.vmap(jax.grad(gamma_divergence, (0, 1, 2, 3)))(*values)
    for k, derivative in enumerate(derivatives):
        error = np.abs(derivative - expected[:, 1 + k])
        assert (
            error < 1e-5 * np.abs(expected[:, 1 + k]) + 1e-6 * expected[:, 5 + k]
        ).all()


@pytest.mark.parametrize("concentration", [1e-3, 0.125, 1.0, 1000.0])
def test_equal_gammas_have_no_divergence_and_no_derivative(concentration):
    a = jnp.float32(concentration)
    value, derivatives = jax.value_and_grad(gamma_divergence, (0, 1))(a, a, a, a)
    assert (float(value), *map(float, derivatives)) == (0, 0, 0)


def test_nearly_equal_gammas_of_large_concentration_have_a_positive_divergence():
    """The textbook formula gives -5e-4 in float32."""
    one, other = jnp.array([1000.0]), jnp.array([1000.1])
    ours = Gamma(one, other).kl_to(Gamma(one, one))
    np.testing.assert_allclose(ours, 5e-6, rtol=1e-3)


@pytest.mark.parametrize("log_variance", [1e-6, -1e-4, 0.01, -0.9, 0.999, 3.0, -20.0])
def test_the_divergence_of_gaussians_does_not_cancel(log_variance):
    x, zero = jnp.float32([log_variance]), jnp.zeros(1)
    ours = Gaussian(zero, x).kl_to(Gaussian(zero, zero))
    expected = mpmath.expm1(float(x[0])) - float(x[0])
    np.testing.assert_allclose(ours, float(expected) / 2, rtol=1e-6)
    derivative = jax.grad(exponential_excess)(x[0])
    np.testing.assert_allclose(derivative, np.expm1(float(x[0])), rtol=1e-6)
