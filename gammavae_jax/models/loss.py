"""Computes each window's training loss and the loss's two terms."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gammavae_jax.config import ModelConfig, TrainConfig
from gammavae_jax.models.autoencoder import ModelOutput
from gammavae_jax.models.distributions import divergence
from gammavae_jax.models.likelihood import negative_log_likelihood


class LossTerms(NamedTuple):
    """The reconstruction error and the KL divergence (nats) of each window.

    The reconstruction error is a mean over cells: of the squared error (dB^2) or, with
    a power likelihood, of the negative log likelihood (nats).
    """

    reconstruction: Float[Array, "*window"]
    kl: Float[Array, "*window"]


def loss_terms(output: ModelOutput, config: ModelConfig) -> LossTerms:
    """Return each window's mean reconstruction error and divergence to the prior.

    The divergence is the one that `model.kl` selects, summed over latents. For a
    deterministic code it is 0.
    """
    reconstruction = jnp.mean(_errors(output), axis=-1)
    if output.posterior is None:
        return LossTerms(reconstruction, jnp.zeros_like(reconstruction))
    return LossTerms(reconstruction, divergence(output.posterior, config).sum(-1))


def _errors(output: ModelOutput) -> Float[Array, "window output"]:
    """Return each cell's squared error or negative log likelihood."""
    if output.concentrations is not None:
        return negative_log_likelihood(output.log_ratio, output.concentrations)
    # This order saves the gradient a pass that would only change its sign.
    return (output.reconstruction - output.target) ** 2


def total_loss(
    terms: LossTerms, kl_weight: float | Float[Array, ""]
) -> Float[Array, "*window"]:
    """Return the training loss, `reconstruction + kl_weight * kl`."""
    return terms.reconstruction + kl_weight * terms.kl


def kl_weight_of(
    epoch: Int[Array, ""], config: TrainConfig
) -> float | Float[Array, ""]:
    """Return the divergence's weight in an epoch's loss; epochs count from 1.

    It is 0 in the first epoch and rises linearly to `train.kl_weight` during the next
    `train.kl_warmup` epochs. Without a warm-up, it is always `train.kl_weight`.
    """
    if not config.kl_warmup:
        return config.kl_weight
    return config.kl_weight * jnp.minimum((epoch - 1) / config.kl_warmup, 1.0)
