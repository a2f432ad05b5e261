"""Whether a latent code has collapsed: what each latent tells of the windows.

A latent that the decoder does not need falls back to the prior: its divergence goes
to 0, and its posterior mean stays the same whatever the window.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from gammavae_jax.config import ModelConfig
from gammavae_jax.models.autoencoder import ModelOutput
from gammavae_jax.models.distributions import kl_to_prior

ACTIVE_VARIANCE = 0.01  # of a posterior mean over windows (Burda et al. 2016)


class LatentMoments(NamedTuple):
    """Of each latent over the windows so far; the KL divergence is the exact one."""

    count: Float[Array, ""]
    mean: Float[Array, "latent"]  # of the posterior means
    scatter: Float[Array, "latent"]  # sum of their squared deviations
    kl: Float[Array, "latent"]  # sum, nats


def no_moments(config: ModelConfig) -> LatentMoments:
    """The moments of no windows."""
    zeros = jnp.zeros(config.n_latent)
    return LatentMoments(jnp.zeros(()), zeros, zeros, zeros)


def add_windows(
    moments: LatentMoments,
    output: ModelOutput,
    weight: Float[Array, "window"],
    config: ModelConfig,
) -> LatentMoments:
    """Add the windows of weight 1 of an output in evaluation mode.

    Means and scatters are merged as by Chan, Golub and LeVeque (1983): sums of squares
    would drown a variance of 0.01 beside means of a few hundred.
    """
    n_new = weight.sum()
    count = moments.count + n_new
    share = weight / jnp.maximum(n_new, 1.0)
    mean = share @ output.code
    apart = mean - moments.mean
    fraction = n_new / jnp.maximum(count, 1.0)
    kl = jnp.zeros_like(output.code)
    if output.posterior is not None:
        kl = kl_to_prior(output.posterior, config)
    return LatentMoments(
        count,
        moments.mean + fraction * apart,
        moments.scatter
        + weight @ (output.code - mean) ** 2
        + moments.count * fraction * apart**2,
        moments.kl + weight @ kl,
    )


def kl_per_latent(moments: LatentMoments) -> Float[Array, "latent"]:
    """The mean divergence of each latent, NaN of no windows."""
    return moments.kl / moments.count


def active_units(moments: LatentMoments) -> Float[Array, ""]:
    """How many latents tell of the window, NaN of no windows.

    Those whose posterior mean varies over windows by more than `ACTIVE_VARIANCE`
    (Burda, Grosse and Salakhutdinov 2016).
    """
    variance = moments.scatter / moments.count
    n_active = jnp.sum(variance > ACTIVE_VARIANCE).astype(variance.dtype)
    return jnp.where(moments.count > 0, n_active, jnp.nan)
