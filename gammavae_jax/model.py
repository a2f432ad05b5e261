"""The networks: encoder and decoder of dense layers, and what lies between them.

Axes: a batch of windows is `window feature`, a code `window latent`. `weight` is 1
for a window and 0 for padding; only batch normalisation looks at it.
"""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gammavae_jax.config import ModelConfig
from gammavae_jax.distributions import MAX_PARAMETER, MIN_PARAMETER, Gamma, Gaussian


class ModelOutput(NamedTuple):
    """What a model says of a batch; `posterior` is None for a deterministic code."""

    reconstruction: Float[Array, "window feature"]
    code: Float[Array, "window latent"]
    posterior: Gamma | Gaussian | None


class Dense(nn.Module):
    """A linear layer with PyTorch's start: uniform within `1 / sqrt(fan_in)`.

    Before a batch normalisation, which takes any bias away again, the bias is not
    trained: its gradient is rounding noise, of which Adam would make full steps.
    """

    width: int
    is_normalised: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "window input"]
    ) -> Float[Array, "window output"]:
        """Multiply and add."""

        def uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: jnp.dtype):
            bound = x.shape[-1] ** -0.5
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        kernel = self.param("kernel", uniform, (x.shape[-1], self.width), x.dtype)
        bias = self.param("bias", uniform, (self.width,), x.dtype)
        return x @ kernel + (
            jax.lax.stop_gradient(bias) if self.is_normalised else bias
        )


class BatchNorm(nn.Module):
    """Batch normalisation over the windows of weight 1.

    Equal to PyTorch's with `momentum=0.01, eps=1e-3`, the official baseline's
    setting: the running variance is the unbiased one, unlike in Flax's own layer.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "window feature"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "window feature"]:
        """Normalise by the batch in training, by the running statistics else."""
        width, dtype = (x.shape[-1],), x.dtype
        scale = self.param("scale", nn.initializers.ones, width, dtype)
        bias = self.param("bias", nn.initializers.zeros, width, dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, width, dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, width, dtype)
        if training:
            count = weight.sum()
            mean = weight @ x / count
            variance = weight @ (x - mean) ** 2 / count
            unbiased = variance * count / (count - 1.0)
            running_mean.value += 0.01 * (mean - running_mean.value)
            running_var.value += 0.01 * (unbiased - running_var.value)
        else:
            mean, variance = running_mean.value, running_var.value
        return (x - mean) * (scale * jax.lax.rsqrt(variance + 1e-3)) + bias


class Block(nn.Module):
    """Linear, batch normalisation, ReLU."""

    width: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "window input"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "window output"]:
        """Apply the three."""
        x = Dense(self.width, is_normalised=True)(x)
        return nn.relu(BatchNorm()(x, weight, training))


class Encoder(nn.Module):
    """Windows to the last hidden layer, a `Block` for each width."""

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "window feature"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "window hidden"]:
        """Apply the blocks in turn."""
        for width in self.hidden:
            x = Block(width)(x, weight, training)
        return x


class Decoder(nn.Module):
    """Codes to windows: a `Block` for each width, and a linear layer."""

    hidden: tuple[int, ...]
    n_features: int

    @nn.compact
    def __call__(
        self,
        code: Float[Array, "window latent"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "window feature"]:
        """Apply the blocks in turn."""
        x = code
        for width in self.hidden:
            x = Block(width)(x, weight, training)
        return Dense(self.n_features)(x)


class AutoEncoder(nn.Module):
    """The official baseline's network: the bottleneck is one more `Block`."""

    config: ModelConfig
    n_features: int

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "window feature"],
        weight: Float[Array, "window"],
        key: PRNGKeyArray | None,
    ) -> ModelOutput:
        """Encode and decode; with a key as in training."""
        training = key is not None
        x = Encoder(self.config.hidden)(windows, weight, training)
        code = Block(self.config.n_latent)(x, weight, training)
        decoder = Decoder(self.config.hidden, self.n_features)
        return ModelOutput(decoder(code, weight, training), code, None)


class VariationalAutoEncoder(nn.Module):
    """A code drawn from a Gamma (the report's Table 1) or a Gaussian posterior.

    In training the code is a draw, else the posterior mean: scores do not depend
    on chance.
    """

    config: ModelConfig
    n_features: int

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "window feature"],
        weight: Float[Array, "window"],
        key: PRNGKeyArray | None,
    ) -> ModelOutput:
        """Encode and decode; with a key as in training."""
        training = key is not None
        x = Encoder(self.config.hidden)(windows, weight, training)
        first = Dense(self.config.n_latent, name="head_0")(x)
        second = Dense(self.config.n_latent, name="head_1")(x)
        posterior = posterior_from_heads(first, second, self.config)
        code = posterior.mean if key is None else posterior.sample(key)
        decoder = Decoder(self.config.hidden, self.n_features)
        return ModelOutput(decoder(code, weight, training), code, posterior)


def posterior_from_heads(
    first: Float[Array, "window latent"],
    second: Float[Array, "window latent"],
    config: ModelConfig,
) -> Gamma | Gaussian:
    """The posterior that two linear heads describe.

    A Gamma's concentration and rate are made positive over the latents (`softmax`,
    the report's Table 1) or one by one (`softplus`), and kept within the bounds that
    float32 can sample; a Gaussian's heads are its mean and log variance.
    """
    if config.latent == "gaussian":
        return Gaussian(first, second)
    positive = nn.softmax if config.heads == "softmax" else nn.softplus
    concentration, rate = (
        jnp.clip(positive(head), MIN_PARAMETER, MAX_PARAMETER)
        for head in (first, second)
    )
    return Gamma(concentration, rate)


def reconstruct(
    config: ModelConfig,
    params: Any,
    batch_stats: Any,
    windows: Float[Array, "window feature"],
) -> ModelOutput:
    """What a trained model makes of windows, in evaluation mode."""
    model = build_model(config, windows.shape[-1])
    variables = {"params": params, "batch_stats": batch_stats}
    output = model.apply(variables, windows, jnp.ones(len(windows)), None)
    return cast(ModelOutput, output)


def build_model(config: ModelConfig, n_features: int) -> nn.Module:
    """The network of a configuration."""
    kind = AutoEncoder if config.latent == "deterministic" else VariationalAutoEncoder
    return kind(config, n_features)
