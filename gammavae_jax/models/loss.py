"""The terms of the training loss, by name and for each window."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gammavae_jax.config import ModelConfig, TrainConfig
from gammavae_jax.models.autoencoder import ModelOutput
from gammavae_jax.models.distributions import divergence


class LossTerms(NamedTuple):
    """One number a window: squared error in dB^2, KL divergence in nats."""

    reconstruction: Float[Array, "*window"]
    kl: Float[Array, "*window"]


def loss_terms(output: ModelOutput, config: ModelConfig) -> LossTerms:
    """Squared error, mean over features; divergence to the prior, sum over latents.

    `model.kl` names the divergence, which is 0 for a deterministic code.
    """
    # The residual's other sign: so its gradient takes no pass to negate it.
    error = output.reconstruction - output.target
    reconstruction = jnp.mean(error**2, axis=-1)
    if output.posterior is None:
        return LossTerms(reconstruction, jnp.zeros_like(reconstruction))
    return LossTerms(reconstruction, divergence(output.posterior, config).sum(-1))


def total_loss(
    terms: LossTerms, kl_weight: float | Float[Array, ""]
) -> Float[Array, "*window"]:
    """What training minimises: `reconstruction + kl_weight * kl`, also of means."""
    return terms.reconstruction + kl_weight * terms.kl


def kl_weight_of(
    epoch: Int[Array, ""], config: TrainConfig
) -> float | Float[Array, ""]:
    """The weight of the divergence in an epoch, numbered from 1.

    It rises linearly from 0 in the first epoch to `kl_weight` after `kl_warmup`.
    """
    if not config.kl_warmup:
        return config.kl_weight
    return config.kl_weight * jnp.minimum((epoch - 1) / config.kl_warmup, 1.0)
