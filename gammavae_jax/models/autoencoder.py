"""The networks: encoder and decoder of dense layers, and what lies between them.

Axes: a batch of windows is `window feature`, a code `window latent`, and what is
reconstructed `window output`: the features, or a frame of them. Within a network
windows come last, `feature window`: the gradients of the weights are then products
over an axis that is contiguous in memory, and the means of batch normalisation are
products with a vector. On CPUs a step takes 6 % less time so. `weight` is 1 for a
window and 0 for padding; only batch normalisation looks at it.
"""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gammavae_jax.config import ModelConfig
from gammavae_jax.models.distributions import (
    MAX_PARAMETER,
    MIN_PARAMETER,
    Gamma,
    Gaussian,
    gamma_of_mean_and_variance,
)
from gammavae_jax.models.layers import (
    Block,
    Dense,
    Output,
    Precision,
    Standardise,
)


class ModelOutput(NamedTuple):
    """What a model says of a batch; `posterior` is None for a deterministic code."""

    reconstruction: Float[Array, "window output"]
    target: Float[Array, "window output"]  # what should have been reconstructed
    code: Float[Array, "window latent"]
    posterior: Gamma | Gaussian | None

    @property
    def residual(self) -> Float[Array, "window output"]:
        """What the model did not reconstruct."""
        return self.target - self.reconstruction


class Encoder(nn.Module):
    """Windows to the last hidden layer, a `Block` for each width."""

    hidden: tuple[int, ...]
    precision: Precision

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "window seen"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "hidden window"]:
        """Apply the blocks in turn."""
        x = windows.T
        for width in self.hidden:
            x = Block(width, self.precision)(x, weight, training)
        return x


class Decoder(nn.Module):
    """Codes to reconstructions: a `Block` for each width, and a linear layer."""

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
        """Apply the blocks in turn."""
        x = code.T
        for width in self.hidden:
            x = Block(width, self.precision)(x, weight, training)
        return Output(self.n_outputs, self.precision)(x)


class Inputs(nn.Module):
    """Windows to what the network sees of them, and what it should reconstruct.

    Both are the window, or (interpolation, Suefusa et al. 2020) the frames about the
    middle one and that frame. "centred" takes from both the mean of what is *seen*:
    with the target in the mean, its own level could be told from the other frames.
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
        """Transform, then part."""
        if self.config.inputs == "standardised":
            windows = Standardise()(windows.T, weight, training).T
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
    """Encoder, code and decoder.

    A deterministic code is one more `Block` (the official baseline). Else two heads
    describe a posterior (the report's Table 1); in training the code is a draw from
    it, else its mean: scores do not depend on chance.
    """

    config: ModelConfig
    n_context: int = 1  # frames in a window; only the target "centre" asks

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "window feature"],
        weight: Float[Array, "window"],
        key: PRNGKeyArray | None,
    ) -> ModelOutput:
        """Encode and decode; with a key as in training."""
        training = key is not None
        n_latent, precision = self.config.n_latent, self.config.precision
        seen, target = Inputs(self.config, self.n_context)(windows, weight, training)
        x = Encoder(self.config.hidden, precision)(seen, weight, training)
        if self.config.latent == "deterministic":
            code = Block(n_latent, precision)(x, weight, training).T
            posterior = None
        else:
            first, second = (
                Dense(n_latent, precision, name=f"head_{i}")(x).T for i in (0, 1)
            )
            posterior = posterior_from_heads(first, second, self.config)
            code = posterior.mean if key is None else posterior.sample(key)
        decoder = Decoder(self.config.hidden, target.shape[-1], precision)
        return ModelOutput(decoder(code, weight, training), target, code, posterior)


def posterior_from_heads(
    first: Float[Array, "window latent"],
    second: Float[Array, "window latent"],
    config: ModelConfig,
) -> Gamma | Gaussian:
    """The posterior that two linear heads describe.

    A Gamma's heads are made positive over the latents (`softmax`, the report's Table
    1) or one by one (`softplus`). They are its concentration and rate, or its mean and
    variance. What they give is kept within the bounds that float32 can sample. A
    Gaussian's heads are its mean and log variance.
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
    """What a trained model makes of windows, in evaluation mode.

    `n_context` is the number of frames in a window; only the target "centre" asks.
    """
    model = AutoEncoder(config, n_context)
    variables = {"params": params, "batch_stats": batch_stats}
    output = model.apply(variables, windows, jnp.ones(windows.shape[0]), None)
    return cast(ModelOutput, output)
