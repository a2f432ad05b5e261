"""Computes the divergence between two Gamma distributions without cancellation.

The textbook formula adds terms in the thousands whose sum may be only 1e-6. In float32,
its result is negative for nearly equal distributions of large concentration. Here the
first distribution has concentration `a` and rate `r`, the second `b` and `s`. Let `u`
be the ratio of the first mean to the second, `L = log(b / a)`, and `psi'` the trigamma
function. Then

    KL = b (u - 1 - log u) + integral from a to b of (b - t) (psi'(t) - 1 / t) dt

Neither term is negative. With `t = a e^(L x)`, the second term is
`L * integral from 0 to 1 of q(t) (e^(L (1 - x)) - 1) dx`, where
`q(t) = t^2 (psi'(t) - 1 / t)` falls smoothly from 1 at 0 to 1/2 at infinity, so that 16
quadrature nodes suffice for concentrations with a ratio of up to a million.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_INVERSE_FACTORIALS = (1.0 / np.cumprod(np.arange(2.0, 13.0))).tolist()  # 1/2! to 1/12!


@jax.custom_jvp
def gamma_divergence(
    a: Float[Array, "*batch"],
    r: Float[Array, "*batch"],
    b: Float[Array, "*batch"],
    s: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Return `KL(Gamma(a, r) || Gamma(b, s))` in nats, from concentrations and rates.

    In float32, for parameters between 1e-3 and 1e3, the value has a relative error of
    5e-6. Each derivative has an error of 1e-6 relative to the terms that it sums.
    """
    length, log_mean = _log_ratio(b, a), _log_ratio(s, r) - _log_ratio(b, a)
    x = _nodes(a)
    heights = _curvature(a * jnp.exp(length * x)) * jnp.expm1(length * (1.0 - x))
    return b * exponential_excess(log_mean) + length * _mean(heights)


@partial(gamma_divergence.defjvp, symbolic_zeros=True)
def _jvp(primals, tangents):
    a, r, b, s = primals
    length, log_mean = _log_ratio(b, a), _log_ratio(s, r) - _log_ratio(b, a)
    growth = jnp.expm1(log_mean)

    def of_b():
        t = a * jnp.exp(length * _nodes(a))
        return length * _mean(_curvature(t) / t) - log_mean

    derivatives = (
        lambda: (b * growth - jnp.expm1(length) * _curvature(a)) / a,
        lambda: -b * growth / r,
        of_b,
        lambda: b * growth / s,
    )
    pairs = zip(tangents, derivatives, strict=True)
    parts: list[Any] = [t * of() for t, of in pairs if not isinstance(t, SymbolicZero)]
    tangent: Any = sum(parts)
    return gamma_divergence(*primals), tangent


def exponential_excess(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return `e^x - 1 - x` without cancellation; near 0 it is about `x^2 / 2`."""
    series: Any = 0.0
    near = jnp.clip(x, -1.0, 1.0)
    for factor in reversed(_INVERSE_FACTORIALS):
        series = series * near + factor
    return jnp.where(jnp.abs(x) < 1.0, series * near**2, jnp.expm1(x) - x)


def _nodes(like: Array) -> Array:
    """Return the Gauss-Legendre nodes between 0 and 1, along a new leading axis."""
    nodes = jnp.asarray(0.5 + 0.5 * _NODES, like.dtype)
    return nodes.reshape(-1, *[1] * like.ndim)


def _mean(heights: Array) -> Array:
    """Return the integral from 0 to 1 of a function with these values at the nodes."""
    return jnp.tensordot(jnp.asarray(0.5 * _WEIGHTS, heights.dtype), heights, 1)


def _log_ratio(x: Array, y: Array) -> Array:
    """Return `log(x / y)`, with full relative accuracy even where `x` is near `y`."""
    share = (x - y) / y
    is_near = jnp.abs(share) < 0.5
    return jnp.where(is_near, jnp.log1p(jnp.where(is_near, share, 0.0)), jnp.log(x / y))


def _curvature(t: Array) -> Array:
    """Return `t^2 (psi'(t) - 1 / t)`, by Stirling's series at `t + 3`."""
    one, two, three = 1.0 / (t + 1.0), 1.0 / (t + 2.0), 1.0 / (t + 3.0)
    squares = one**2 + (t * one * two) ** 2 + (t * two * three) ** 2
    square = three**2
    stirling = 1.0 / 6.0 - square * (1.0 / 30.0 - square * (1.0 / 42.0 - square / 30.0))
    return 0.5 + 0.5 * squares + three * (t * three) ** 2 * stirling
