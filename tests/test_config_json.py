"""Configurations survive JSON, overrides change single fields, and NaN becomes null."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gammavae_jax.config import FUSION_SCORES, SCORE_NAMES, Config, TrainConfig
from gammavae_jax.config_json import (
    finite,
    from_dict,
    leaves,
    override,
    to_dict,
    with_none,
)
from gammavae_jax.errors import InputError
from gammavae_jax.runs.folder import append_metrics, read_metrics
from gammavae_jax.scoring.verdict import Verdict

counts = st.integers(1, 2**40)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
fractions = st.floats(0, 1, exclude_min=True, exclude_max=True)
DEFAULT = Config()
MAY_BE_FUSED = [name for name in SCORE_NAMES if name not in FUSION_SCORES]
VALUES = {
    "preset": st.text(),
    "scores": st.lists(st.sampled_from(SCORE_NAMES), min_size=1, unique=True),
    "score": st.sampled_from(SCORE_NAMES),
    "seed": st.integers(0, 2**31 - 1),
    "features.channel": st.integers(0, 8),
    "features.reference_channel": st.none() | st.integers(9, 16),
    "features.n_mels": counts,
    "features.power": positive,
    "model.latent": st.sampled_from(["deterministic", "gamma", "gaussian"]),
    "model.hidden": st.lists(counts, min_size=1),
    "model.prior_rate": positive | counts,
    "train.epochs": counts,
    "train.kl_weight": positive | st.just(0),
    "train.split": st.sampled_from(["folds", "clip"]),
    "train.n_folds": st.integers(2, 50),
    "train.group_distance": positive | st.just(0),
    "train.held_out_fraction": fractions,
    "scoring.jitter": positive,
    "scoring.fused": st.lists(st.sampled_from(MAY_BE_FUSED), min_size=1, unique=True),
    "scoring.n_density_neighbours": counts,
    "scoring.smote_ratio": st.floats(0, 1),
}


def is_coherent(values):
    """Return whether the headline score is listed and all scores can be computed."""
    scores = set(values.get("scores", DEFAULT.scores))
    if values.get("score", DEFAULT.score) not in scores:
        return False
    if scores & set(FUSION_SCORES):
        scores |= set(values.get("scoring.fused", DEFAULT.scoring.fused))
    has_posterior = values.get("model.latent", "gamma") != "deterministic"
    has_one_code = values.get("train.split", "folds") == "clip"
    return (has_posterior or not scores & {"kl", "negative_elbo"}) and (
        has_one_code or not any(name.startswith("latent_") for name in scores)
    )


assignments = st.fixed_dictionaries({}, optional=VALUES).filter(is_coherent)


@given(assignments)
def test_an_override_changes_only_its_field_and_survives_json(values):
    config = override(Config(), [f"{k}={json.dumps(v)}" for k, v in values.items()])
    assert leaves(to_dict(config)) == leaves(to_dict(Config())) | values
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_null_turns_an_optional_field_off():
    on = override(Config(), ["features.reference_channel=1"])
    assert on.features.reference_channel == 1
    assert override(on, ["features.reference_channel=null"]) == Config()


def test_missing_fields_get_their_defaults():
    assert from_dict({}) == Config()
    assert from_dict({"train": {"epochs": 3}}) == Config(train=TrainConfig(epochs=3))


def test_the_last_override_of_a_field_wins():
    assert override(Config(), ["train.epochs=5", "train.epochs=7"]).train.epochs == 7


@pytest.mark.parametrize("text", ["softmax", '"softmax"', " softmax"])
def test_a_string_needs_no_quotes(text):
    assert override(Config(), [f"model.heads={text}"]).model.heads == "softmax"


def test_an_integer_becomes_a_float_in_a_float_field():
    power = override(Config(), ["features.power=1"]).features.power
    assert type(power) is float


@pytest.mark.parametrize(
    ("field", "nearest"),
    [
        ("train.epoch", "train.epochs"),
        ("epochs", "train.epochs"),
        ("model.n_mels", "features.n_mels"),
        ("trian.epochs", "train.epochs"),
        ("train.epochs.x", "train.epochs"),
    ],
)
def test_an_unknown_field_is_refused_with_the_closest_name(field, nearest):
    with pytest.raises(InputError, match=f"'{field}': did you mean '{nearest}'"):
        override(Config(), [f"{field}=5"])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"trian": {}}, "unknown field 'trian': did you mean 'train'"),
        ({"train": {"epoch": 5}}, "'train.epoch': did you mean 'train.epochs'"),
        ({"train": 5}, "train must be a JSON object"),
        ({"model": []}, "model must be a JSON object"),
    ],
)
def test_a_damaged_configuration_is_refused(tree, message):
    with pytest.raises(InputError, match=message):
        from_dict(tree)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epochs", "'train.epochs' is not an assignment: write field=value"),
        ("", "'' is not an assignment"),
        ("=5", "unknown field ''"),
        ("train=5", "'train' is a group of fields: set one of train.epochs"),
        ("train.epochs=many", "train.epochs is 'many': use a value of type int"),
        ("train.epochs=5.0", "train.epochs is 5.0"),
        ("train.epochs=true", "train.epochs is True"),
        ("train.epochs=", "train.epochs is ''"),
        ("train.epochs=null", "train.epochs is None"),
        ("features.reference_channel=far", "reference_channel is 'far'"),
        ("features.reference_channel=true", "reference_channel is True"),
        ("train.learning_rate=true", "train.learning_rate is True"),
        ("train.learning_rate=NaN", "rate is 'NaN': use a finite number"),
        ("train.learning_rate=1e999", "rate is '1e999': use a finite number"),
        ("model.hidden=128", "model.hidden is 128"),
        ("model.hidden=[128,1.5]", "model.hidden is 1.5"),
        ("model.heads=softmaxx", "'softmaxx': did you mean 'softmax'"),
        ("model.latent=[1]", "unknown model.latent"),
        ("model.precision=float16", "unknown model.precision 'float16'"),
        ("scores=mse", "scores is 'mse'"),
        pytest.param("train.learning_rate=1" + "0" * 400, "learning_rate", id="long"),
        pytest.param("train.epochs=" + "9" * 5000, "train.epochs", id="very long"),
    ],
)
def test_an_invalid_value_is_refused(assignment, message):
    with pytest.raises(InputError, match=message):
        override(Config(), [assignment])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_a_number_that_is_not_finite_becomes_none_at_any_depth(value):
    assert finite(value) is None
    tree = {"a": [1.5, value, ("nan", value)], "b": {"c": value, "d": True}, "e": value}
    expected = {"a": [1.5, None, ["nan", None]], "b": {"c": None, "d": True}, "e": None}
    assert json.loads(json.dumps(with_none(tree), allow_nan=False)) == expected


def test_the_json_of_a_score_without_a_p_value_is_valid():
    """With official thresholds, there are no p-values."""
    record = Verdict("a.wav", "fan", 2.5, math.nan, -math.inf).entry()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    names = ("score", "p_value", "threshold", "is_anomaly", "state")
    assert [record[n] for n in names] == [2.5, None, None, True, "running"]


def test_a_loss_that_is_not_finite_is_null_and_others_keep_their_digits(tmp_path):
    losses = np.array([[0.1], [np.nan], [np.inf]], np.float32)
    append_metrics(tmp_path, 1, ["fan"], {"loss": losses})
    (line,) = read_metrics(tmp_path)
    assert line["machines"]["fan"]["loss"] == [0.1, None, None]
