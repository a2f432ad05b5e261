"""The error of matrix products and their gradients at each named precision."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax.config import ModelConfig
from gammavae_jax.models.autoencoder import AutoEncoder, reconstruct
from gammavae_jax.models.layers import matmul

# Bits of the mantissa. Rounding each operand by half a unit determines the error.
BITS = {"float32": 23, "tf32": 10, "bfloat16": 7}


@pytest.fixture
def operands(key):
    return jax.random.normal(key(), (30, 200)), jax.random.normal(key(), (200, 20))


def error(product, a, b):
    """Return the largest error, relative to the sum of the absolute terms."""
    product, a, b = (np.asarray(x, np.float64) for x in (product, a, b))
    return np.max(abs(product - a @ b) / (abs(a) @ abs(b)))


@pytest.mark.parametrize("name", BITS)
def test_the_error_of_a_product_is_the_rounding_of_its_operands(operands, name):
    a, b = operands
    half_unit = 2.0 ** -(BITS[name] + 1)
    assert 0.05 < error(matmul(a, b, name), a, b) / half_unit < 5


@pytest.mark.parametrize("name", BITS)
def test_gradients_have_the_precision_of_the_product(operands, key, name):
    a, b = operands
    d_out = jax.random.normal(key(), (30, 20))
    d_a, d_b = jax.vjp(lambda a, b: matmul(a, b, name), a, b)[1](d_out)
    half_unit = 2.0 ** -(BITS[name] + 1)
    for product, x, y in [(d_a, d_out, b.T), (d_b, a.T, d_out)]:
        assert product.dtype == np.float32
        assert 0.05 < error(product, x, y) / half_unit < 5


def test_the_network_multiplies_at_the_configured_precision(key):
    x = 10 * jax.random.normal(key(), (50, 30))
    start = ModelConfig(latent="deterministic", hidden=(16,))
    variables = AutoEncoder(start).init(key(), x, jnp.ones(50), key())
    exact, *rounded = (
        reconstruct(replace(start, precision=name), **variables, windows=x)
        for name in BITS
    )
    errors = [abs(r.reconstruction - exact.reconstruction).max() for r in rounded]
    assert 1e-6 < errors[0] < errors[1] / 3 < 0.1
