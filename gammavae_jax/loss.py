"""The terms of the training loss, by name and for each window."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from gammavae_jax.config import ModelConfig
from gammavae_jax.distributions import Gamma, Gaussian
from gammavae_jax.model import ModelOutput


class LossTerms(NamedTuple):
    """One number a window: squared error in dB^2, KL divergence in nats."""

    reconstruction: Float[Array, "*window"]
    kl: Float[Array, "*window"]


def loss_terms(
    output: ModelOutput, windows: Float[Array, "window feature"], config: ModelConfig
) -> LossTerms:
    """Squared error, mean over features; KL to the prior, sum over latents.

    The divergence is the exact `KL(posterior || prior)`: Eq. 2 of the report is no
    divergence (it is negative where the two agree). It is 0 for a deterministic code.
    """
    reconstruction = jnp.mean((output.reconstruction - windows) ** 2, axis=-1)
    if isinstance(output.posterior, Gamma):
        prior = Gamma(
            jnp.full_like(output.code, config.prior_concentration),
            jnp.full_like(output.code, config.prior_rate),
        )
        return LossTerms(reconstruction, output.posterior.kl_to(prior).sum(-1))
    if isinstance(output.posterior, Gaussian):
        zero = jnp.zeros_like(output.code)
        return LossTerms(
            reconstruction, output.posterior.kl_to(Gaussian(zero, zero)).sum(-1)
        )
    return LossTerms(reconstruction, jnp.zeros_like(reconstruction))


def total_loss(terms: LossTerms, kl_weight: float) -> Float[Array, "*window"]:
    """What training minimises: `reconstruction + kl_weight * kl`, also of means."""
    return terms.reconstruction + kl_weight * terms.kl
