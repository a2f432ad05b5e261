"""The derivative of a Gamma sample, compared with JAX's own in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gammavae_jax.models.gamma_gradient import log_draw_derivative

EVERY_SCALE = [1e-3, 0.01, 0.1, 0.5, 0.99, 1.0, 1.5, 3.0, 10.0, 100.0, 355.0, 1000.0]
QUANTILES = [1e-6, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1 - 1e-6]


def draws(concentration):
    """Return log samples at the quantiles that float64 can represent, in float32."""
    z = scipy.special.gammaincinv(concentration, QUANTILES)
    return np.log(z[z > 1e-300]).astype(np.float32)


@pytest.mark.parametrize("concentration", EVERY_SCALE)
def test_the_derivative_matches_jaxs_iteration_in_float64(concentration):
    log_z = draws(concentration)
    a = np.full_like(log_z, concentration)
    ours = log_draw_derivative(jnp.asarray(a), jnp.asarray(log_z))
    with jax.enable_x64(True):
        z = jnp.exp(jnp.asarray(log_z, jnp.float64))
        exact = jax.lax.random_gamma_grad(jnp.asarray(a, jnp.float64), z) / z  # pyright: ignore
        exact = np.asarray(exact)
    # For lower samples, JAX's derivative fails, even in float64.
    held = log_z > -200
    rtol = 8e-6 if concentration <= 100 else 2e-5
    np.testing.assert_allclose(ours[held], exact[held], rtol=rtol)


@pytest.mark.parametrize("concentration", [1e-3, 0.01, 0.125, 1.0])
def test_the_derivative_of_underflowing_samples_matches_the_lower_tail(
    concentration,
):
    log_z = np.array([-50, -1000, -1e5], np.float32)
    # In the lower tail, F(z) = z^a / Gamma(a + 1), which is solved for log z.
    exact = (scipy.special.digamma(concentration + 1) - log_z) / concentration
    ours = log_draw_derivative(jnp.full(3, concentration), jnp.asarray(log_z))
    np.testing.assert_allclose(ours, exact, rtol=1e-6)


def test_the_derivative_is_continuous_where_the_two_methods_meet():
    a = jnp.asarray(EVERY_SCALE)
    below, above = (log_draw_derivative(a, jnp.full_like(a, s)) for s in (-1e-7, 1e-7))
    np.testing.assert_allclose(below, above, rtol=1e-5)


def test_the_derivative_is_finite_and_positive_for_every_possible_sample():
    a = np.float32(10) ** np.linspace(-3, 3, 61, dtype=np.float32)
    # From where `z` underflows up to eight standard deviations above the mean.
    log_z = np.linspace(-1e4, 8, 2001, dtype=np.float32)
    ours = log_draw_derivative(*(jnp.asarray(x) for x in np.meshgrid(a, log_z)))
    z = np.exp(log_z)[:, None]
    near = z < a + 8 * np.sqrt(a) + 16
    assert np.isfinite(ours).all()
    assert (np.asarray(ours)[near] > 0).all()
