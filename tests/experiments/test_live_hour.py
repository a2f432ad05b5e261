"""The comparison of watch, serve and Python on an hour of audio."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from experiments import live_hour
from experiments.machines import fitted
from gammavae_jax.data.loading import Source, find_all
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.errors import InputError

START = {"recording": "30.wav", "seconds": 60.0}
RAISED = {"recording": "30.wav", "seconds": 480.0}
ALARM = {"start": START, "raised": RAISED, "end": None, "is_held": False}
OVER = {**ALARM, "end": {"recording": "50.wav", "seconds": 300.0}}
ENTRIES = [[0.25, 0.5, None, []], [1.5, 0.1, ALARM, [ALARM]], [0.5, 0.4, None, [OVER]]]
FILES: Any = SimpleNamespace(machine="fan")


@pytest.fixture
def files(tmp_path):
    """Make a synthetic fan with clips of 1 to 1.5 s."""
    size = SyntheticSize(n_source=12, n_target=2, n_test=8, seconds=(1.0, 1.5))
    root = make_synthetic(tmp_path / "data", {"fan": size})
    (files,) = find_all(Source(root, ("fan",)))
    return files


@pytest.fixture
def results(monkeypatch):
    """Replace the three ways of scoring; return the results, which tests may change."""
    found = {name: ENTRIES for name in ("in_python", "by_watch", "by_service")}
    for name in found:
        monkeypatch.setattr(live_hour, name, lambda *_, name=name: found[name])
    monkeypatch.setattr(live_hour, "write_hour", lambda *_: [])
    return found


def compare(policy=lambda rate: rate):
    detector: Any = SimpleNamespace(save=lambda path: None, alarm_policy=policy)
    return list(live_hour.compare(detector, FILES, [5]))


def test_equal_results_are_described(results):
    expected = "fan, 5 per day: raised at minute 38; ended at minute 55"
    assert compare() == [expected]
    results |= {name: ENTRIES[:1] for name in results}
    assert compare() == ["fan, 5 per day: no alarm"]


@pytest.mark.parametrize(
    ("way", "command"), [("by_watch", "watch"), ("by_service", "serve")]
)
def test_a_difference_in_the_last_digit_is_an_error(results, way, command):
    other = math.nextafter(0.25, 1)
    results[way] = [[other, *ENTRIES[0][1:]], *ENTRIES[1:]]
    with pytest.raises(RuntimeError, match=f"^{command} and Python differ for fan"):
        compare()


def test_a_rate_that_cannot_be_guaranteed_is_reported(results):
    def refuse(rate):
        raise InputError(f"{rate:g} cannot be guaranteed")

    assert compare(refuse) == ["fan, 5 per day: refused: 5 cannot be guaranteed"]


def test_the_recordings_are_of_equal_length_and_in_order(files, tmp_path, monkeypatch):
    monkeypatch.setattr(live_hour, "HOUR", (("normal", 0.4), ("anomaly", 0.2)))
    paths = live_hour.write_hour(files, tmp_path)
    assert [path.name for path in paths] == [f"{minute}0.wav" for minute in range(6)]
    assert [soundfile.info(path).frames for path in paths] == [6 * 16000] * 6
    times = [path.stat().st_mtime for path in paths]
    assert np.all(np.diff(times) > 0)


@pytest.mark.slow
def test_the_commands_agree_with_python(files, monkeypatch, one_device):
    monkeypatch.setattr(live_hour, "HOUR", (("normal", 0.4), ("anomaly", 0.2)))
    (line,) = live_hour.compare(fitted(files), files, [5000.0])
    assert line.startswith("fan, 5000 per day: ")
    assert "refused" not in line
