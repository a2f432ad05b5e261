import pytest

from gammavae_jax.config_json import from_dict, to_dict
from gammavae_jax.errors import InputError
from gammavae_jax.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_the_features_and_optimiser_of_the_official_baseline(name):
    config = preset(name)
    features = config.features
    assert (features.sample_rate, features.n_fft, features.hop_length) == (
        *(16000, 1024, 512),
    )
    assert (features.n_mels, features.n_context, features.power) == (128, 5, 2.0)
    assert config.train.learning_rate == 1e-3
    assert config.train.batch_size == 256
    assert config.seeds == (13711,)


@pytest.mark.parametrize(
    "name", [name for name in PRESETS if name not in ("default", "gammavae")]
)
def test_presets_of_published_models_train_one_model_for_100_epochs(name):
    config = preset(name)
    assert config.train.epochs == 100
    assert config.n_members == 1
    assert set(config.scores) <= {"mse", "mahalanobis", "mahalanobis_framewise"}
    assert config.train.split == ("window" if name == "official" else "clip")


@pytest.mark.parametrize(
    ("name", "fusion", "fused"),
    [
        (
            "default",
            "fusion_smooth_max",
            ("spectrum_varmin", "maximum_varmin", "salient_neighbour"),
        ),
        (
            "gammavae",
            "fusion_mean",
            ("spectrum_density", "residual_density", "peak_density"),
        ),
    ],
)
def test_two_presets_train_five_folds_for_20_epochs_and_fuse_three_distances(
    name, fusion, fused
):
    config = preset(name)
    assert (config.train.split, config.n_members, config.train.epochs) == (
        *("folds", 5, 20),
    )
    assert config.score == config.scores[0] == fusion
    assert config.scoring.fused == config.scores[1:4] == fused
    assert config.scores[4:] == ("mse", "mahalanobis", "mahalanobis_framewise")


def test_the_default_and_gammavae_differ_only_in_their_scores():
    one, other = preset("default"), preset("gammavae")
    assert (one.features, one.model, one.train) == (
        *(other.features, other.model, other.train),
    )


def test_only_the_default_and_gammavae_use_the_built_in_sampler():
    """The models of `paper` do not change from one version to the next."""
    samplers = {name: preset(name).model.sampler for name in PRESETS}
    assert samplers.pop("default") == samplers.pop("gammavae") == "built_in"
    assert set(samplers.values()) == {"tfp"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_contains_its_name_and_survives_json(name):
    assert preset(name).preset == name
    assert from_dict(to_dict(preset(name))) == preset(name)


def test_the_paper_preset_matches_the_reports_table_1():
    config = preset("paper")
    assert config.model.latent == "gamma"
    assert config.model.heads == "softmax"
    assert config.model.hidden == (128, 128, 128, 128)
    assert config.model.n_latent == 8
    assert config.score == "mahalanobis"


def test_each_preset_has_the_latent_of_its_name():
    assert preset("autoencoder").model.latent == "deterministic"
    assert preset("vae").model.latent == "gaussian"
    assert preset("default").model.latent == "gamma"


def test_an_unknown_preset_is_refused_with_the_closest_name():
    with pytest.raises(InputError, match="'papper': did you mean 'paper'"):
        preset("papper")
    with pytest.raises(
        InputError, match="one of default, gammavae, paper, autoencoder, official, vae"
    ):
        preset("")
