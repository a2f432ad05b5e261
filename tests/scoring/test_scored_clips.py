"""Tables of scored clips: the machines in them, and the decisions on clips."""

import io
import math

import numpy as np
import pytest
from rich.console import Console
from support.probes import clips

from gammavae_jax.log import Log
from gammavae_jax.scoring.scored_clips import ScoredClips, finite_machines
from gammavae_jax.scoring.verdict import Verdict


def log():
    return Log(Console(file=io.StringIO()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_machine_with_one_score_that_is_not_finite_is_left_out_and_named(bad, seed):
    test = [(name, clips([np.zeros((5, 2))] * 3)) for name in ("one", "two", "three")]
    scores = {name: np.zeros((2, 3, 4)) for name in ("mse", "kl")}
    scores["kl"][seed, 1, 2] = bad
    scores["mse"][seed, 2, 3] = bad  # padding
    notes = log()
    assert finite_machines(scores, test, notes) == [0, 2]
    (note,) = notes.notes
    assert note.startswith("two: the scores are not finite")


def test_a_score_equal_to_the_threshold_is_not_an_anomaly():
    assert not Verdict("a.wav", "fan", 2.0, 0.5, threshold=2.0).is_anomaly
    assert Verdict("a.wav", "fan", math.nextafter(2.0, 3.0), 0.5, 2.0).is_anomaly
    scores = {"mse": np.array([[1.0, 2.0, 2.5], [2.5, 2.0, 3.5]])}
    table = ScoredClips(
        *("fan", "00", ("a", "b", "c"), ("",) * 3, ("", "source", "target")),
        *(scores, {"mse": np.array([2.0, 2.5])}, {}, (1, 2)),
    )
    expected = [[False, False, True], [False, False, True]]
    assert table.decisions("mse").tolist() == expected
    assert table.is_target.tolist() == [False, False, True]
    assert table.is_anomaly is None
    labelled = table._replace(labels=("normal", "anomaly", "normal")).is_anomaly
    assert labelled is not None
    assert labelled.tolist() == [False, True, False]
