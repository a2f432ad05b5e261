"""What a fitted detector says about recordings, beyond scores."""

import pickle

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import (
    check_estimator_repr,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)
from support.live_stubs import RATE, humming, put

import gammavae_jax as gv
from gammavae_jax.data.audio.files import open_recording
from gammavae_jax.data.states import State
from gammavae_jax.errors import InputError
from gammavae_jax.live.scorer import LiveScorer
from gammavae_jax.scoring.alarm_policy import AlarmPolicy

FAST = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]


def sound(seed, seconds=2.0, broken=False):
    return humming(seed, seconds, broken)


NORMAL = [sound(seed) for seed in range(12)]


def fast(**options):
    options = {"epochs": 1, "clip_seconds": 2.0, "verbose": False, **options}
    return gv.AnomalyDetector(settings=FAST, **options)


@pytest.fixture(scope="module")
def detector(one_device):
    return fast().fit({"fan": NORMAL}, sample_rate=RATE)


def changed(samples):
    """Return recordings whose states are not running, by their states."""
    half = len(samples) // 2
    ramp = np.where(np.arange(len(samples)) < half, 1e-4, 1.0)
    return {
        State.NO_SIGNAL: 0 * samples,
        State.OFF: 1e-4 * samples,
        State.CLIPPED: np.clip(4 * samples, -0.5, 0.5),
        State.GAIN_CHANGED: 0.25 * samples,
        State.STARTING: ramp * samples,
    }


@pytest.mark.parametrize("state", list(changed(sound(0))))
def test_a_machine_that_is_not_running_is_a_state_and_no_fault(detector, state):
    samples = changed(sound(50))[state].astype(np.float32)
    (verdict,) = detector.score_recordings(samples, RATE)
    assert (verdict.state, verdict.is_anomaly) == (state, False)
    assert verdict.states == {state: 1}
    assert not detector.predict(samples, RATE).any()
    assert (detector.decision_function(samples, RATE) <= 0).all()
    np.testing.assert_array_equal(detector.predict_proba(samples, RATE), [[1, 0]])


def test_only_the_clips_in_which_the_machine_runs_are_judged(detector):
    off, fault = 1e-4 * sound(50, 4.0), sound(51, 4.0, broken=True)
    (verdict,) = detector.score_recordings(np.concatenate([off, fault]), RATE)
    (of_fault,) = detector.score_recordings(fault, RATE)
    assert verdict.is_anomaly
    assert verdict.states == {State.OFF: 2, State.RUNNING: 2}
    assert verdict.score == of_fault.score
    assert [(s.start, s.end) for s in verdict.stretches] == [(4.0, 8.0)]
    (verdict,) = detector.score_recordings(
        np.concatenate([sound(53, 4.0), off, off]), RATE
    )
    assert (verdict.state, verdict.is_anomaly) == (State.RUNNING, False)


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_a_recording_read_in_blocks_has_the_same_states(detector, tmp_path, rate):
    samples = np.concatenate([sound(50, 4.0), *changed(sound(51)).values()])
    times = np.arange(round(len(samples) * rate / RATE)) * RATE / rate
    slow = np.interp(times, np.arange(len(samples)), samples)
    path = put(tmp_path / "x.wav", slow, rate)
    (expected,) = detector.score_recordings(path)
    with open_recording(path) as recording:
        found = LiveScorer(detector).score(recording, "fan", str(path)).verdict
    assert found == expected
    assert len(expected.states) >= 3


def test_the_page_leaves_out_clips_that_were_not_judged(detector, tmp_path):
    page = tmp_path / "page.html"
    detector.report([sound(50), 0 * sound(50)], page, RATE)
    text = page.read_text()
    assert "Not judged because of their states: array 1 (no signal)." in text
    assert text.count("array 1") == 1
    # These recordings have no labels, domains and sections.
    assert '<section id="results">' not in text
    assert '"name":"fan"' in text
    detector.report(0 * sound(50), page, RATE)  # better than no page
    text = page.read_text()
    assert "Not judged because of their states: array 0 (no signal)." in text


def test_scores_depend_neither_on_the_seed_nor_on_the_name_of_the_machine(detector):
    given = [sound(seed, broken=seed > 54) for seed in range(50, 60)]
    expected = detector.score_recordings(given, RATE)
    for seed, name in ((1, "fan"), (2, "pump")):
        other = fast(random_state=seed).fit({name: NORMAL}, sample_rate=RATE)
        found = other.score_recordings(given, RATE)
        assert [v._replace(machine="fan") for v in found] == expected


def test_fit_predict_finds_the_training_recording_that_stands_out():
    recordings = [*NORMAL, sound(99, broken=True)]
    stands_out = fast(false_alarm_rate=0.08).fit_predict(recordings, sample_rate=RATE)
    assert stands_out.tolist() == [False] * 12 + [True]
    by_machine = fast(false_alarm_rate=0.08).fit_predict(
        {"a": recordings, "b": NORMAL}, sample_rate=RATE
    )
    assert by_machine["a"].tolist() == stands_out.tolist()
    assert len(by_machine["b"]) == 12


def test_fit_predict_needs_folds():
    with pytest.raises(
        InputError, match=r"machine: .*no conformal .*train\.split=folds"
    ):
        fast(preset="vae").fit_predict(NORMAL, sample_rate=RATE)


def test_probabilities_are_p_values(detector):
    given = [sound(50), sound(51, broken=True)]
    verdicts = detector.score_recordings(given, RATE)
    p_values = [verdict.p_value for verdict in verdicts]
    probabilities = detector.predict_proba(given, RATE)
    np.testing.assert_allclose(probabilities.T, [p_values, 1 - np.array(p_values)])
    assert p_values[1] == 1 / 13


def test_an_explanation_of_a_recording_explains_its_highest_clip(detector):
    samples = np.concatenate([sound(50), sound(51, broken=True)])
    explained = detector.explain(samples, RATE)
    (verdict,) = detector.score_recordings(samples[2 * RATE :], RATE)
    assert explained.score == pytest.approx(verdict.score, rel=1e-3)
    shares = explained.band_shares
    assert shares.sum() == pytest.approx(explained.score, rel=1e-3)
    whistle = int(np.argmax(shares))  # at 3 kHz
    assert 60 < whistle < 100
    with pytest.raises(InputError, match="a single recording"):
        detector.explain([samples, samples], RATE)


def test_a_detector_that_is_not_fitted_says_so_as_scikit_learn_does():
    with pytest.raises(NotFittedError, match="not fitted: call fit first") as error:
        gv.AnomalyDetector().predict(NORMAL, RATE)
    assert isinstance(error.value, InputError)
    # Processes of joblib send their errors in this form.
    copied = pickle.loads(pickle.dumps(error.value))
    assert (type(copied), str(copied)) == (type(error.value), str(error.value))
    policy = AlarmPolicy(0.1, 5, 6)
    with pytest.raises(NotFittedError, match="not fitted: call fit first"):
        gv.AnomalyDetector().alarms(NORMAL, policy, RATE)


@pytest.mark.parametrize(
    "check",
    [
        check_parameters_default_constructible,
        check_get_params_invariance,
        check_set_params,
        check_no_attributes_set_in_init,
        check_estimator_repr,
    ],
)
def test_scikit_learns_checks_of_parameters_pass(check):
    """Its other checks fit to a table of numbers, but a recording is no row."""
    check("AnomalyDetector", gv.AnomalyDetector())


def test_a_loaded_detector_shows_no_settings_unless_it_has_some():
    assert repr(gv.AnomalyDetector(settings=[])) == "AnomalyDetector()"
    text = "settings=['train.n_folds=2']"
    assert text in repr(gv.AnomalyDetector(settings=["train.n_folds=2"]))


def test_a_parameter_may_be_a_numpy_number():
    rate = np.linspace(0.05, 0.1, 2)[0]
    detector = gv.AnomalyDetector(false_alarm_rate=rate)
    assert "false_alarm_rate=np.float64(0.05)" in repr(detector)
