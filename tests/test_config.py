"""The settings that a configuration refuses, and those that it derives."""

import dataclasses
import json
import math
from typing import get_args, get_type_hints

import pytest

from gammavae_jax.config import (
    DIRECT_SCORES,
    OFFICIAL_SCORES,
    Config,
    FeatureConfig,
    ModelConfig,
    ScoringConfig,
    TrainConfig,
)
from gammavae_jax.config_json import override
from gammavae_jax.errors import InputError


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_window_has_a_value_for_each_frame_and_mel_band():
    assert FeatureConfig(n_mels=64, n_context=3).n_features == 192


def test_seeds_are_consecutive():
    assert Config(seed=7, n_seeds=3).seeds == (7, 8, 9)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (FeatureConfig, "hop_length", 0),
        (FeatureConfig, "power", math.nan),
        (FeatureConfig, "channel", -1),
        (FeatureConfig, "reference_channel", -1),
        (ModelConfig, "n_latent", 0),
        (ModelConfig, "hidden", ()),
        (ModelConfig, "hidden", (128, 0)),
        (ModelConfig, "prior_rate", 0.0),
        (TrainConfig, "epochs", -1),
        (TrainConfig, "batch_size", 1),
        (TrainConfig, "learning_rate", 0.0),
        (TrainConfig, "kl_weight", -0.1),
        (TrainConfig, "kl_weight", math.nan),
        (TrainConfig, "kl_warmup", -1),
        (TrainConfig, "group_distance", -0.1),
        (TrainConfig, "n_folds", 1),
        (TrainConfig, "held_out_fraction", 0.0),
        (TrainConfig, "held_out_fraction", 1.0),
        (ScoringConfig, "jitter", 0.0),
        (ScoringConfig, "false_alarm_rate", 1.0),
        (ScoringConfig, "n_density_neighbours", 0),
        (ScoringConfig, "smote_ratio", -0.1),
        (ScoringConfig, "smote_ratio", 1.1),
        (ScoringConfig, "fused", ()),
        (ScoringConfig, "fused", ("mse", "mse")),
        (Config, "n_seeds", 0),
        (Config, "seed", -1),
        (Config, "seed", 2**31),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_field_name(kind, field, value):
    with pytest.raises(InputError, match=f"{field} is "):
        kind(**{field: value})


@pytest.mark.parametrize("channel", [0, 3])
def test_a_reference_channel_that_is_the_channel_in_use_is_refused(channel):
    with pytest.raises(InputError, match=f"reference_channel are both {channel}: set"):
        FeatureConfig(channel=channel, reference_channel=channel)


def test_the_channels_to_read_are_one_or_a_pair_with_the_near_one_first():
    assert FeatureConfig(channel=2).channels == 2
    assert FeatureConfig(channel=2, reference_channel=0).channels == (2, 0)


def test_no_seed_of_a_run_exceeds_31_bits():
    assert Config(seed=2**31 - 1).seeds == (2**31 - 1,)
    with pytest.raises(InputError, match="seed is 2147483647"):
        Config(seed=2**31 - 1, n_seeds=2)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (("mse", "mahalanobi"), "'mahalanobi': did you mean 'mahalanobis'"),
        (("mse", "mse"), "list each score once"),
        (
            ("mahalanobis",),
            "headline score 'fusion_smooth_max' is not among the scores",
        ),
        ((), "headline score 'fusion_smooth_max' is not among the scores"),
    ],
)
def test_scores_must_be_known_and_distinct_and_include_the_headline_score(
    scores, message
):
    with pytest.raises(InputError, match=message):
        Config(scores=scores)


@pytest.mark.parametrize("name", ["fusion_max", "spectrum_densiti"])
def test_a_score_that_cannot_be_fused_is_refused(name):
    with pytest.raises(InputError, match=f"unknown score to fuse '{name}'"):
        ScoringConfig(fused=("mse", name))


def test_a_seed_has_a_member_per_fold_or_a_single_one():
    folds = Config(n_seeds=3, train=TrainConfig(split="folds", n_folds=4))
    assert (folds.n_folds, folds.n_members) == (4, 12)
    clip = Config(n_seeds=3, train=TrainConfig(split="clip", n_folds=4))
    assert (clip.n_folds, clip.n_members) == (1, 3)


def test_likelihoods_of_power_normalise_bands_and_other_inputs_need_not():
    assert not ModelConfig().normalises_bands
    assert ModelConfig(inputs="bands").normalises_bands
    for likelihood in ("gamma", "f"):
        assert ModelConfig(likelihood=likelihood).normalises_bands
    assert not ModelConfig(inputs="bands").has_power_likelihood


def test_only_the_listed_likelihoods_model_power():
    """A new one must be added to one of these sets."""
    every = get_args(get_type_hints(ModelConfig)["likelihood"])
    power = {n for n in every if ModelConfig(likelihood=n).has_power_likelihood}
    assert power == {"gamma", "f"}
    assert set(every) - power == {"gaussian_db"}


def test_models_compute_the_requested_scores_and_those_to_fuse():
    scoring = ScoringConfig(fused=("mse", "peak_density"))
    config = Config(score="mse", scores=("mse", "kl"), scoring=scoring)
    assert config.computed_scores == ("mse", "kl")
    fused = Config(score="kl", scores=("fusion_max", "kl"), scoring=scoring)
    assert fused.computed_scores == ("kl", "mse", "peak_density")


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["scoring.threshold=official"], "set train.split=window or train.split=clip"),
        (
            ["scoring.threshold=official", "train.split=clip"],
            "score 'fusion_smooth_max' is computed per clip, but scoring.threshold="
            "official works on batches: change one of them",
        ),
        (
            ["model.likelihood=f", "model.inputs=centred"],
            "model.inputs=centred does not work with model.likelihood=f, which "
            "normalises each band: set model.inputs=bands",
        ),
        (
            [
                "model.likelihood=gamma",
                "train.split=clip",
                "scoring.threshold=official",
            ],
            "scoring.threshold=official works only with squared errors: set "
            "model.likelihood=gaussian_db",
        ),
        (["train.split=window"], "holds out no clips: set scoring.threshold=official"),
        (
            ["model.latent=deterministic", 'scoring.fused=["mse", "kl"]'],
            "score 'kl' needs a posterior: set model.latent=gamma, or omit this",
        ),
        (
            ["model.latent=deterministic", 'scores=["fusion_mean", "negative_elbo"]'],
            "score 'negative_elbo' needs a posterior",
        ),
        (
            ['scores=["fusion_mean", "latent_density"]'],
            "score 'latent_density' compares latent codes of a single model, but each "
            "fold has its own model: set train.split=clip",
        ),
        (
            ['scoring.fused=["latent_neighbour"]'],
            "score 'latent_neighbour' compares latent codes of a single model",
        ),
        (["model.target=centre", "features.n_context=4"], "use an odd number of at"),
        (["model.kl=ancestor", "model.latent=gaussian"], "set model.latent=gamma"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_with_a_remedy(
    assignments, message
):
    with pytest.raises(InputError, match=message):
        override(Config(), assignments)


def test_every_direct_score_has_an_official_threshold():
    scores = json.dumps(list(DIRECT_SCORES))
    for split in ("clip", "window"):
        override(
            Config(),
            [
                "scoring.threshold=official",
                f"train.split={split}",
                f"scores={scores}",
                "score=mse",
            ],
        )


def test_the_official_scores_are_direct_scores():
    assert set(OFFICIAL_SCORES) < set(DIRECT_SCORES)
