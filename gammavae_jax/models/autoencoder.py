"""The network: a dense encoder and decoder, and the latent code between them.

Axes: windows are `window feature`, codes `window latent`, reconstructions `window
output`; an output is a whole window or its middle frame. Inside the network windows
come last, `feature window`: weight gradients are then products over a contiguous
axis, and batch normalisation's means are products with a vector, which makes a step
6 % faster on CPUs. `weight` is 1 for a window and 0 for padding; only batch
normalisation uses it.
"""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gammavae_jax.config import ModelConfig
from gammavae_jax.models import layers
from gammavae_jax.models.distributions import (
    MAX_PARAMETER,
    MIN_PARAMETER,
    Gamma,
    Gaussian,
    gamma_of_mean_and_variance,
)
from gammavae_jax.models.layers import Block, Dense, Output, Precision, Standardise


class ModelOutput(NamedTuple):
    """The model's output for a batch; a deterministic code has no posterior."""

    reconstruction: Float[Array, "window output"]
    target: Float[Array, "window output"]  # what the reconstruction should equal
    code: Float[Array, "window latent"]
    posterior: Gamma | Gaussian | None

    @property
    def residual(self) -> Float[Array, "window output"]:
        """The residual: target minus reconstruction."""
        return self.target - self.reconstruction


class Encoder(nn.Module):
    """The encoder, from windows to the last hidden layer: a `Block` for each width."""

    hidden: tuple[int, ...]
    precision: Precision

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "window seen"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "hidden window"]:
        """Apply the blocks."""
        return _blocks(self.hidden, self.precision, windows.T, weight, training)


class Decoder(nn.Module):
    """The decoder: a `Block` for each width, then a linear layer."""

    hidden: tuple[int, ...]
    n_outputs: int
    precision: Precision

    @nn.compact
    def __call__(
        self,
        code: Float[Array, "window latent"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "window output"]:
        """Apply the blocks and the linear layer."""
        x = _blocks(self.hidden, self.precision, code.T, weight, training)
        return Output(self.n_outputs, self.precision, name=layers.OUTPUT)(x)


def _blocks(widths, precision, x, weight, training):
    """Apply a numbered `Block` for each width, inside the calling module."""
    for i, width in enumerate(widths):
        x = Block(width, precision, name=layers.BLOCK.format(i))(x, weight, training)
    return x


class Inputs(nn.Module):
    """The layer that splits windows into the network's input and its target.

    Both are the whole window; with `target="centre"` the input is the frames around
    the middle one, and the target is the middle frame (Suefusa et al. 2020). "centred"
    subtracts the mean of the *input* from both: a mean that includes the target would
    reveal the target's level to the network.
    """

    config: ModelConfig
    n_context: int

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "window feature"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> tuple[Float[Array, "window seen"], Float[Array, "window output"]]:
        """Normalise the windows, and return the network's input and its target."""
        if self.config.inputs == "standardised":
            standardise = Standardise(name=layers.STANDARDISE)
            windows = standardise(windows.T, weight, training).T
        seen = target = windows
        if self.config.target == "centre":
            frames = windows.reshape(windows.shape[0], self.n_context, -1)
            middle = self.n_context // 2
            seen = jnp.delete(frames, middle, axis=1).reshape(windows.shape[0], -1)
            target = frames[:, middle]
        if self.config.inputs == "centred":
            level = seen.mean(-1, keepdims=True)
            seen, target = seen - level, target - level
        return seen, target


class AutoEncoder(nn.Module):
    """The whole network: encoder, latent code and decoder.

    A deterministic code is one more `Block`, as in the official baseline. Otherwise
    two linear heads parametrise a posterior (the report's Table 1). In training the
    code is a sample of it; in evaluation it is its mean, so scores are deterministic.
    """

    config: ModelConfig
    n_context: int = 1  # frames in a window; used by the target "centre" only

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "window feature"],
        weight: Float[Array, "window"],
        key: PRNGKeyArray | None,
    ) -> ModelOutput:
        """Encode and decode windows, in training mode if a sampling key is passed."""
        training = key is not None
        n_latent, precision = self.config.n_latent, self.config.precision
        inputs = Inputs(self.config, self.n_context, name=layers.INPUTS)
        seen, target = inputs(windows, weight, training)
        encoder = Encoder(self.config.hidden, precision, name=layers.ENCODER)
        x = encoder(seen, weight, training)
        if self.config.latent == "deterministic":
            code = Block(n_latent, precision, name=layers.CODE)(x, weight, training).T
            posterior = None
        else:
            first, second = (
                Dense(n_latent, precision, name=name)(x).T for name in layers.HEADS
            )
            posterior = posterior_from_heads(first, second, self.config)
            code = posterior.mean if key is None else posterior.sample(key)
        width = target.shape[-1]
        decoder = Decoder(self.config.hidden, width, precision, name=layers.DECODER)
        return ModelOutput(decoder(code, weight, training), target, code, posterior)


def posterior_from_heads(
    first: Float[Array, "window latent"],
    second: Float[Array, "window latent"],
    config: ModelConfig,
) -> Gamma | Gaussian:
    """Return the posterior parametrised by two linear heads.

    The heads of a Gamma are made positive by a softmax over the latents (the report's
    Table 1) or by a softplus, and clipped to the range that float32 can sample. They
    are its concentration and rate, or its mean and variance. The heads of a Gaussian
    are its mean and log variance.
    """
    if config.latent == "gaussian":
        return Gaussian(first, second)
    positive = nn.softmax if config.heads == "softmax" else nn.softplus
    first, second = (
        jnp.clip(positive(head), MIN_PARAMETER, MAX_PARAMETER)
        for head in (first, second)
    )
    if config.parameters == "mean_variance":
        return gamma_of_mean_and_variance(first, second)
    return Gamma(first, second)


def reconstruct(
    config: ModelConfig,
    params: Any,
    batch_stats: Any,
    windows: Float[Array, "window feature"],
    n_context: int = 1,
) -> ModelOutput:
    """Apply a trained model to windows (dB), in evaluation mode.

    `n_context` is the number of frames in a window; only the target "centre" uses it.
    """
    model = AutoEncoder(config, n_context)
    variables = {"params": params, "batch_stats": batch_stats}
    output = model.apply(variables, windows, jnp.ones(windows.shape[0]), None)
    return cast(ModelOutput, output)
