"""Numbers that JSON cannot represent become null, at any depth."""

import json
import math

import numpy as np
import pytest

from gammavae_jax.runs.folder import append_metrics, read_metrics
from gammavae_jax.scoring.json_numbers import finite, with_none
from gammavae_jax.scoring.verdict import Verdict


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
