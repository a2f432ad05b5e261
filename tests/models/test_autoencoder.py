"""The model, compared with the official PyTorch code and the report's Table 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.pytorch import official_start

from gammavae_jax.config import ModelConfig
from gammavae_jax.models.autoencoder import (
    AutoEncoder,
    posterior_from_heads,
    reconstruct,
)
from gammavae_jax.models.distributions import MAX_PARAMETER, MIN_PARAMETER, Gamma
from gammavae_jax.presets import preset


@pytest.fixture
def official(golden):
    """The official model's weights, and its output for a batch."""
    stored, config, variables = official_start(golden)
    return stored, config.model, jax.tree.map(jnp.asarray, variables)


def test_the_autoencoder_in_evaluation_mode_matches_pytorch(official):
    stored, config, variables = official
    output = reconstruct(config, **variables, windows=jnp.asarray(stored["x"]))
    np.testing.assert_allclose(
        output.reconstruction, stored["eval_recon"], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(output.code, stored["eval_latent"], rtol=1e-4, atol=1e-4)


def test_the_autoencoder_in_training_mode_matches_pytorch(official, key):
    stored, config, variables = official
    x = jnp.asarray(stored["x"])
    model = AutoEncoder(config)
    output, _ = model.apply(
        variables, x, jnp.ones(len(x)), key(), mutable=["batch_stats"]
    )
    np.testing.assert_allclose(
        output.reconstruction, stored["train_recon"], rtol=1e-3, atol=1e-3
    )


def test_the_paper_preset_has_the_layers_of_table_1(key):
    config = preset("paper").model
    model = AutoEncoder(config)
    params = model.init(key(), jnp.zeros((2, 640)), jnp.ones(2), key())["params"]
    widths = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim == 2
    }
    block = "{}/block_{}/dense/kernel"
    assert widths == {
        block.format("encoder", 0): (128, 640),
        **{block.format("encoder", i): (128, 128) for i in (1, 2, 3)},
        "head_0/kernel": (8, 128),
        "head_1/kernel": (8, 128),
        block.format("decoder", 0): (128, 8),
        **{block.format("decoder", i): (128, 128) for i in (1, 2, 3)},
        "decoder/output/kernel": (128, 640),
    }


def test_softmax_heads_sum_to_one_over_the_latents(key):
    heads = jax.random.normal(key(), (2, 5, 8))
    posterior = posterior_from_heads(heads[0], heads[1], ModelConfig(heads="softmax"))
    assert isinstance(posterior, Gamma)
    for parameter in posterior:
        np.testing.assert_allclose(parameter.sum(-1), 1, rtol=1e-3)


def test_heads_are_clipped_to_the_range_that_float32_can_sample():
    far = jnp.array([[-200.0, 0.0, 200.0]])
    for heads in ("softmax", "softplus"):
        posterior = posterior_from_heads(far, far, ModelConfig(heads=heads))
        assert min(p.min() for p in posterior) == np.float32(MIN_PARAMETER)


def initialised(config, key):
    """Return a model, some windows, and the model's first variables."""
    model, x = AutoEncoder(config), jax.random.normal(key(), (6, 30))
    return model, x, model.init(key(), x, jnp.ones(6), key())


@pytest.mark.parametrize("name", ["paper", "vae", "autoencoder"])
def test_evaluation_is_deterministic_and_independent_of_the_batch(name, key, tiny):
    config = tiny(name).model
    _, x, variables = initialised(config, key)
    whole = reconstruct(config, **variables, windows=x).reconstruction
    alone = reconstruct(config, **variables, windows=x[:1]).reconstruction
    np.testing.assert_allclose(whole[:1], alone, rtol=1e-5, atol=1e-6)


def test_the_code_in_training_is_a_sample(key, tiny):
    model, x, variables = initialised(tiny("paper").model, key)
    first, second = (
        model.apply(variables, x, jnp.ones(6), k, mutable=["batch_stats"])[0].code
        for k in (key(), key())
    )
    assert not jnp.allclose(first, second)


@pytest.mark.parametrize("heads", ["softmax", "softplus"])
def test_mean_and_variance_heads_set_the_moments_of_the_posterior(heads, key):
    config = ModelConfig(heads=heads, parameters="mean_variance")
    first, second = 0.5 * jax.random.normal(key(), (2, 500, 8))
    posterior = posterior_from_heads(first, second, config)
    assert isinstance(posterior, Gamma)
    positive = jax.nn.softmax if heads == "softmax" else jax.nn.softplus
    np.testing.assert_allclose(posterior.mean, positive(first), rtol=1e-5)
    variance = posterior.concentration / posterior.rate**2
    np.testing.assert_allclose(variance, positive(second), rtol=1e-5)


def test_mean_and_variance_heads_keep_the_mean_exact_within_the_bounds(key):
    first, second = 100 * jax.random.normal(key(), (2, 500, 8))
    config = ModelConfig(parameters="mean_variance")

    def posterior_of(first):
        posterior = posterior_from_heads(first, second, config)
        return posterior.mean.sum(), posterior

    (_, posterior), gradient = jax.value_and_grad(posterior_of, has_aux=True)(first)
    for parameter in posterior:
        assert parameter.min() >= MIN_PARAMETER * (1 - 1e-5)
        assert parameter.max() <= MAX_PARAMETER * (1 + 1e-5)
    mean = jnp.clip(jax.nn.softplus(first), MIN_PARAMETER, MAX_PARAMETER)
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-5)
    # The mean follows its head even where the variance is clipped.
    expected = jnp.where(
        jax.nn.softplus(first) > MIN_PARAMETER, jax.nn.sigmoid(first), 0
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)
