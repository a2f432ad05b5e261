"""Defines the model's layers; windows are the last axis, and padding has weight 0."""

import functools
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

# The names of modules in `params` and `batch_stats`. Flax also derives the random
# numbers of a module's initial weights from its name.
INPUTS, STANDARDISE, BANDS = "inputs", "standardise", "bands"
LIKELIHOOD = "likelihood"  # the concentrations of a power likelihood
ENCODER, DECODER, BLOCK = "encoder", "decoder", "block_{}"  # numbered from 0
DENSE, BATCH_NORM, OUTPUT = "dense", "batch_norm", "output"
# The block of a deterministic code, and the two heads of a posterior.
CODE, HEADS = "code", ("head_0", "head_1")

EPS = 1e-3  # added to each variance
MOMENTUM = 0.01  # weight of a batch's statistics in the running statistics


class BatchNorm(nn.Module):
    """Batch normalisation over the windows whose weight is 1.

    It equals PyTorch's layer with `momentum=0.01, eps=1e-3`, as used in the official
    baseline. Unlike in Flax's own layer, the running variance is unbiased.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "feature window"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "feature window"]:
        """Normalise with batch statistics in training, else with running statistics."""
        scale = self.param("scale", nn.initializers.ones, (len(x),), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (len(x),), x.dtype)
        return _normalise_and_track(self, x, weight, training, scale, bias, MOMENTUM)


class Standardise(nn.Module):
    """Batch normalisation of the model's input, without scale or bias.

    Over the first `1 / MOMENTUM` batches, the running statistics are plain means. An
    exponential average starts from 0 and would need a thousand steps to reach -60 dB.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "feature window"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "feature window"]:
        """Normalise with batch statistics in training, else with running statistics."""
        ones, zeros = jnp.ones(len(x), x.dtype), jnp.zeros(len(x), x.dtype)
        n_batches = self.variable("batch_stats", "n_batches", jnp.zeros, (), x.dtype)
        if training:
            n_batches.value = jnp.minimum(n_batches.value + 1, 1 / MOMENTUM)
        momentum = 1 / n_batches.value
        return _normalise_and_track(self, x, weight, training, ones, zeros, momentum)


class BandStatistics(nn.Module):
    """Each mel band's running mean and standard deviation over the windows' frames.

    In training, each batch updates them before they are returned. They are plain means
    over the first `1 / MOMENTUM` batches, as in `Standardise`.
    """

    @nn.compact
    def __call__(
        self,
        frames: Float[Array, "frame mel"],
        weight: Float[Array, "frame"],
        training: bool,
    ) -> tuple[Float[Array, "mel"], Float[Array, "mel"]]:
        """Return each band's mean and standard deviation, in dB."""
        width, dtype = (frames.shape[1],), frames.dtype
        n_batches = self.variable("batch_stats", "n_batches", jnp.zeros, (), dtype)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width, dtype)
        variance = self.variable("batch_stats", "var", jnp.ones, width, dtype)
        if training:
            n_batches.value = jnp.minimum(n_batches.value + 1, 1 / MOMENTUM)
            share = weight / weight.sum()
            of_batch = share @ frames
            spread = share @ (frames - of_batch) ** 2
            mean.value += (of_batch - mean.value) / n_batches.value
            variance.value += (spread - variance.value) / n_batches.value
        return mean.value, jnp.sqrt(variance.value + EPS)


def _normalise_and_track(module, x, weight, training, scale, bias, momentum):
    """Normalise `x`; in training, update the running statistics with `momentum`."""
    width, dtype = (len(x),), x.dtype
    running_mean = module.variable("batch_stats", "mean", jnp.zeros, width, dtype)
    running_var = module.variable("batch_stats", "var", jnp.ones, width, dtype)
    if not training:
        return _normalise(x, running_mean.value, running_var.value, scale, bias)
    count = weight.sum()
    y, mean, variance = batch_normalise(x, weight / count, scale, bias)
    unbiased = variance * count / (count - 1.0)
    running_mean.value += momentum * (mean - running_mean.value)
    running_var.value += momentum * (unbiased - running_var.value)
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
    """Normalise by the mean and variance over windows, with weights that sum to 1.

    `share` holds the weights. Return the normalised batch, and the mean and biased
    variance of `x`; no gradient flows through the last two. The closed-form gradient
    (Ioffe and Szegedy 2015) takes fewer passes over the batch than JAX's automatic one.
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


Precision = Literal["float32", "tf32", "bfloat16"]


def matmul(
    a: Float[Array, "row inner"], b: Float[Array, "inner column"], precision: Precision
) -> Float[Array, "row column"]:
    """Return `a @ b`; the products in its gradient have the same precision."""
    return cast(Array, _matmul(a, b, precision))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(a, b, precision):
    if precision == "bfloat16":
        a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
        return jnp.matmul(a, b, preferred_element_type=jnp.float32)
    if precision == "tf32":
        a, b = (jax.lax.reduce_precision(x, 8, 10) for x in (a, b))
        return jnp.matmul(a, b, precision="tensorfloat32")
    return jnp.matmul(a, b, precision="highest")


def _forward(a, b, precision):
    return _matmul(a, b, precision), (a, b)


def _backward(precision, saved, d_out):
    a, b = saved
    return _matmul(d_out, b.T, precision), _matmul(a.T, d_out, precision)


_matmul.defvjp(_forward, _backward)


class Dense(nn.Module):
    """A linear layer, initialised as in PyTorch: uniform within ±`1/sqrt(fan_in)`.

    If batch normalisation follows, it removes any bias, so the bias is not trained. Its
    gradient would be rounding noise, which Adam would scale up to full steps.
    """

    width: int
    precision: Precision
    is_normalised: bool = False  # whether batch normalisation follows

    @nn.compact
    def __call__(
        self, x: Float[Array, "input window"]
    ) -> Float[Array, "output window"]:
        """Apply the layer."""
        fan_in = len(x)
        shape = self.width, fan_in
        kernel = self.param("kernel", _uniform_transposed, shape, x.dtype)
        bias = self.param("bias", _uniform, (self.width,), fan_in, x.dtype)
        if self.is_normalised:
            bias = jax.lax.stop_gradient(bias)
        return matmul(kernel, x, self.precision) + bias[:, None]


class Output(nn.Module):
    """The last layer: a `Dense` layer whose output has windows as its first axis."""

    width: int
    precision: Precision

    @nn.compact
    def __call__(
        self, x: Float[Array, "input window"]
    ) -> Float[Array, "window output"]:
        """Apply the layer."""
        fan_in = len(x)
        kernel = self.param("kernel", _uniform, (fan_in, self.width), fan_in, x.dtype)
        bias = self.param("bias", _uniform, (self.width,), fan_in, x.dtype)
        return matmul(x.T, kernel, self.precision) + bias


def _uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, dtype: jnp.dtype
) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)


def _uniform_transposed(
    key: PRNGKeyArray, shape: tuple[int, int], dtype: jnp.dtype
) -> Float[Array, "output input"]:
    """Draw the transpose of the kernel that `_uniform` would draw."""
    return _uniform(key, shape[::-1], shape[1], dtype).T


class Block(nn.Module):
    """A linear layer, batch normalisation and ReLU."""

    width: int
    precision: Precision

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "input window"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "output window"]:
        """Apply the three layers."""
        dense = Dense(self.width, self.precision, is_normalised=True, name=DENSE)
        return nn.relu(BatchNorm(name=BATCH_NORM)(dense(x), weight, training))
