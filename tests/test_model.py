"""The networks against the official PyTorch code, and the report's Table 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax.config import ModelConfig
from gammavae_jax.distributions import MIN_PARAMETER, Gamma
from gammavae_jax.model import AutoEncoder, BatchNorm, posterior_from_heads, reconstruct
from gammavae_jax.presets import preset
from gammavae_jax.pytorch import from_pytorch


@pytest.fixture
def official(golden):
    """The official network's weights and what it made of a batch."""
    stored = np.load(golden / "autoencoder.npz")
    config = preset("autoencoder").model
    state = {k.removeprefix("init/"): stored[k] for k in stored.files}
    return stored, config, jax.tree.map(jnp.asarray, from_pytorch(state, config))


def test_autoencoder_in_evaluation_matches_pytorch(official):
    stored, config, variables = official
    output = reconstruct(config, **variables, windows=jnp.asarray(stored["x"]))
    np.testing.assert_allclose(
        output.reconstruction, stored["eval_recon"], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(output.code, stored["eval_latent"], rtol=1e-4, atol=1e-4)


def test_autoencoder_in_training_matches_pytorch(official, key):
    stored, config, variables = official
    x = jnp.asarray(stored["x"])
    model = AutoEncoder(config, x.shape[1])
    output, _ = model.apply(
        variables, x, jnp.ones(len(x)), key(), mutable=["batch_stats"]
    )
    np.testing.assert_allclose(
        output.reconstruction, stored["train_recon"], rtol=1e-3, atol=1e-3
    )


def test_paper_network_is_table_1(key):
    config = preset("paper").model
    model = AutoEncoder(config, 640)
    params = model.init(key(), jnp.zeros((2, 640)), jnp.ones(2), key())["params"]
    widths = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim == 2
    }
    block = "{}_0/Block_{}/Dense_0/kernel"
    assert widths == {
        block.format("Encoder", 0): (128, 640),
        **{block.format("Encoder", i): (128, 128) for i in (1, 2, 3)},
        "head_0/kernel": (8, 128),
        "head_1/kernel": (8, 128),
        block.format("Decoder", 0): (128, 8),
        **{block.format("Decoder", i): (128, 128) for i in (1, 2, 3)},
        "Decoder_0/Output_0/kernel": (128, 640),
    }


def test_softmax_heads_sum_to_one_over_the_latents(key):
    heads = jax.random.normal(key(), (2, 5, 8))
    posterior = posterior_from_heads(heads[0], heads[1], ModelConfig(heads="softmax"))
    assert isinstance(posterior, Gamma)
    for parameter in posterior:
        np.testing.assert_allclose(parameter.sum(-1), 1, rtol=1e-3)


def test_heads_keep_within_what_float32_can_sample():
    far = jnp.array([[-200.0, 0.0, 200.0]])
    for heads in ("softmax", "softplus"):
        posterior = posterior_from_heads(far, far, ModelConfig(heads=heads))
        assert min(p.min() for p in posterior) == np.float32(MIN_PARAMETER)


@pytest.mark.parametrize("name", ["paper", "vae", "autoencoder"])
def test_evaluation_does_not_depend_on_chance_or_on_the_batch(name, key, tiny):
    config = tiny(name).model
    model = AutoEncoder(config, 30)
    x = jax.random.normal(key(), (6, 30))
    variables = model.init(key(), x, jnp.ones(6), key())
    whole = reconstruct(config, **variables, windows=x).reconstruction
    alone = reconstruct(config, **variables, windows=x[:1]).reconstruction
    np.testing.assert_allclose(whole[:1], alone, rtol=1e-5, atol=1e-6)


def test_code_in_training_is_a_draw(key, tiny):
    config = tiny("paper").model
    model = AutoEncoder(config, 30)
    x = jax.random.normal(key(), (6, 30))
    variables = model.init(key(), x, jnp.ones(6), key())
    first, second = (
        model.apply(variables, x, jnp.ones(6), k, mutable=["batch_stats"])[0].code
        for k in (key(), key())
    )
    assert not jnp.allclose(first, second)


def test_padding_does_not_enter_batch_normalisation(key):
    layer = BatchNorm()
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
