"""The thresholds for other false-alarm rates, and how certain they are."""

from dataclasses import replace

import numpy as np
import pytest
from support.detectors import fitted, small
from support.probes import clips, noise

from gammavae_jax.data.conditions import Conditions
from gammavae_jax.errors import InputError
from gammavae_jax.scoring.detector import with_false_alarm_rate
from gammavae_jax.scoring.sample_size import false_alarm_range
from gammavae_jax.scoring.sensitivity import (
    sensitivities,
    training_summaries,
    unsupported_machines,
)
from gammavae_jax.scoring.threshold import conformal_threshold

SCORE = "fusion_smooth_max"
RATES = (0.5, 0.2, 0.1, 0.05)


@pytest.fixture(scope="module")
def detector():
    """Two machines with 12 and 30 clips; the 30 clips count as 20 independent ones."""
    rng = np.random.default_rng(0)
    machines = [(f"m{n}", clips(noise(rng, n))) for n in (12, 30)]
    config = small("default", f'scores=["{SCORE}"]')
    made = fitted(config, machines, 0).detector
    weights = made.weights.copy()
    weights[1, :20] = 0.5
    return replace(made, weights=weights)


@pytest.mark.parametrize("machine", [0, 1])
def test_each_rate_has_its_conformal_threshold_and_the_alarms_that_it_gives(
    detector, machine
):
    n_clips = (12, 30)[machine]
    held_out = detector.calibration[SCORE][0, machine, :n_clips]
    weights = detector.weights[machine, :n_clips]
    found = sensitivities(detector, RATES)[f"m{n_clips}"]
    for rate, of_rate in zip(RATES, found, strict=True):
        expected = conformal_threshold(held_out, rate, weights)
        n_alarms = (held_out > expected).sum()
        assert of_rate == (rate, expected, n_alarms, n_clips, (12.0, 20.0)[machine])
        assert of_rate.probable_rate == false_alarm_range(of_rate.n_recordings, rate)
    assert [f.n_alarms for f in found] == sorted(
        (f.n_alarms for f in found), reverse=True
    )
    # A rate of 0.1 needs 9 independent recordings, and 0.05 needs 19.
    assert [f.is_supported for f in found] == [True] * 3 + [machine == 1]


def test_machines_with_too_few_independent_recordings_are_named(detector):
    def at(rate):
        scoring = replace(detector.config.scoring, false_alarm_rate=rate)
        config = replace(detector.config, scoring=scoring)
        return unsupported_machines(replace(detector, config=config))

    assert at(0.1) == ""
    assert at(0.05) == (
        "A false-alarm rate of 0.05 needs 19 independent recordings, which some "
        "machines lack: m12 (12). Expect more false alarms from them."
    )
    assert "which some machines lack: m12 (12), m30 (20). Expect" in at(0.01)


def test_the_number_of_recordings_stored_by_fit_is_used(detector):
    """The clips of one long recording are compared with each other, but count once."""
    cut = Conditions((1.0, 1.0), (-60.0, -50.0), (16000,), (), 0.7, n_recordings=3.0)
    alone = replace(detector, conditions={"m30": cut})
    found = sensitivities(alone, [0.1])
    assert [found[name][0].n_recordings for name in ("m12", "m30")] == [12.0, 3.0]
    assert "lack: m30 (3)." in unsupported_machines(alone)


def test_a_failed_model_has_no_threshold(detector):
    scores = detector.calibration[SCORE].copy()
    scores[:, 0] = np.nan
    failed = replace(detector, calibration={**detector.calibration, SCORE: scores})
    (of_failed,) = sensitivities(failed, [0.1])["m12"]
    assert np.isnan(of_failed.threshold)
    assert of_failed[2:] == (0, 0, 0.0)
    assert sensitivities(failed, [0.1])["m30"] == sensitivities(detector, [0.1])["m30"]


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, np.nan])
def test_a_rate_out_of_range_is_refused(detector, rate):
    with pytest.raises(InputError, match="false_alarm_rate"):
        sensitivities(detector, [rate])


def test_other_rates_are_refused_for_official_thresholds(detector):
    official = replace(detector, config=small("official"))
    with pytest.raises(InputError, match=r"train with scoring\.threshold=conformal"):
        sensitivities(official, [0.1])


def test_the_summary_of_a_fit_says_what_its_thresholds_are_based_on(detector):
    conditions = Conditions(
        (2.0, 2.0), (-60.0, -50.0), (16000,), (), 0.7, total_seconds=24.0
    )
    texts = training_summaries(replace(detector, conditions={"m12": conditions}))
    few, many = (false_alarm_range(n, 0.1) for n in (12.0, 100.0))
    assert texts["m12"] == (
        "12 clips (0.4 minutes), 12 independent recordings. With a false-alarm rate "
        f"of 10 %, probably {100 * few[0]:.1f} to {100 * few[1]:.0f} % of new normal "
        "recordings will raise an alarm; with 100 independent recordings, it would be "
        f"{100 * many[0]:.1f} to {100 * many[1]:.0f} %"
    )
    assert texts["m30"].startswith("30 clips, 20 independent recordings. With")


def test_the_summary_says_how_many_recordings_are_missing(detector):
    texts = training_summaries(with_false_alarm_rate(detector, 0.05))
    assert texts["m12"] == (
        "12 clips, 12 independent recordings. With a false-alarm rate of 5 %, 19 "
        "independent recordings are needed: record at least 7 more, on other days"
    )


def test_a_detector_whose_thresholds_are_not_conformal_has_no_summary(detector):
    scoring = replace(detector.config.scoring, threshold="gamma")
    other = replace(detector, config=replace(detector.config, scoring=scoring))
    assert training_summaries(other) == {"m12": "", "m30": ""}
