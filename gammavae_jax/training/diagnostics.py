"""Measures posterior collapse by each latent's divergence and activity.

A latent that the decoder does not need collapses to the prior: its divergence goes to
0, and its posterior mean no longer depends on the window.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from gammavae_jax.config import ModelConfig
from gammavae_jax.models.autoencoder import ModelOutput
from gammavae_jax.models.distributions import kl_to_prior

ACTIVE_VARIANCE = 0.01  # an active latent's mean varies more (Burda et al. 2016)


class LatentMoments(NamedTuple):
    """Each latent's moments and total divergence, over all windows added so far."""

    count: Float[Array, ""]
    mean: Float[Array, "latent"]  # of the posterior means
    scatter: Float[Array, "latent"]  # sum of their squared deviations
    kl: Float[Array, "latent"]  # sum of exact divergences, in nats


def no_moments(config: ModelConfig) -> LatentMoments:
    """Return the moments of an empty set of windows."""
    zeros = jnp.zeros(config.n_latent)
    return LatentMoments(jnp.zeros(()), zeros, zeros, zeros)


def add_windows(
    moments: LatentMoments,
    output: ModelOutput,
    weight: Float[Array, "window"],
    config: ModelConfig,
) -> LatentMoments:
    """Update the moments with the windows whose weight is 1.

    Means and scatters are merged as in Chan, Golub and LeVeque (1979). Plain sums of
    squares would lose a variance of 0.01 to rounding if the mean were a few hundred.
    """
    n_new = weight.sum()
    count = moments.count + n_new
    share = weight / jnp.maximum(n_new, 1.0)
    mean = share @ output.code
    shift = mean - moments.mean
    fraction = n_new / jnp.maximum(count, 1.0)
    kl = jnp.zeros_like(output.code)
    if output.posterior is not None:
        kl = kl_to_prior(output.posterior, config)
    return LatentMoments(
        count,
        moments.mean + fraction * shift,
        moments.scatter
        + weight @ (output.code - mean) ** 2
        + moments.count * fraction * shift**2,
        moments.kl + weight @ kl,
    )


def kl_per_latent(moments: LatentMoments) -> Float[Array, "latent"]:
    """Return each latent's mean divergence in nats, or NaN if there are no windows."""
    return moments.kl / moments.count


def active_units(moments: LatentMoments) -> Float[Array, ""]:
    """Count the latents that respond to the input, or return NaN without windows.

    A latent responds if the variance of its posterior mean over windows exceeds
    `ACTIVE_VARIANCE` (Burda, Grosse and Salakhutdinov 2016).
    """
    variance = moments.scatter / moments.count
    n_active = jnp.sum(variance > ACTIVE_VARIANCE).astype(variance.dtype)
    return jnp.where(moments.count > 0, n_active, jnp.nan)
