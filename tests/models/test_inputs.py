"""The model's input, and the target of its reconstruction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax.models import layers
from gammavae_jax.models.autoencoder import AutoEncoder, reconstruct

N_CONTEXT, N_MELS, N_WINDOWS = 5, 6, 12
INPUTS = ["raw", "centred", "standardised", "bands"]
TARGETS = ["window", "centre"]


@pytest.fixture
def model(tiny, key):
    """Return a model, a training batch, and the variables after it."""

    def make(inputs, target="window", latent="gamma"):
        config = tiny(
            "default",
            f"model.inputs={inputs}",
            f"model.target={target}",
            f"model.latent={latent}",
        ).model
        windows = -60 + 5 * jax.random.normal(key(), (N_WINDOWS, N_CONTEXT * N_MELS))
        network, weight = AutoEncoder(config, N_CONTEXT), jnp.ones(N_WINDOWS)
        variables = network.init(key(), windows, weight, None)
        _, updates = network.apply(
            variables, windows, weight, key(), mutable=["batch_stats"]
        )
        variables = {**variables, **updates}

        def look(windows):
            return reconstruct(
                config, **variables, windows=windows, n_context=N_CONTEXT
            )

        return look, windows, variables

    return make


def frames(windows):
    return windows.reshape(len(windows), N_CONTEXT, N_MELS)


def test_the_residual_is_target_minus_reconstruction(model):
    look, windows, _ = model("raw")
    output = look(windows)
    np.testing.assert_array_equal(output.target, windows)
    np.testing.assert_array_equal(output.residual, windows - output.reconstruction)


@pytest.mark.parametrize("target", TARGETS)
def test_a_gain_does_not_change_centred_windows(model, target):
    look, windows, _ = model("centred", target)
    gains = jnp.linspace(-30, 30, N_WINDOWS)[:, None]
    quiet, loud = look(windows), look(windows + gains)
    np.testing.assert_allclose(quiet.residual, loud.residual, atol=1e-3)
    np.testing.assert_allclose(quiet.code, loud.code, rtol=1e-3)


def test_centred_windows_have_mean_0(model):
    look, windows, _ = model("centred")
    expected = windows - windows.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(look(windows).target, expected, atol=1e-4)


def test_standardised_features_have_mean_0_and_variance_1(model):
    look, windows, _ = model("standardised")
    target = look(windows).target
    np.testing.assert_allclose(target.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(target.var(axis=0, ddof=1), 1, rtol=1e-3)


@pytest.mark.parametrize("target", TARGETS)
def test_bands_are_normalised_by_their_frames_and_targets_stay_in_decibels(
    model, target
):
    look, windows, variables = model("bands", target)
    found = variables["batch_stats"][layers.INPUTS][layers.BANDS]
    of_bands = np.asarray(windows, np.float64).reshape(-1, N_MELS)
    np.testing.assert_allclose(found["mean"], of_bands.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["var"], of_bands.var(0), rtol=1e-4)
    expected = windows if target == "window" else frames(windows)[:, 2]
    np.testing.assert_array_equal(look(windows).target, expected)


def test_padding_does_not_change_the_statistics_of_bands():
    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.normal(-60, 5, (40, N_MELS)), jnp.float32)
    weight = jnp.asarray(np.arange(40) < 25, jnp.float32)
    layer = layers.BandStatistics()
    variables = layer.init(jax.random.key(0), frames, weight, False)
    (mean, deviation), _ = layer.apply(
        variables, frames, weight, True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(mean, frames[:25].mean(0), rtol=1e-5)
    expected = np.sqrt(np.asarray(frames[:25], np.float64).var(0) + layers.EPS)
    np.testing.assert_allclose(deviation, expected, rtol=1e-4)


def test_the_output_of_a_decoder_is_in_deviations_of_each_band(model):
    """A decoder that returns 1 reconstructs the mean plus one deviation."""
    look, windows, variables = model("bands")
    statistics = variables["batch_stats"][layers.INPUTS][layers.BANDS]
    output = variables["params"][layers.DECODER][layers.OUTPUT]
    ones = {
        n: (jnp.ones_like if n == "bias" else jnp.zeros_like)(output[n]) for n in output
    }
    decoder = {**variables["params"][layers.DECODER], layers.OUTPUT: ones}
    variables["params"] = {**variables["params"], layers.DECODER: decoder}
    expected = statistics["mean"] + jnp.sqrt(statistics["var"] + layers.EPS)
    found = frames(look(windows).reconstruction)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-5)


@pytest.mark.parametrize("inputs", INPUTS)
def test_the_middle_frame_is_predicted_only_from_the_others(model, inputs):
    look, windows, _ = model(inputs, "centre")
    other = frames(windows).at[:, N_CONTEXT // 2].add(7.0).reshape(windows.shape)
    before, after = look(windows), look(other)
    np.testing.assert_array_equal(before.reconstruction, after.reconstruction)
    assert before.residual.shape == (N_WINDOWS, N_MELS)
    assert not jnp.allclose(before.residual, after.residual, atol=0.5)


def test_the_middle_frame_is_the_target(model):
    look, windows, _ = model("raw", "centre")
    np.testing.assert_array_equal(look(windows).target, frames(windows)[:, 2])


@pytest.mark.parametrize("frame", [0, 1, 3, 4])
def test_the_network_sees_the_frames_around_the_middle_one(model, frame):
    look, windows, _ = model("raw", "centre")
    other = frames(windows).at[:, frame].add(7.0).reshape(windows.shape)
    assert not jnp.allclose(look(windows).reconstruction, look(other).reconstruction)


@pytest.mark.parametrize("latent", ["gamma", "deterministic"])
def test_raw_and_centred_windows_add_no_variables_to_a_model(model, latent):
    _, _, raw = model("raw", latent=latent)
    _, _, centred = model("centred", latent=latent)
    _, _, standardised = model("standardised", latent=latent)
    for collection in ("params", "batch_stats"):
        assert layers.INPUTS not in raw[collection]
        assert layers.INPUTS not in centred[collection]
    assert layers.INPUTS not in standardised["params"]
    assert set(standardised["batch_stats"][layers.INPUTS][layers.STANDARDISE]) == {
        "mean",
        "var",
        "n_batches",
    }
