"""The comparison of watch, serve and Python on an hour of audio."""

import math
from types import SimpleNamespace

import pytest

from experiments import live_hour

START = {"recording": "30.wav", "seconds": 60.0}
RAISED = {"recording": "30.wav", "seconds": 480.0}
ALARM = {"start": START, "raised": RAISED, "end": None, "is_held": False}
OVER = {**ALARM, "end": {"recording": "50.wav", "seconds": 300.0}}
ENTRIES = [[0.25, 0.5, None, []], [1.5, 0.1, ALARM, [ALARM]], [0.5, 0.4, None, [OVER]]]
FILES = SimpleNamespace(machine="fan")


@pytest.fixture
def results(monkeypatch):
    """Replace the three ways of scoring; return the results, which tests may change."""
    found = {name: ENTRIES for name in ("in_python", "by_watch", "by_service")}
    for name in found:
        monkeypatch.setattr(live_hour, name, lambda *_, name=name: found[name])
    monkeypatch.setattr(live_hour, "write_hour", lambda *_: [])
    return found


def compare():
    detector = SimpleNamespace(save=lambda path: None)
    return list(live_hour.compare(detector, FILES, [5]))


def test_equal_results_are_described(results):
    expected = "fan, 5 per day: raised at minute 38; ended at minute 55"
    assert compare() == [expected]
    results |= {name: ENTRIES[:1] for name in results}
    assert compare() == ["fan, 5 per day: no alarm"]


@pytest.mark.parametrize("name", ["watch", "service"])
def test_a_difference_in_the_last_digit_is_an_error(results, name):
    other = math.nextafter(0.25, 1)
    results[f"by_{name}"] = [[other, *ENTRIES[0][1:]], *ENTRIES[1:]]
    with pytest.raises(RuntimeError, match="differ for fan"):
        compare()


def test_a_rate_in_a_command_is_an_option():
    arguments = live_hour.command("serve", "--port", 0, 0.2)
    assert arguments[3:] == ["serve", "--port", "0", "--false-alarms-per-day", "0.2"]
