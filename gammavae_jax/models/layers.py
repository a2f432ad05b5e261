"""Batch normalisation, of hidden layers and of the windows themselves.

Windows are the last axis, as within a network; those of weight 0 are padding.
"""

import functools
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

EPS = 1e-3  # added to a variance
MOMENTUM = 0.01  # of a batch's statistics in the running ones


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
        running_mean.value += MOMENTUM * (mean - running_mean.value)
        running_var.value += MOMENTUM * (unbiased - running_var.value)
        return y


class Standardise(nn.Module):
    """Batch normalisation without scale and bias, for a network's input.

    The running statistics are plain means of those of the first batches, until there
    are as many as the momentum remembers. From their start at 0 they would need a
    thousand steps to reach a mean of -60 dB.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "feature window"],
        weight: Float[Array, "window"],
        training: bool,
    ) -> Float[Array, "feature window"]:
        """Normalise by the batch in training, by the running statistics else."""
        zeros, ones = jnp.zeros(len(x), x.dtype), jnp.ones(len(x), x.dtype)
        running_mean = self.variable("batch_stats", "mean", lambda: zeros)
        running_var = self.variable("batch_stats", "var", lambda: ones)
        n_batches = self.variable("batch_stats", "n_batches", jnp.zeros, (), x.dtype)
        if not training:
            return _normalise(x, running_mean.value, running_var.value, ones, zeros)
        count = weight.sum()
        y, mean, variance = batch_normalise(x, weight / count, ones, zeros)
        unbiased = variance * count / (count - 1.0)
        # From so many on the momentum holds.
        n_batches.value = jnp.minimum(n_batches.value + 1, 1 / MOMENTUM)
        momentum = 1 / n_batches.value
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


Precision = Literal["float32", "tf32", "bfloat16"]


def matmul(
    a: Float[Array, "row inner"], b: Float[Array, "inner column"], precision: Precision
) -> Float[Array, "row column"]:
    """`a @ b`; the products of its gradients are of the same precision."""
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
        return matmul(kernel, x, self.precision) + bias[:, None]


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
        return matmul(x.T, kernel, self.precision) + bias


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
