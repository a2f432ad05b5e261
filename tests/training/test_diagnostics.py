"""The diagnostics of posterior collapse, on codes with known results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax.config import ModelConfig
from gammavae_jax.models.autoencoder import ModelOutput
from gammavae_jax.models.distributions import Gamma, Gaussian, kl_to_prior
from gammavae_jax.training.diagnostics import (
    active_units,
    add_windows,
    kl_per_latent,
    no_moments,
)

CONFIG = ModelConfig(latent="gaussian", n_latent=4)
N = 96


def output_of(posterior, code=None):
    nothing = jnp.zeros((len(posterior.mean if code is None else code), 1))
    code = posterior.mean if code is None else code
    return ModelOutput(nothing, nothing, code, posterior)


def moments_of(posterior, config=CONFIG, n_batches=3):
    """Accumulate the moments over batches of equal size."""
    moments = no_moments(config)
    for batch in range(n_batches):
        part = type(posterior)(*(jnp.split(p, n_batches)[batch] for p in posterior))
        weight = jnp.ones(len(part.mean))
        moments = add_windows(moments, output_of(part), weight, config)
    return moments


def waves(amplitudes, offset=0.0):
    """Return sine waves as means; their variance is half the squared amplitude."""
    phase = 2 * jnp.pi * jnp.arange(N)[:, None] / N
    return offset + jnp.array(amplitudes) * jnp.sin(phase)


def test_a_latent_is_active_if_its_variance_exceeds_a_hundredth():
    # Variances of 0.5, 0.011, 0.009 and 0.
    means = waves([1.0, 0.148, 0.134, 0.0])
    moments = moments_of(Gaussian(means, jnp.zeros_like(means)))
    assert active_units(moments) == 2


@pytest.mark.parametrize("offset", [0.0, 900.0])
def test_moments_accumulated_over_batches_equal_those_of_all_windows(offset, key):
    means = offset + jax.random.normal(key(), (N, 4)) * jnp.array([1, 0.3, 0.1, 0.01])
    posterior = Gaussian(means, jax.random.normal(key(), (N, 4)))
    moments = moments_of(posterior)
    variance = np.asarray(means, np.float64).var(axis=0)
    np.testing.assert_allclose(moments.scatter / moments.count, variance, rtol=2e-2)
    np.testing.assert_allclose(moments.mean, means.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        kl_per_latent(moments), kl_to_prior(posterior, CONFIG).mean(axis=0), rtol=1e-4
    )


def test_a_collapsed_code_has_no_active_units_and_no_divergence():
    config = ModelConfig(n_latent=4, prior_concentration=2.0, prior_rate=3.0)
    prior = Gamma(jnp.full((N, 4), 2.0), jnp.full((N, 4), 3.0))
    moments = moments_of(prior, config)
    assert active_units(moments) == 0
    np.testing.assert_allclose(kl_per_latent(moments), 0, atol=1e-6)


def test_a_latent_that_ignores_the_window_is_inactive_even_far_from_its_prior():
    means = jnp.full((N, 4), 30.0)
    moments = moments_of(Gaussian(means, jnp.zeros_like(means)))
    assert active_units(moments) == 0
    np.testing.assert_allclose(kl_per_latent(moments), 450.0)


def test_padding_windows_do_not_change_the_diagnostics():
    means = waves([1.0, 0.0, 1.0, 0.0])
    used = Gaussian(means, jnp.zeros_like(means))
    padded = Gaussian(*(jnp.concatenate([p, jnp.full((32, 4), 50.0)]) for p in used))
    weight = jnp.concatenate([jnp.ones(N), jnp.zeros(32)])
    moments = add_windows(no_moments(CONFIG), output_of(padded), weight, CONFIG)
    assert active_units(moments) == 2
    np.testing.assert_allclose(kl_per_latent(moments), [0.25, 0, 0.25, 0], atol=1e-6)


def test_a_batch_of_padding_alone_changes_nothing():
    means = waves([1.0, 0.0, 1.0, 0.0])
    posterior = Gaussian(means, jnp.zeros_like(means))
    before = moments_of(posterior)
    after = add_windows(before, output_of(posterior), jnp.zeros(N), CONFIG)
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_deterministic_code_has_active_units_but_no_divergence():
    config = ModelConfig(latent="deterministic", n_latent=4)
    output = output_of(None, waves([1.0, 1.0, 1.0, 0.0]))
    moments = add_windows(no_moments(config), output, jnp.ones(N), config)
    assert active_units(moments) == 3
    np.testing.assert_array_equal(kl_per_latent(moments), jnp.zeros(4))


def test_without_windows_the_diagnostics_are_nan():
    moments = no_moments(CONFIG)
    assert jnp.isnan(active_units(moments))
    assert jnp.isnan(kl_per_latent(moments)).all()


@pytest.mark.parametrize("kl", ["report_eq2", "ancestor"])
def test_the_divergence_of_a_latent_is_exact_whatever_the_loss_uses(kl, key):
    posterior = Gamma(*jnp.exp(jax.random.normal(key(), (2, N, 4))))
    ours = moments_of(posterior, ModelConfig(n_latent=4, kl=kl))
    expected = moments_of(posterior, ModelConfig(n_latent=4))
    np.testing.assert_array_equal(kl_per_latent(ours), kl_per_latent(expected))
