import pytest

from gammavae_jax.config import from_dict, to_dict
from gammavae_jax.errors import InputError
from gammavae_jax.presets import PRESETS, preset


def test_the_contracts_presets_are_there():
    assert set(PRESETS) == {"default", "paper", "autoencoder", "official", "vae"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_as_the_official_baseline_unless_told_otherwise(name):
    config = preset(name)
    assert config.train.learning_rate == 1e-3
    assert config.train.batch_size == 256
    assert config.train.epochs == 100
    assert config.seeds == (13711,)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_hears_the_official_features(name):
    features = preset(name).features
    assert (features.sample_rate, features.n_fft, features.hop_length) == (
        *(16000, 1024, 512),
    )
    assert (features.n_mels, features.n_context, features.power) == (128, 5, 2.0)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_knows_its_name_and_survives_json(name):
    assert preset(name).preset == name
    assert from_dict(to_dict(preset(name))) == preset(name)


def test_paper_is_the_reports_table_1():
    config = preset("paper")
    assert config.model.latent == "gamma"
    assert config.model.heads == "softmax"
    assert config.model.hidden == (128, 128, 128, 128)
    assert config.model.n_latent == 8
    assert config.score == "mahalanobis"


def test_autoencoder_and_vae_are_named_after_their_codes():
    assert preset("autoencoder").model.latent == "deterministic"
    assert preset("vae").model.latent == "gaussian"
    assert preset("default").model.latent == "gamma"


def test_an_unknown_preset_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="'papper': did you mean 'paper'"):
        preset("papper")
    with pytest.raises(
        InputError, match="one of default, paper, autoencoder, official, vae"
    ):
        preset("")
