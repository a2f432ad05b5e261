"""The networks: encoder and decoder of dense layers, and what lies between them.

Axes: a batch of windows is `window feature`, a code `window latent`. Within a network
windows come last, `feature window`: the gradients of the weights are then products
over an axis that is contiguous in memory, and the means of batch normalisation are
products with a vector. On CPUs a step takes 6 % less time so. `weight` is 1 for a
window and 0 for padding; only batch normalisation looks at it.
"""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gammavae_jax.config import ModelConfig
from gammavae_jax.distributions import MAX_PARAMETER, MIN_PARAMETER, Gamma, Gaussian
from gammavae_jax.product import Precision, product

EPS = 1e-3  # added to a variance, in batch normalisation


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
    precision: Precision
    is_normalised: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "input window"]
    ) -> Float[Array, "output window"]:
        """Multiply and add."""
        fan_in = len(x)
        kernel = self.param("kernel", _uniform_turned, (self.width, fan_in), x.dtype)
        bias = self.param("bias", _uniform, (self.width,), fan_in, x.dtype)
        if self.is_normalised:
            bias = jax.lax.stop_gradient(bias)
        return product(kernel, x, self.precision) + bias[:, None]


class Output(nn.Module):
    """The last linear layer, started like `Dense`; windows come first again."""

    width: int
    precision: Precision

    @nn.compact
    def __call__(
        self, x: Float[Array, "input window"]
    ) -> Float[Array, "window output"]:
        """Multiply and add."""
        fan_in = len(x)
        kernel = self.param("kernel", _uniform, (fan_in, self.width), fan_in, x.dtype)
        bias = self.param("bias", _uniform, (self.width,), fan_in, x.dtype)
        return product(x.T, kernel, self.precision) + bias


class BatchNorm(nn.Module):
    """Batch normalisation over the windows of weight 1.

    Equal to PyTorch's with `momentum=0.01, eps=1e-3`, the official baseline's
    setting: the running variance is the unbiased one, unlike in Flax's own layer.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "feature window"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "feature window"]:
        """Normalise by the batch in training, by the running statistics else."""
        width, dtype = (len(x),), x.dtype
        scale = self.param("scale", nn.initializers.ones, width, dtype)
        bias = self.param("bias", nn.initializers.zeros, width, dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, width, dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, width, dtype)
        if not training:
            return _normalise(x, running_mean.value, running_var.value, scale, bias)
        count = weight.sum()
        y, mean, variance = batch_normalise(x, weight / count, scale, bias)
        unbiased = variance * count / (count - 1.0)
        running_mean.value += 0.01 * (mean - running_mean.value)
        running_var.value += 0.01 * (unbiased - running_var.value)
        return y


@jax.custom_vjp
def batch_normalise(
    x: Float[Array, "feature window"],
    share: Float[Array, "window"],
    scale: Float[Array, "feature"],
    bias: Float[Array, "feature"],
) -> tuple[
    Float[Array, "feature window"], Float[Array, "feature"], Float[Array, "feature"]
]:
    """Normalise by the mean and variance that `share`, of sum 1, weights.

    Returns the mean and the biased variance too; they are constants to a gradient.
    The gradient in closed form (Ioffe and Szegedy 2015) makes fewer passes over the
    batch than the one that JAX derives.
    """
    mean = x @ share
    variance = (x - mean[:, None]) ** 2 @ share
    return _normalise(x, mean, variance, scale, bias), mean, variance


def _batch_normalise_forward(x, share, scale, bias):
    y, mean, variance = batch_normalise(x, share, scale, bias)
    return (y, mean, variance), (x, share, scale, mean, variance)


def _batch_normalise_backward(saved, cotangents):
    x, share, scale, mean, variance = saved
    dy = cotangents[0]
    inverse = jax.lax.rsqrt(variance + EPS)
    normal = (x - mean[:, None]) * inverse[:, None]
    ones = jnp.ones_like(share)
    d_bias, d_scale = dy @ ones, (dy * normal) @ ones
    inner = dy - share * (d_bias[:, None] + normal * d_scale[:, None])
    return (scale * inverse)[:, None] * inner, jnp.zeros_like(share), d_scale, d_bias


batch_normalise.defvjp(_batch_normalise_forward, _batch_normalise_backward)


def _normalise(x, mean, variance, scale, bias):
    spread = scale * jax.lax.rsqrt(variance + EPS)
    return (x - mean[:, None]) * spread[:, None] + bias[:, None]


def _uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, dtype: jnp.dtype
) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)


def _uniform_turned(
    key: PRNGKeyArray, shape: tuple[int, int], dtype: jnp.dtype
) -> Float[Array, "output input"]:
    """The same draws as those of a kernel that is stored the other way round."""
    return _uniform(key, shape[::-1], shape[1], dtype).T


class Block(nn.Module):
    """Linear, batch normalisation, ReLU."""

    width: int
    precision: Precision

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "input window"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "output window"]:
        """Apply the three."""
        x = Dense(self.width, self.precision, is_normalised=True)(x)
        return nn.relu(BatchNorm()(x, weight, training))


class Encoder(nn.Module):
    """Windows to the last hidden layer, a `Block` for each width."""

    hidden: tuple[int, ...]
    precision: Precision

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "window feature"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "hidden window"]:
        """Apply the blocks in turn."""
        x = windows.T
        for width in self.hidden:
            x = Block(width, self.precision)(x, weight, training)
        return x


class Decoder(nn.Module):
    """Codes to windows: a `Block` for each width, and a linear layer."""

    hidden: tuple[int, ...]
    n_features: int
    precision: Precision

    @nn.compact
    def __call__(
        self,
        code: Float[Array, "window latent"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "window feature"]:
        """Apply the blocks in turn."""
        x = code.T
        for width in self.hidden:
            x = Block(width, self.precision)(x, weight, training)
        return Output(self.n_features, self.precision)(x)


class AutoEncoder(nn.Module):
    """Encoder, code and decoder.

    A deterministic code is one more `Block` (the official baseline). Else two heads
    describe a posterior (the report's Table 1); in training the code is a draw from
    it, else its mean: scores do not depend on chance.
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
        n_latent, precision = self.config.n_latent, self.config.precision
        x = Encoder(self.config.hidden, precision)(windows, weight, training)
        if self.config.latent == "deterministic":
            code = Block(n_latent, precision)(x, weight, training).T
            posterior = None
        else:
            first, second = (
                Dense(n_latent, precision, name=f"head_{i}")(x).T for i in (0, 1)
            )
            posterior = posterior_from_heads(first, second, self.config)
            code = posterior.mean if key is None else posterior.sample(key)
        decoder = Decoder(self.config.hidden, self.n_features, precision)
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
    model = AutoEncoder(config, windows.shape[-1])
    variables = {"params": params, "batch_stats": batch_stats}
    output = model.apply(variables, windows, jnp.ones(len(windows)), None)
    return cast(ModelOutput, output)
