"""The named divergences, compared with integrals and published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from scipy.special import digamma

from gammavae_jax.config import ModelConfig
from gammavae_jax.models.distributions import (
    Gamma,
    Gaussian,
    ancestor,
    divergence,
    kl_to_prior,
    report_eq2,
)

# Concentration and rate of the posterior, then of the prior.
PAIRS = [
    ((0.125, 0.125), (1.0, 1.0)),
    ((0.5, 2.0), (2.0, 1.0)),
    ((3.0, 0.7), (0.5, 3.0)),
    ((30.0, 10.0), (1.0, 1.0)),
]


def gammas(concentration, rate):
    return Gamma(*(jnp.atleast_1d(jnp.float32(p)) for p in (concentration, rate)))


def integrated(q, p):
    """Integrate `KL(q || p)` of SciPy distributions over the logarithm of the code."""

    def density(t):
        z = np.exp(t)
        return q.pdf(z) * z * (q.logpdf(z) - p.logpdf(z))

    low, high = np.log(q.ppf(1e-15)), np.log(q.isf(1e-15))
    return scipy.integrate.quad(density, low, high, limit=500)[0]


def scipy_gamma(concentration, rate):
    return scipy.stats.gamma(concentration, scale=1 / rate)


@pytest.mark.parametrize(("q", "p"), PAIRS)
def test_the_exact_divergence_is_the_integral_from_posterior_to_prior(q, p):
    expected = integrated(scipy_gamma(*q), scipy_gamma(*p))
    np.testing.assert_allclose(gammas(*q).kl_to(gammas(*p))[0], expected, rtol=1e-4)


@pytest.mark.parametrize(("q", "p"), PAIRS)
def test_the_ancestor_is_the_divergence_from_the_prior_with_parameters_swapped(q, p):
    expected = integrated(scipy_gamma(*p[::-1]), scipy_gamma(*q[::-1]))
    np.testing.assert_allclose(ancestor(gammas(*q), gammas(*p))[0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("alpha", "beta", "prior_alpha", "prior_beta", "expected"),
    [
        (0.125, 0.125, 2, 1, 0.9234282410449274),
        (0.5, 0.25, 2, 1, 0.45168436630190045),
        (2, 1, 2, 1, 0.0),
        (1, 2, 2, 1, 1.4635100260214235),
        (3, 0.7, 1, 1, 1.3186739449935296),
        (0.3, 4, 1.5, 2.5, 4.890093287523674),
    ],
)
def test_the_ancestor_equals_the_published_code(
    alpha, beta, prior_alpha, prior_beta, expected
):
    # From `vae_gamma_kl_loss` of AntixK/PyTorch-VAE (f71e454), in float64.
    ours = ancestor(gammas(alpha, beta), gammas(prior_alpha, prior_beta))
    np.testing.assert_allclose(ours[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "shape", "expected"),
    [
        (1, 1, 0),
        (2, 1, 0),
        (1, 2, -0.270),
        (2, 2, 1.116),
        (0.5, 0.5, 2.368),
        (8, 3, 9.065),
    ],
)
def test_equation_2_is_not_zero_for_a_posterior_equal_to_the_prior(
    scale, shape, expected
):
    equal = gammas(shape, 1 / scale)
    np.testing.assert_allclose(report_eq2(equal, equal)[0], expected, atol=6e-4)


def test_equation_2_is_the_printed_formula(key):
    a, b, c, d = np.exp(jax.random.normal(key(), (4, 500)))
    expected = (
        c * d / a + b * np.log(a) - np.log(c * d) - b
        + (b - 1) * (digamma(d) + np.log(c))
    )  # fmt: skip
    ours = report_eq2(Gamma(jnp.array(d), 1 / c), Gamma(jnp.array(b), 1 / a))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("concentration", "expected"),
    [(0.5, -3.2), (0.125, -8.3), (0.05, -19.5), (0.01, -98), (0.001, -996)],
)
def test_equation_2_is_unbounded_below_for_a_prior_of_shape_2(concentration, expected):
    ours = report_eq2(gammas(concentration, 8), gammas(2, 1))
    np.testing.assert_allclose(ours[0], expected, rtol=2e-2)


def test_equation_2_is_bounded_below_for_priors_of_shape_1_or_less(key):
    # The minimum is at large shapes and the mean `a (2 - b)`.
    posterior = Gamma(*jnp.exp(4 * jax.random.normal(key(), (2, 10_000))))
    for b, a in [(1.0, 1.0), (1.0, 3.0), (0.5, 1.0), (0.1, 2.0)]:
        least = (2 - b) + b * np.log(a) - (2 - b) * np.log(a * (2 - b)) - b
        values = report_eq2(posterior, gammas(b, 1 / a))
        assert values.min() > least - 1e-3


def test_equation_2_of_softmax_heads_is_smallest_for_the_uniform_code(key):
    # With the ancestor's prior: shape 1 and scale 2 in the report's notation.
    def of(scale, shape):
        return report_eq2(Gamma(shape, 1 / scale), gammas(1, 0.5)).sum(-1)

    uniform = jnp.full(8, 0.125)
    np.testing.assert_allclose(of(uniform, uniform), 30.88, atol=5e-3)
    others = jax.nn.softmax(jax.random.normal(key(), (2, 500, 8)))
    assert (of(*others) > of(uniform, uniform)).all()


def test_the_ancestor_is_zero_only_for_equal_gammas_and_is_not_the_divergence(key):
    q, p = (Gamma(*jnp.exp(jax.random.normal(key(), (2, 500)))) for _ in "qp")
    np.testing.assert_allclose(ancestor(q, q), 0, atol=1e-5)
    assert (ancestor(q, p) > 0).all()
    assert not np.allclose(ancestor(q, p), q.kl_to(p), rtol=0.1)
    assert not np.allclose(ancestor(q, p), p.kl_to(q), rtol=0.1)


@pytest.mark.parametrize(
    ("name", "function"),
    [("exact", Gamma.kl_to), ("report_eq2", report_eq2), ("ancestor", ancestor)],
)
def test_the_configuration_names_the_divergence(name, function, key):
    posterior = Gamma(*jnp.exp(jax.random.normal(key(), (2, 5, 4))))
    config = ModelConfig(kl=name, prior_concentration=0.5, prior_rate=3.0)
    prior = gammas(0.5, 3.0)
    np.testing.assert_allclose(
        divergence(posterior, config), function(posterior, prior), rtol=1e-6
    )
    np.testing.assert_allclose(
        kl_to_prior(posterior, config), posterior.kl_to(prior), rtol=1e-6
    )


def test_the_prior_of_a_gaussian_is_the_standard_normal(key):
    posterior = Gaussian(*jax.random.normal(key(), (2, 5, 4)))
    expected = posterior.kl_to(Gaussian(jnp.zeros((5, 4)), jnp.zeros((5, 4))))
    np.testing.assert_array_equal(divergence(posterior, ModelConfig()), expected)
