"""The effect of model and training options on an epoch and its report."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probes import clips, crowd, noise

from gammavae_jax.data.arrays import HELD_OUT, TRAIN, stack_machines
from gammavae_jax.models.distributions import kl_to_prior
from gammavae_jax.models.layers import HEADS, LIKELIHOOD
from gammavae_jax.models.likelihood import concentrations_of
from gammavae_jax.models.loss import total_loss
from gammavae_jax.training import epoch as epochs
from gammavae_jax.training import step


def arrays_of(machine, held_out):
    """Return a machine's arrays, and the group of each window: some are held out."""
    stacked = stack_machines([machine], 5)
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), stacked)
    group = np.full(len(arrays.window_start), TRAIN, np.uint8)
    group[held_out] = HELD_OUT
    return arrays, jnp.asarray(group)


@pytest.fixture(scope="module")
def one_machine():
    """The arrays of one machine, and every fifth window held out."""
    (machine,) = crowd(np.random.default_rng(0), counts=(12,))
    return arrays_of(machine, slice(None, None, 5))


def epochs_of(config, one_machine, n_epochs=1, group=None):
    """Return the states before and after each epoch, and the epochs' reports."""
    data, default_group = one_machine
    group = default_group if group is None else group
    key = jax.random.key(0)
    state = step.init_state(config, key, 20)
    epoch_of = jax.jit(
        lambda epoch, state: epochs.train_epoch(config, key, epoch, state, data, group)
    )
    states, infos = [state], []
    for epoch in range(1, n_epochs + 1):
        state, info = epoch_of(epoch, state)
        states.append(state)
        infos.append(info)
    return states, infos


def held_out(config, state, one_machine):
    """Evaluate a model on all held-out windows in one batch."""
    data, group = one_machine
    start = data.window_start[np.flatnonzero(group == HELD_OUT)]
    frames = data.clips.log_mel.reshape(-1, data.clips.log_mel.shape[-1])
    windows = frames[start[:, None] + np.arange(5)].reshape(len(start), -1)
    return step.evaluate_windows(config, state, windows)


def test_the_first_epoch_of_a_warm_up_ignores_the_divergence(tiny, one_machine):
    warm, free, full = (
        epochs_of(tiny("default", *options), one_machine)
        for options in (
            ["train.kl_weight=5.0", "train.kl_warmup=3"],
            ["train.kl_weight=0.0"],
            ["train.kl_weight=5.0"],
        )
    )
    jax.tree.map(np.testing.assert_array_equal, warm[0][-1], free[0][-1])
    assert not np.allclose(
        warm[0][-1].params[HEADS[0]]["kernel"], full[0][-1].params[HEADS[0]]["kernel"]
    )


def test_training_losses_use_the_epochs_kl_weight_and_held_out_losses_the_final_one(
    tiny, one_machine
):
    config = tiny("default", "train.kl_weight=5.0", "train.kl_warmup=2")
    states, infos = epochs_of(config, one_machine, 4)
    for info, state, weight in zip(infos, states[1:], [0, 2.5, 5, 5], strict=True):
        expected = info.reconstruction + weight * info.kl
        np.testing.assert_allclose(info.loss, expected, rtol=1e-5)
        _, terms = held_out(config, state, one_machine)
        expected = total_loss(terms, 5.0).mean()
        np.testing.assert_allclose(info.held_out_loss, expected, rtol=1e-4)


@pytest.mark.parametrize("preset", ["default", "vae", "autoencoder"])
def test_an_epoch_reports_the_latents_of_the_held_out_windows(
    tiny, one_machine, preset
):
    config = tiny(preset)
    states, infos = epochs_of(config, one_machine, 3)
    output, _ = held_out(config, states[-1], one_machine)
    assert len(output.code) % config.train.batch_size
    variance = np.asarray(output.code).var(axis=0)
    assert infos[-1].active_units == np.sum(variance > 0.01)
    kl = np.zeros(4)
    if output.posterior is not None:
        kl = kl_to_prior(output.posterior, config.model).mean(axis=0)
    np.testing.assert_allclose(infos[-1].kl_per_latent, kl, rtol=1e-3, atol=1e-6)


def test_a_heavy_divergence_collapses_the_code(tiny, one_machine):
    active = []
    for weight in (0.01, 1e4):
        config = tiny("vae", f"train.kl_weight={weight}", "train.learning_rate=0.01")
        active.append(epochs_of(config, one_machine, 30)[1][-1].active_units)
    assert active == [4, 0]


def test_without_held_out_windows_the_diagnostics_of_latents_are_nan(tiny, one_machine):
    group = jnp.full_like(one_machine[1], TRAIN)
    _, (info,) = epochs_of(tiny("default"), one_machine, group=group)
    assert np.isfinite(info.loss)
    assert np.isnan(info.active_units)
    assert np.isnan(info.kl_per_latent).all()


@pytest.mark.parametrize("preset", ["default", "autoencoder"])
def test_the_diagnostics_of_latents_of_a_stopped_model_are_nan(tiny, preset):
    spectra = noise(np.random.default_rng(0), 6, 20)
    spectra[0][:] = np.inf
    machine = arrays_of(("m", clips(spectra)), slice(-16, None))
    states, infos = epochs_of(tiny(preset), machine, 2)
    assert states[1].is_stopped
    for info in infos:
        assert np.isnan(info.active_units)
        assert np.isnan(info.kl_per_latent).all()


@pytest.mark.parametrize(
    "options",
    [
        ["model.inputs=centred", "model.target=centre"],
        ["model.inputs=standardised", "model.parameters=mean_variance"],
        ["model.heads=softmax", "model.parameters=mean_variance"],
        ["model.heads=softmax", "model.kl=ancestor", "train.kl_weight=1"],
        ["model.kl=report_eq2", "model.target=centre", "train.kl_warmup=4"],
        ["model.inputs=bands", "model.latent=deterministic"],
        ["model.likelihood=gamma", "model.target=centre"],
        ["model.likelihood=f", "model.latent=gaussian"],
    ],
    ids=" ".join,
)
def test_a_model_trains_with_every_option(tiny, one_machine, options):
    config = tiny("default", *options)
    states, infos = epochs_of(config, one_machine, 6)
    assert not states[-1].is_stopped
    assert infos[-1].reconstruction < infos[0].reconstruction
    assert np.isfinite(infos[-1].held_out_loss)


@pytest.mark.parametrize(
    ("inputs", "noise_floor"), [("centred", 9), ("standardised", 1)]
)
def test_the_middle_frame_is_predicted_up_to_its_noise(tiny, inputs, noise_floor):
    # Each frame is the same spectrum plus independent, unpredictable noise of 3 dB.
    spectra = noise(np.random.default_rng(0), 10, 60, n_mels=16)
    machine = arrays_of(("m", clips(spectra)), slice(-56, None))
    config = tiny(
        "autoencoder",
        f"model.inputs={inputs}",
        "model.target=centre",
        "features.n_mels=16",
        "train.learning_rate=0.01",
    )
    states, infos = epochs_of(config, machine, 20)
    assert 0.9 < infos[-1].held_out_loss / noise_floor < 1.2
    output, terms = held_out(config, states[-1], machine)
    assert output.residual.shape == (56, 16)
    np.testing.assert_allclose(
        terms.reconstruction, (output.residual**2).mean(-1), rtol=1e-5
    )


@pytest.mark.parametrize("likelihood", ["gamma", "f"])
def test_training_finds_the_concentrations_of_simulated_power(tiny, likelihood):
    """Each band's power has a Gamma or F distribution; clips differ in gain."""
    rng = np.random.default_rng(0)
    power, scale = np.repeat([1.0, 3.0], 8), 5.0
    ratio = rng.gamma(power, 1 / power, (16, 250, 16))
    if likelihood == "f":
        ratio /= rng.gamma(scale, 1 / scale, ratio.shape)
    gain = rng.uniform(-20, 20, (16, 1, 1))
    spectra = 10 * np.log10(ratio) + gain + np.linspace(-70, -40, 16)
    machine = arrays_of(("m", clips(list(spectra))), slice(-246, None))
    config = tiny(
        "default",
        f"model.likelihood={likelihood}",
        "features.n_mels=16",
        "train.batch_size=128",
        "train.learning_rate=0.004",
    )
    states, infos = epochs_of(config, machine, 12)
    found = concentrations_of(states[-1].params[LIKELIHOOD])
    for half in (slice(0, 8), slice(8, None)):
        assert np.median(found.power[half]) == pytest.approx(power[half][0], rel=0.1)
    if found.scale is not None:
        assert np.median(found.scale) == pytest.approx(scale, rel=0.25)
    output, _ = held_out_of_bands(config, states[-1], machine)
    assert np.mean(output.residual**2) == pytest.approx(1.1, abs=0.1)
    assert infos[-1].held_out_loss < infos[0].held_out_loss


def held_out_of_bands(config, state, one_machine):
    """Do what `held_out` does, without the clips' levels."""
    data, group = one_machine
    count = jnp.sum(group == HELD_OUT)
    order = jnp.argsort(group != HELD_OUT)
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, batch_size=int(count))
    )
    windows, _, _ = epochs.gather(config, data, order, 0, count, jnp.array(0))
    return step.evaluate_windows(config, state, windows)
