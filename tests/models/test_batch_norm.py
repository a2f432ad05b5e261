"""Batch normalisation of hidden layers and of the input."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax.models.layers import EPS, BatchNorm, Standardise


@pytest.mark.parametrize(
    "layer", [BatchNorm(), Standardise()], ids=lambda m: type(m).__name__
)
def test_padding_does_not_affect_batch_normalisation(layer, key):
    x = jax.random.normal(key(), (3, 8))
    padded = jnp.concatenate([x, jnp.full((3, 4), 1e6)], axis=1)
    weight = jnp.concatenate([jnp.ones(8), jnp.zeros(4)])
    variables = layer.init(key(), x, jnp.ones(8), True)
    expected = layer.apply(variables, x, jnp.ones(8), True, mutable=["batch_stats"])
    ours = layer.apply(variables, padded, weight, True, mutable=["batch_stats"])
    np.testing.assert_allclose(ours[0][:, :8], expected[0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours[1], expected[1]
    )


def trained(batches) -> dict[str, Any]:
    """Return the running statistics after these batches."""
    layer = Standardise()
    weight = jnp.ones(batches.shape[2])
    variables = layer.init(jax.random.key(0), batches[0], weight, False)
    step = jax.jit(
        lambda v, x: layer.apply(v, x, weight, True, mutable=["batch_stats"])[1]
    )
    for batch in batches:
        variables = step(variables, batch)
    return dict(variables)


def test_standardising_knows_the_statistics_after_one_batch(key):
    x = -60 + 4 * jax.random.normal(key(), (3, 200))
    variables = trained(x[None])
    y: Any = Standardise().apply(variables, x, jnp.ones(200), False)
    scale = np.sqrt(x.var(axis=1, ddof=1, keepdims=True) + EPS)
    np.testing.assert_allclose(
        y, (x - x.mean(axis=1, keepdims=True)) / scale, rtol=1e-3, atol=1e-4
    )


def test_standardising_averages_the_first_batches_and_then_decays(key):
    means = jax.random.normal(key(), (150, 1, 1))
    spread = jnp.array([-1.0, 1.0])[None, None]
    few = trained(means[:40] + spread)["batch_stats"]
    np.testing.assert_allclose(few["mean"], means[:40].mean(), rtol=1e-4)
    many = trained(means + spread)["batch_stats"]
    expected = means[:100].mean()
    for mean in means[100:, 0, 0]:
        expected = expected + 0.01 * (mean - expected)
    np.testing.assert_allclose(many["mean"], expected, rtol=1e-4)
    np.testing.assert_allclose(many["var"], 2.0, rtol=1e-4)  # unbiased, of -1 and 1
