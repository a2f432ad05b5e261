"""Learning normal recordings without retraining."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import gammavae_jax as gv
from gammavae_jax.config_json import override
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.recordings.clips import joined
from gammavae_jax.data.training_clips import as_recordings
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.presets import preset
from gammavae_jax.scoring.detector import with_false_alarm_rate
from gammavae_jax.scoring.learn import (
    _dealt,
    _refitted,
    learn,
    reconstruction_note,
)
from gammavae_jax.training.members import NO_FOLD

pytestmark = pytest.mark.usefixtures("one_device")

RATE = 16000
SETTINGS = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]
SCORE, GAUSS = "fusion_smooth_max", "mahalanobis"


def hum(seed, pitch=300.0, seconds=1.0):
    """Return the sound of a machine, whose load sets the pitch."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    gain = 10 ** (rng.normal(0, 1) / 20)
    tone = gain * np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * time)
    return (0.1 * tone + 0.03 * rng.standard_normal(len(time))).astype(np.float32)


PUMP = [hum(seed) for seed in range(24)]
FAN = [hum(100 + seed, 900.0) for seed in range(12)]
NEW = [hum(200 + seed) for seed in range(4)]
LOAD = [hum(300 + seed, 1500.0) for seed in range(22)]


def fast(*settings, **options):
    options = {"epochs": 1, "clip_seconds": 1.0, "verbose": False, **options}
    return gv.AnomalyDetector(settings=[*SETTINGS, *settings], **options)


@pytest.fixture(scope="module")
def fitted():
    return fast().fit({"pump": PUMP[:12], "fan": FAN}, sample_rate=RATE)


@pytest.fixture(scope="module")
def whole():
    return fast().fit({"pump": PUMP}, sample_rate=RATE)


@pytest.fixture
def detector(fitted):
    """Return a copy, since learning changes an estimator."""
    return copy.copy(fitted)


def values_of(detector, machine) -> list[Any]:
    """Return the values of one machine, without padding, and the scores of a clip."""
    stored, number = detector.detector_, detector.machines_.index(machine)
    held_out = {n: v[0, number] for n, v in stored.calibration.items()}
    n_clips = int((~np.isnan(held_out[stored.config.score])).sum())
    references = [
        leaf[:, number][:, :n_clips] if leaf.ndim > 2 else leaf[:, number]
        for of in stored.references.values()
        for leaf in (of.clips, of.radius, of.parents, of.location, of.exponent)
    ]
    return [
        *jax.tree.leaves(jax.tree.map(lambda leaf: leaf[:, number], stored.scorer)),
        *references,
        *(values[:n_clips] for values in held_out.values()),
        stored.weights[number, :n_clips],
        *(values[:, number] for values in stored.thresholds.values()),
    ]


def close(ours, theirs):
    """Assert that headline scores, which spread over about 3, differ by 0.01 at most.

    With more training clips, rounding has less influence: see docs/own-machines.md.
    """
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=0.01)


def test_learning_nothing_changes_scores_only_by_rounding(detector):
    """The stored log-mels are rounded to 1/200 dB."""
    stored, kept = detector.detector_, detector._kept
    every = {name: as_recordings(kept[name]) for name in detector.machines_}
    folds = [kept[name].fold for name in detector.machines_]
    again, _ = _refitted(stored, every, folds, Log())
    close(again.calibration[SCORE], stored.calibration[SCORE])
    close(again.thresholds[SCORE], stored.thresholds[SCORE])
    np.testing.assert_array_equal(again.weights, stored.weights)


def test_arrays_keep_their_size_while_it_is_enough(detector):
    sizes = []
    for learnt in (NEW, LOAD[:8], LOAD[8:]):
        detector.partial_fit({"pump": learnt}, sample_rate=RATE)
        sizes.append(detector.detector_.weights.shape[-1])
    assert sizes == [32, 32, 48]  # for 16, 24 and 38 clips


def test_learning_two_halves_in_turn_gives_the_same_scores_as_all_at_once(
    detector, whole
):
    detector.partial_fit({"pump": PUMP[12:]}, sample_rate=RATE)
    for recordings in (NEW, LOAD[:2]):
        ours = detector.score_samples({"pump": recordings}, RATE)["pump"]
        close(ours, whole.score_samples(recordings, RATE))
    close(detector.threshold_["pump"], whole.threshold_["pump"])
    ours, theirs = (of.detector_.conditions["pump"] for of in (detector, whole))
    assert ours._replace(sound=None) == theirs._replace(sound=None)
    assert ours.n_recordings == 24


def test_a_new_load_no_longer_raises_alarms_and_the_old_verdicts_stay(detector):
    before = detector.predict({"pump": NEW + LOAD[10:]}, RATE)["pump"]
    assert before[4:].all()
    learnt = detector.partial_fit({"pump": LOAD[:10]}, sample_rate=RATE).learnt_
    after = detector.predict({"pump": NEW + LOAD[10:]}, RATE)["pump"]
    np.testing.assert_array_equal(after[:4], before[:4])
    assert after[4:].mean() <= 0.1
    assert len(learnt) == 10
    assert np.mean([verdict.is_anomaly for verdict in learnt]) <= 0.2


def test_other_machines_keep_every_value_to_the_last_bit(detector):
    before = values_of(detector, "fan")
    scores = detector.score_samples({"fan": FAN}, RATE)["fan"]
    detector.partial_fit({"pump": PUMP[12:]}, sample_rate=RATE)
    assert detector.detector_.weights.shape[-1] > 16  # so the padding grew
    for ours, theirs in zip(values_of(detector, "fan"), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again = detector.score_samples({"fan": FAN}, RATE)["fan"]
    np.testing.assert_allclose(again, scores, rtol=1e-6)


def test_training_clips_stay_in_their_folds_and_new_ones_fill_all_folds(detector):
    before = detector._kept["pump"].fold
    detector.partial_fit({"pump": LOAD[:6]}, sample_rate=RATE)
    after = detector._kept["pump"].fold
    np.testing.assert_array_equal(after[:12], before)
    assert sorted(np.bincount(after[12:])) == [3, 3]


def test_clips_of_one_recording_or_group_go_into_the_same_fold(detector):
    long = [np.concatenate(LOAD[2 * n : 2 * n + 2]) for n in range(4)]
    groups = ["monday", "monday", "tuesday", "wednesday"]
    detector.partial_fit({"pump": long}, sample_rate=RATE, groups={"pump": groups})
    fold = detector._kept["pump"].fold[12:].reshape(4, 2)
    assert (fold[:, 0] == fold[:, 1]).all()
    assert fold[0, 0] == fold[1, 0]
    assert detector.detector_.conditions["pump"].n_recordings == 12 + 3


def test_new_clips_of_an_old_group_go_into_the_fold_of_this_group():
    """The models of the other folds were trained on the group."""
    days = ["monday", "monday", "tuesday", "tuesday", "monday", "friday", "friday"]
    files = tuple(clip_file(Path(f"{n} {day}.wav")) for n, day in enumerate(days))
    config = override(preset("default"), ["train.group_by=[a-z]+day"])
    for fold in range(config.n_folds):
        old = np.array([fold, fold, NO_FOLD])
        (every,) = _dealt(config, [("pump", Clips(files, ()))], [old])
        assert every[[0, 1, 4]].tolist() == [fold] * 3
        assert every[3] != NO_FOLD
        assert every[5] == every[6]


def test_the_parts_of_a_single_recording_are_still_compared_with_each_other():
    """If parts were compared only with a new load, they would look like faults."""
    single = fast("train.n_folds=3").fit(
        {"pump": [np.concatenate(PUMP)]}, sample_rate=RATE
    )
    stored = single.detector_
    for number in range(2):
        new = np.concatenate(LOAD[4 * number : 4 * number + 4])
        single.partial_fit({"pump": [new]}, sample_rate=RATE)
        learnt = single.detector_
        before, after = (
            of.calibration["spectrum_varmin"][0, 0, :24] for of in (stored, learnt)
        )
        assert np.median(after) < 2 * np.median(before)  # otherwise 8 to 22 times
        assert learnt.conditions["pump"].n_recordings == number + 2


def test_known_recordings_are_named_and_not_learnt_again(detector, capsys):
    detector.verbose = True
    detector.partial_fit({"pump": [PUMP[3], NEW[0]]}, sample_rate=RATE)
    assert [verdict.name for verdict in detector.learnt_] == ["array 1"]
    assert (
        "pump: already known, so not learnt again: array 0" in capsys.readouterr().err
    )
    before = detector.detector_
    with pytest.raises(InputError, match="pump: nothing to learn"):
        detector.partial_fit({"pump": [PUMP[3], NEW[0]]}, sample_rate=RATE)
    assert detector.detector_ is before


def test_clips_in_which_the_machine_is_off_are_named_and_left_out(detector, capsys):
    detector.verbose = True
    silence = np.zeros(RATE, np.float32)
    given = [silence, np.concatenate([NEW[0], silence])]
    detector.partial_fit({"pump": given}, sample_rate=RATE)
    assert [v.n_clips for v in detector.learnt_] == [1]
    text = "running were left out: array 0 (no signal), array 1 (no signal)"
    assert text in capsys.readouterr().err


def test_the_current_false_alarm_rate_is_used(detector, whole):
    detector.set_params(false_alarm_rate=0.3)
    detector.partial_fit({"pump": PUMP[12:]}, sample_rate=RATE)
    expected = with_false_alarm_rate(whole.detector_, 0.3).thresholds[SCORE][0, 0]
    close(detector.threshold_["pump"], expected)


@pytest.mark.parametrize("name", ["official", "vae"])
def test_learning_needs_conformal_thresholds_and_folds(detector, name):
    other = dataclasses.replace(detector.detector_, config=preset(name))
    message = "conformal thresholds and folds: refit"
    with pytest.raises(InputError, match=message):
        learn(other, {}, {}, Log())
    detector._take(other, detector._parameters, {})
    with pytest.raises(InputError, match=message):  # not a message on training clips
        detector.partial_fit(NEW, sample_rate=RATE)


@pytest.mark.parametrize(("score", "is_changed"), [(SCORE, False), (GAUSS, True)])
def test_normal_distributions_are_refitted_if_scores_use_them(
    detector, score, is_changed
):
    stored, kept = detector.detector_, detector._kept
    config = dataclasses.replace(stored.config, score=score, scores=(score,))
    stored = dataclasses.replace(stored, config=config)
    every = {name: as_recordings(kept[name]) for name in detector.machines_}
    folds = [kept[name].fold for name in detector.machines_]
    every["pump"] = joined(every["pump"], every["fan"])
    again, _ = _refitted(stored, every, folds, Log())
    old, new = stored.scorer.source.factor, again.scorer.source.factor
    assert (np.abs(new[:, 0] - old[:, 0]).max() > 0.1) == is_changed
    np.testing.assert_allclose(new[:, 1], old[:, 1], atol=0.1)


@pytest.mark.parametrize(
    ("name", "effect"), [("default", "only plots need it"), ("gammavae", "scores")]
)
def test_a_new_fit_is_advised_if_the_model_no_longer_reconstructs(name, effect):
    old, config = np.arange(40.0), preset(name)
    config = dataclasses.replace(config, scores=(config.score,))
    note = reconstruction_note(old, np.array([1.0, 2.0, 38.5, 50.0, 60.0]), config)
    assert note.startswith("the model reconstructs the new recordings worse than 98 %")
    assert effect in note
    assert (
        reconstruction_note(old, np.array([1.0, 2.0, 37.5, 50.0, 60.0]), config) == ""
    )
    assert reconstruction_note(old, np.full(4, 50.0), config) == ""


def test_the_reconstruction_errors_of_old_and_new_clips_are_compared(
    detector, monkeypatch, capsys
):
    seen = []

    def note(old, new, config):
        seen.append((len(old), len(new)))
        return "advice"

    monkeypatch.setattr("gammavae_jax.scoring.learn.reconstruction_note", note)
    detector.verbose = True
    detector.partial_fit({"pump": LOAD[:6]}, sample_rate=RATE)
    assert seen == [(12, 6)]
    assert "pump: advice" in capsys.readouterr().err


def test_new_clips_are_compared_with_a_sample_of_many_training_clips(
    detector, monkeypatch
):
    seen = []

    def note(old, new, config):
        seen.append((len(old), len(new)))
        return ""

    monkeypatch.setattr("gammavae_jax.scoring.learn.reconstruction_note", note)
    monkeypatch.setattr("gammavae_jax.scoring.learn._ENOUGH_OLD", 5)
    detector.partial_fit({"pump": LOAD[:6]}, sample_rate=RATE)
    assert seen == [(4, 6)]  # every third of the twelve training clips


def test_a_partial_fit_before_fit_is_a_full_fit(monkeypatch):
    monkeypatch.setattr(gv.AnomalyDetector, "fit", lambda self, *given: given)
    assert fast().partial_fit(NEW, [0] * 4, RATE, groups="abcd") == (
        *(NEW, [0] * 4, RATE),
        "abcd",
    )
