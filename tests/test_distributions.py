"""The Gamma's sampler, its gradient and divergence, against SciPy and TFP."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from tensorflow_probability.substrates.jax import distributions as tfd

from gammavae_jax.distributions import Gamma, Gaussian

SHAPES = [1e-3, 0.01, 0.125, 0.5, 1.0, 3.0, 30.0, 1000.0]
N = 20_000


@pytest.fixture(scope="module")
def draws():
    """By concentration: draws z at rate 1, and dz/da."""
    shapes = jnp.broadcast_to(jnp.array(SHAPES)[:, None], (len(SHAPES), N))

    @jax.jit
    def sample_and_gradient(a):
        law = lambda a: Gamma(a, jnp.ones_like(a)).sample(jax.random.key(1))  # noqa: E731
        return jax.jvp(law, (a,), (jnp.ones_like(a),))

    z, dz = (np.asarray(x, np.float64) for x in sample_and_gradient(shapes))
    return {shape: (z[i], dz[i]) for i, shape in enumerate(SHAPES)}


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_draws_are_finite(draws, shape):
    z, dz = draws[shape]
    assert np.isfinite(z).all()
    assert np.isfinite(dz).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_of_the_mean_is_one(draws, shape):
    _, dz = draws[shape]
    assert abs(dz.mean() - 1.0) < 5 * dz.std() / N**0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_of_the_second_moment_is_two_a_plus_one(draws, shape):
    z, dz = draws[shape]
    gradient = 2 * z * dz
    error = gradient.std() / N**0.5
    assert abs(gradient.mean() - (2 * shape + 1)) < 5 * error


@pytest.mark.parametrize("shape", [0.01, 0.125, 0.5, 1.0, 3.0, 30.0])
def test_gradient_of_each_draw_matches_the_implicit_one_of_scipy(draws, shape):
    z, dz = (x[:500] for x in draws[shape])
    step = 1e-4 * shape
    # Where the density or the distribution function underflows there is no reference.
    ok = (z > 1e-25) & (scipy.special.gammaincc(shape, z) > 1e-6)
    upper, lower = (scipy.special.gammainc(shape + s, z[ok]) for s in (step, -step))
    reference = -(upper - lower) / (2 * step) / scipy.stats.gamma.pdf(z[ok], shape)
    np.testing.assert_allclose(dz[ok], reference, rtol=2e-3)


@pytest.mark.parametrize("shape", [0.125, 0.5, 1.0, 3.0])
def test_draws_follow_the_gamma_law(draws, shape):
    z, _ = draws[shape]
    assert scipy.stats.kstest(z, scipy.stats.gamma(shape).cdf).pvalue > 1e-3


def test_rate_gradient_is_that_of_a_scale(key):
    k = key()
    rate = jnp.array([0.5, 2.0])
    draw = lambda r: Gamma(jnp.full_like(r, 0.7), r).sample(k)  # noqa: E731
    z, dz = jax.jvp(draw, (rate,), (jnp.ones(2),))
    np.testing.assert_allclose(dz, -z / rate, rtol=1e-5)


def test_gamma_divergence_matches_tfp(key):
    a, r, b, s = jnp.exp(2 * jax.random.normal(key(), (4, 500)))
    expected = tfd.kl_divergence(tfd.Gamma(a, r), tfd.Gamma(b, s))
    np.testing.assert_allclose(
        Gamma(a, r).kl_to(Gamma(b, s)), expected, rtol=1e-4, atol=1e-4
    )


def test_gaussian_divergence_matches_tfp(key):
    m, v, n, w = jax.random.normal(key(), (4, 500))
    expected = tfd.kl_divergence(
        tfd.Normal(m, jnp.exp(v / 2)), tfd.Normal(n, jnp.exp(w / 2))
    )
    ours = Gaussian(m, v).kl_to(Gaussian(n, w))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_divergences_are_positive_and_zero_for_equals(key):
    a, r, b, s = jnp.exp(jax.random.normal(key(), (4, 500)))
    for law, prior in [
        (Gamma(a, r), Gamma(b, s)),
        (Gaussian(a, r), Gaussian(b, s)),
    ]:
        assert (law.kl_to(prior) > -1e-5).all()  # pyright: ignore
        np.testing.assert_allclose(law.kl_to(law), 0, atol=1e-6)  # pyright: ignore


def test_gaussian_draws_have_their_moments(key):
    law = Gaussian(jnp.full(N, 3.0), jnp.full(N, jnp.log(4.0)))
    z = law.sample(key())
    assert abs(z.mean() - 3.0) < 0.1
    assert abs(z.std() - 2.0) < 0.1


def test_a_broken_tfp_is_named_with_its_repair():
    program = (
        "import sys; sys.modules['tensorflow_probability'] = None\n"
        "import gammavae_jax.distributions"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    last = run.stderr.strip().splitlines()[-1]
    assert "pip uninstall -y tensorflow-probability tfp-nightly" in last
    assert "installed: tfp-nightly" in last
