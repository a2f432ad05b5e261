"""Matrix products at a named precision.

| name | operands | sums | hardware |
|---|---|---|---|
| `float32` | float32 | float32 | any |
| `tf32` | 10 bits of mantissa | float32 | NVIDIA's from Ampere on |
| `bfloat16` | 7 bits of mantissa | float32 | any accelerator of late |

What is computed depends on the name alone: where a device has no unit for a precision,
as CPUs for TF32, the operands are rounded all the same, and nothing is gained.
"""

import functools
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Precision = Literal["float32", "tf32", "bfloat16"]


def product(
    a: Float[Array, "row inner"], b: Float[Array, "inner column"], precision: Precision
) -> Float[Array, "row column"]:
    """`a @ b`; the products of its gradients are of the same precision."""
    return cast(Array, _product(a, b, precision))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(a, b, precision):
    if precision == "bfloat16":
        a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
        return jnp.matmul(a, b, preferred_element_type=jnp.float32)
    if precision == "tf32":
        a, b = (jax.lax.reduce_precision(x, 8, 10) for x in (a, b))
        return jnp.matmul(a, b, precision="tensorfloat32")
    return jnp.matmul(a, b, precision="highest")


def _forward(a, b, precision):
    return _product(a, b, precision), (a, b)


def _backward(precision, saved, d_out):
    a, b = saved
    return _product(d_out, b.T, precision), _product(a.T, d_out, precision)


_product.defvjp(_forward, _backward)
