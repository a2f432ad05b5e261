"""`AnomalyDetector` on recordings, from fitting to the report page."""

import copy
import dataclasses
import inspect
import json
import pickle
import re
from typing import Any

import joblib
import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score

import gammavae_jax as gv
from gammavae_jax.data.arrays import HELD_OUT
from gammavae_jax.data.recordings.sources import of_training
from gammavae_jax.errors import InputError
from gammavae_jax.runs.checkpoint import (
    load_detector,
    load_with_files,
    save_detector,
)
from gammavae_jax.runs.detector_parameters import plain_parameters
from gammavae_jax.scoring.detector import with_false_alarm_rate
from gammavae_jax.scoring.short_clips import SHARES
from gammavae_jax.scoring.threshold import conformal_threshold

pytestmark = pytest.mark.usefixtures("one_device")

SMALL = [
    "model.hidden=[16]",
    "model.n_latent=4",
    "train.batch_size=32",
    "train.n_folds=2",
]
RATE = 16000


def hum(seed, seconds=1.0, rate=RATE, click=False):
    """Return a machine's sound, a tone in noise; a broken machine also rattles."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = 0.1 * rng.standard_normal(len(time)) + 0.2 * np.sin(2 * np.pi * 300 * time)
    if click:
        sound += 0.5 * np.sin(2 * np.pi * 3000 * time) * (np.sin(60 * time) > 0.5)
    return sound.astype(np.float32)


NORMAL = [hum(seed) for seed in range(12)]
NEW = [hum(100 + seed, click=seed % 2 == 1) for seed in range(10)]
IS_BROKEN = np.arange(10) % 2 == 1


def small(**options):
    options = {"epochs": 3, "clip_seconds": 1.0, "verbose": False, **options}
    return gv.AnomalyDetector(settings=SMALL, **options)


@pytest.fixture(scope="module")
def detector():
    return small().fit(NORMAL, RATE)


@pytest.fixture
def training(monkeypatch):
    """Return a function that captures the arguments of the training and skips it."""
    seen = {}

    def no_training(config, examples, observer):
        split = examples.split
        seen.update(config=config, window_use=split.window_use, split=split)
        raise InputError("enough")

    def arguments_of(detector, recordings, **options):
        with pytest.raises(InputError, match="enough"):
            detector.fit(recordings, RATE, **options)
        return seen

    monkeypatch.setattr("gammavae_jax.scoring.fit.train_examples", no_training)
    return arguments_of


def test_a_broken_machine_is_detected(detector):
    scores = detector.score_samples(NEW, RATE)
    assert roc_auc_score(IS_BROKEN, scores) == 1
    assert detector.predict(NEW, RATE)[IS_BROKEN].all()


def test_scores_threshold_and_decisions_agree(detector):
    scored = detector.score_recordings(NEW, RATE)
    scores = detector.score_samples(NEW, RATE)
    threshold = detector.threshold_["machine"]
    assert [r.score for r in scored] == scores.tolist()
    assert {r.threshold for r in scored} == {threshold}
    np.testing.assert_array_equal(
        detector.decision_function(NEW, RATE), scores - threshold
    )
    np.testing.assert_array_equal(detector.predict(NEW, RATE), scores > threshold)
    # Twelve clips are enough for a rate of 0.1, so the p-values agree.
    np.testing.assert_array_equal(
        [r.p_value <= 0.1 for r in scored], scores > threshold
    )


def test_the_threshold_is_based_on_every_training_clip_held_out(detector):
    calibration = detector.detector_.calibration["fusion_smooth_max"][0, 0]
    assert np.isfinite(calibration).sum() == len(NORMAL)
    expected = conformal_threshold(calibration[: len(NORMAL)], 0.1)
    assert detector.threshold_ == {"machine": expected}


def test_a_score_does_not_depend_on_the_other_recordings(detector):
    among = detector.score_samples([*NEW, hum(7, seconds=1.4)], RATE)
    alone = [detector.score_samples(clip, RATE)[0] for clip in NEW]
    np.testing.assert_allclose(alone, among[:-1], rtol=1e-4, atol=1e-5)


def test_files_folders_and_arrays_give_the_same_scores(detector, tmp_path):
    for number, clip in enumerate(NEW[:3]):
        soundfile.write(tmp_path / f"{number}.wav", clip, RATE, "FLOAT")
    expected = detector.score_samples(NEW[:3], RATE)
    for given in (tmp_path, str(tmp_path), sorted(tmp_path.iterdir())):
        np.testing.assert_array_equal(detector.score_samples(given), expected)


def test_a_long_recording_gets_the_mean_score_of_its_clips(detector):
    whole = detector.score_samples(np.concatenate(NEW[:3]), RATE)
    each = detector.score_samples(NEW[:3], RATE)
    np.testing.assert_allclose(whole, [each.mean()], rtol=1e-3)


def test_one_long_recording_suffices_for_training(training):
    use = training(small(), np.concatenate(NORMAL))["window_use"]
    is_held_out = (use[:, 0] == HELD_OUT).any(-1)
    assert is_held_out.all()
    # Successive clips are held out together, so there is one change.
    of_window = use[0, 0][use[0, 0] > 0] == HELD_OUT
    assert np.abs(np.diff(of_window.astype(int))).sum() == 1


def test_clips_of_one_recording_are_held_out_together(training):
    recordings = [np.concatenate(NORMAL[2 * k : 2 * k + 2]) for k in range(6)]
    use = training(small(), recordings)["window_use"]
    of_recording = (use[0, 0] == HELD_OUT).reshape(6, -1)
    assert (of_recording.all(1) == of_recording.any(1)).all()
    assert 0 < of_recording.all(1).sum() < 6


def test_recordings_of_one_group_are_held_out_together_and_never_compared(
    training, tmp_path, capsys
):
    """Groups are given as labels, or by a pattern that matches paths."""
    day = np.arange(12) % 4
    for number, clip in enumerate(NORMAL):
        path = tmp_path / f"{number:02}_day{day[number]}.wav"
        soundfile.write(path, clip, RATE, "FLOAT")
    by_name = small(verbose=True)
    by_name.settings = [*SMALL, 'train.group_by="day([0-9])"']
    for detector, recordings, groups in (
        (small(verbose=True), NORMAL, day),
        (small(verbose=True), {"machine": NORMAL}, {"machine": list(map(str, day))}),
        (by_name, tmp_path, None),
    ):
        split = training(detector, recordings, groups=groups)["split"]
        linked = split.is_linked[0, :12, :12]  # the rest is padding, for `learn`
        np.testing.assert_array_equal(linked, day[:, None] == day)
        for member in split.is_held_out[:, 0, :12]:
            assert len(set(day[member]) & set(day[~member])) == 0
            assert 0 < member.sum() < 12
        notes = capsys.readouterr().err
        assert "needs 9 held-out recordings" in notes
        assert "machine (has 4)" in notes
    with pytest.raises(
        InputError, match="the argument 'groups' has 2 labels for 12 usable recordings"
    ):
        small().fit(NORMAL, RATE, groups=[0, 1])


def test_a_dict_gives_recordings_of_several_machines(detector):
    high = [hum(s) + 0.2 * hum(s, click=True) for s in range(20, 28)]
    both = small().fit({"saw": high, "machine": NORMAL}, RATE)
    assert both.machines_ == ("saw", "machine")
    scores = both.score_samples({"machine": NEW, "saw": high[:2]}, RATE)
    assert {name: len(values) for name, values in scores.items()} == {
        "machine": 10,
        "saw": 2,
    }
    alone = detector.score_samples(NEW, RATE)
    np.testing.assert_allclose(scores["machine"], alone, rtol=1e-2, atol=1e-2)
    (scored,) = both.score_recordings(NEW[0], RATE, machine="machine")
    assert (scored.machine, scored.name) == ("machine", "array 0")
    assert scored.threshold == both.threshold_["machine"] != both.threshold_["saw"]
    with pytest.raises(InputError, match="saw, machine: state which machine"):
        both.score_samples(NEW, RATE)
    with pytest.raises(InputError, match="did you mean 'machine'"):
        both.predict({"machin": NEW}, RATE)


def test_a_loaded_detector_gives_the_same_scores(detector, tmp_path):
    path = tmp_path / "pump.detector"
    detector.save(path)
    detector.save(path)  # replaces the detector that it saved before
    loaded = gv.AnomalyDetector.load(path, verbose=False)
    np.testing.assert_array_equal(
        loaded.score_samples(NEW, RATE), detector.score_samples(NEW, RATE)
    )
    assert loaded.threshold_ == detector.threshold_
    assert [p.name for p in tmp_path.iterdir()] == ["pump.detector"]
    assert load_detector(path).config == detector.detector_.config


def test_saving_only_replaces_a_detector(detector, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not a detector"):
        detector.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    with pytest.raises(InputError, match="contains no detector: pass"):
        gv.AnomalyDetector.load(tmp_path / "mine")


def test_another_sample_rate_is_resampled_with_one_note(detector, tmp_path, capsys):
    detector.save(tmp_path / "machine.detector")
    loud = gv.AnomalyDetector.load(tmp_path / "machine.detector")
    for _ in range(2):
        loud.score_samples(hum(9, rate=22050), 22050)
    notes = capsys.readouterr().err
    assert notes.count("22050 Hz are resampled to 16000 Hz") == 1


def test_too_few_clips_for_the_false_alarm_rate_give_a_note(training, capsys):
    training(small(verbose=True), NORMAL[:4])
    notes = capsys.readouterr().err
    assert "false-alarm rate of 0.1, which needs 9 held-out clips" in notes
    training(small(verbose=True), NORMAL)
    assert "Too few" not in capsys.readouterr().err
    # This preset holds out a single clip, whatever their number.
    training(small(preset="vae", verbose=True), NORMAL)
    assert "machine (has 1)" in capsys.readouterr().err


def test_scikit_learn_clones_it_with_its_parameters():
    detector = small(false_alarm_rate=0.2)
    twin: Any = clone(detector)
    assert twin.get_params() == detector.get_params()
    assert twin.set_params(epochs=2).epochs == 2
    assert "false_alarm_rate=0.2" in repr(detector)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("seed", "use random_state"),
        ("epoch", "use epochs"),
        ("xyz", "choose from preset, epochs, random_state,"),
    ],
)
def test_an_unknown_parameter_is_refused_with_a_known_name(name, remedy):
    make: Any = gv.AnomalyDetector
    message = f"AnomalyDetector has no parameter '{name}': "
    with pytest.raises(TypeError, match=message + remedy):
        make(**{name: 1})
    with pytest.raises(ValueError, match=message + remedy.split(" preset")[0]):
        make().set_params(**{name: 1})
    assert next(iter(inspect.signature(make).parameters)) == "preset"


@pytest.mark.parametrize(
    ("options", "recordings", "message"),
    [
        ({"preset": "defualt"}, NORMAL, "did you mean 'default'"),
        ({"clip_seconds": 0.1}, NORMAL, "clip_seconds is 0.1: it must be at least"),
        ({"clip_seconds": float("inf")}, NORMAL, "clip_seconds is inf"),
        ({"false_alarm_rate": 2.0}, NORMAL, "false_alarm_rate is 2"),
        ({}, NORMAL[:1], "machine has one clip"),
        ({}, {}, "the dict of recordings is empty: add a machine"),
    ],
)
def test_unsuitable_parameters_and_recordings_are_refused(options, recordings, message):
    with pytest.raises(InputError, match=message):
        gv.AnomalyDetector(**options, verbose=False).fit(recordings, RATE)


def test_scoring_before_fitting_is_refused():
    with pytest.raises(InputError, match="call fit first"):
        gv.AnomalyDetector().score_samples(NEW, RATE)


@pytest.mark.parametrize(("preset", "least"), [("default", 400), ("gammavae", 1000)])
def test_fewer_recordings_get_more_epochs(training, preset, least):
    """They get more if the scores depend on the model, not only the pictures."""
    epochs = {
        wanted: training(small(preset=preset, epochs=wanted), NORMAL)["config"].train
        for wanted in (None, 3)
    }
    assert epochs[3].epochs == 3
    n_steps = epochs[None].epochs * -(-6 * 28 // 32)
    assert least <= n_steps < least + 6


@pytest.mark.parametrize("name", ["official", "vae"])
def test_other_presets_can_be_fitted(name):
    detector = small(preset=name).fit(NORMAL, RATE)
    (scored,) = detector.score_recordings(NEW[1], RATE)
    assert np.isfinite(scored.score)
    assert np.isnan(scored.p_value) == (name == "official")
    # Without scores of held-out clips, there are none of shortened clips.
    shorter = [key for key in detector.detector_.calibration if " at " in key]
    assert len(shorter) == (0 if name == "official" else len(SHARES))


def test_the_exported_names_exist():
    for name in {*gv.__all__} - {"__version__"}:
        assert callable(getattr(gv, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gv.nothing  # noqa: B018


def test_a_loaded_detector_has_the_parameters_of_the_saved_one(detector, tmp_path):
    detector.save(tmp_path / "d")
    loaded = gv.AnomalyDetector.load(tmp_path / "d", verbose=False)
    assert loaded.get_params() == detector.get_params()


def test_the_checkpoint_of_a_run_cuts_recordings_into_clips_as_in_training(
    detector, tmp_path
):
    save_detector(tmp_path, detector.detector_)
    loaded = gv.AnomalyDetector.load(tmp_path, verbose=False)
    assert loaded.clip_seconds == pytest.approx(1.0, abs=512 / RATE)
    for given in (NEW[0], np.concatenate(NEW[:3])):
        assert loaded.score_recordings(given, RATE) == detector.score_recordings(
            given, RATE
        )


def test_cut_recordings_need_folds():
    with pytest.raises(InputError, match=r"train\.split=folds"):
        small(preset="vae").fit(np.concatenate(NORMAL), RATE)


def test_a_score_that_is_not_finite_is_refused_by_name(detector, monkeypatch):
    with pytest.raises(InputError, match=r"array 1: sample 0 is .*e\+2"):
        detector.predict([NEW[0], 1e30 * NEW[0]], RATE)
    nothing = {"fusion_smooth_max": np.full((1, 1, 1), np.nan, np.float32)}
    monkeypatch.setattr(detector._scorer, "score", lambda clips: nothing)
    with pytest.raises(InputError, match="array 0: the score is not finite"):
        detector.predict(NEW[0], RATE)


def test_the_page_shows_the_score_of_each_part(detector, tmp_path):
    page = tmp_path / "today.html"
    judged = detector.report([NEW[1], np.concatenate(NEW[:2])], page, RATE)
    assert judged == detector.score_recordings([NEW[1], np.concatenate(NEW[:2])], RATE)
    text = page.read_text()
    assert "array 1 part 2 of 2" in text
    assert "shows the parts one by one" in text
    detector.report(NEW[:2], page, RATE)
    assert "shows the parts one by one" not in page.read_text()


@pytest.fixture
def twin(detector):
    """Return a copy that a test may change, and that need not compile again."""
    twin = copy.deepcopy(detector)
    vars(twin)["_scorer"] = detector._scorer
    return twin


def test_a_false_alarm_rate_that_is_set_after_fit_takes_effect(twin, tmp_path):
    before, scores = twin.threshold_["machine"], twin.score_samples(NEW, RATE)
    twin.set_params(false_alarm_rate=0.5)
    calibration = twin.detector_.calibration["fusion_smooth_max"][0, 0, : len(NORMAL)]
    expected = conformal_threshold(calibration, 0.5)
    assert twin.threshold_ == {"machine": expected}
    assert expected < before
    np.testing.assert_array_equal(twin.score_samples(NEW, RATE), scores)
    np.testing.assert_array_equal(twin.predict(NEW, RATE), scores > expected)
    twin.save(tmp_path / "d")
    loaded = gv.AnomalyDetector.load(tmp_path / "d", verbose=False)
    assert loaded.threshold_ == twin.threshold_
    assert loaded.false_alarm_rate == 0.5
    assert loaded.detector_.config.scoring.false_alarm_rate == 0.5
    twin.false_alarm_rate = np.float32(0.1)
    assert twin.threshold_ == {"machine": before}


def test_a_detector_is_refused_if_its_parameters_are_damaged_or_gone(
    detector, tmp_path
):
    folder = tmp_path / "d"
    detector.save(folder)
    path = folder / "anomaly_detector.json"
    text = path.read_bytes()
    for at in range(len(text)):
        path.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        with pytest.raises(InputError, match=r"damaged \(anomaly_detector\.json\)"):
            load_with_files(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"damaged \(anomaly_detector\.json\)"):
        gv.AnomalyDetector.load(folder)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epochs": 9}, "epochs was changed to 9 after fit.*: call fit again, .* to 3"),
        ({"random_state": 1}, "random_state was changed to 1 after fit"),
        ({"preset": "vae"}, "preset was changed to 'vae' after fit"),
        ({"settings": [*SMALL, "model.n_latent=2"]}, "settings was changed to"),
        ({"settings": ()}, r"settings was changed to \[\] after fit"),
        ({"false_alarm_rate": 2.0}, "false_alarm_rate is 2"),
        ({"false_alarm_rate": "0.2"}, "false_alarm_rate is '0.2': set it to a number"),
        ({"false_alarm_rate": None}, "false_alarm_rate is None"),
        ({"clip_seconds": float("nan")}, "clip_seconds is nan"),
        ({"clip_seconds": "1"}, "clip_seconds is '1': set it to a finite number"),
    ],
)
def test_a_parameter_that_cannot_take_effect_after_fit_is_refused(
    twin, tmp_path, parameters, message
):
    twin.set_params(**parameters)
    for use in (lambda: twin.predict(NEW[0], RATE), lambda: twin.save(tmp_path / "d")):
        with pytest.raises(InputError, match=message):
            use()
    assert not (tmp_path / "d").exists()


def test_an_official_threshold_does_not_change_with_the_rate(detector):
    scoring = dataclasses.replace(detector.detector_.config.scoring)
    object.__setattr__(scoring, "threshold", "official")
    config = copy.copy(detector.detector_.config)
    object.__setattr__(config, "scoring", scoring)
    official = dataclasses.replace(detector.detector_, config=config)
    problem = (
        "official thresholds cannot be adapted to a false-alarm rate of 0.2: retrain "
        r"with scoring\.threshold=conformal"
    )
    with pytest.raises(InputError, match=problem):
        with_false_alarm_rate(official, 0.2)


def test_a_rate_that_settings_contradict_is_refused_before_it_is_saved(twin):
    fixed = ["scoring.false_alarm_rate=0.1", *twin.settings]
    twin.settings = vars(twin)["_parameters"]["settings"] = fixed
    assert twin.threshold_
    twin.set_params(false_alarm_rate=0.2)
    with pytest.raises(InputError, match=r"but 'settings' sets it to 0\.1: remove"):
        _ = twin.threshold_


def test_clip_seconds_set_after_fit_is_what_save_writes(detector, twin, tmp_path):
    long = np.concatenate(NEW[:3])
    twin.set_params(clip_seconds=np.int64(3))
    expected = twin.score_samples(long, RATE)
    assert np.abs(expected - detector.score_samples(long, RATE)) > 1e-3
    twin.save(tmp_path / "d")
    loaded = gv.AnomalyDetector.load(tmp_path / "d", verbose=False)
    vars(loaded)["_scorer"] = twin._scorer
    np.testing.assert_array_equal(loaded.score_samples(long, RATE), expected)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epochs": "5"}, "epochs is '5': set it to a whole number or None"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"random_state": "1"}, "random_state is '1': set it to a whole number or"),
        ({"preset": 3}, "preset is 3: set it to the name of a preset"),
        (
            {"settings": "model.n_latent=4"},
            "settings is 'model.n_latent=4': set it to a list",
        ),
        ({"settings": [1]}, r"settings is \[1\]: set it to a list of strings"),
        (
            {"settings": ["seed=4"]},
            "is given as 13711, but 'settings' sets it to 4: remove it from 'settings'",
        ),
        (
            {"settings": ["scoring.false_alarm_rate=0.2"]},
            "but 'settings' sets it to 0.2: remove it from 'settings'",
        ),
        ({"skip_bad_files": "no"}, "skip_bad_files is 'no': set it to True or False"),
        ({"clip_seconds": True}, "clip_seconds is True"),
    ],
)
def test_a_parameter_of_the_wrong_type_is_refused_before_training(parameters, message):
    with pytest.raises(InputError, match=message):
        gv.AnomalyDetector(verbose=False).set_params(**parameters).fit(NORMAL, RATE)


def test_numbers_of_numpy_are_converted_and_can_be_saved(training, tmp_path):
    detector = small().set_params(
        epochs=np.int32(7),
        random_state=np.int64(5),
        false_alarm_rate=np.float32(0.2),
        clip_seconds=np.int16(1),
        skip_bad_files=np.bool_(False),
        settings=tuple(map(np.str_, SMALL)),
    )
    config = training(detector, NORMAL)["config"]
    assert (config.train.epochs, config.seed) == (7, 5)
    assert config.scoring.false_alarm_rate == 0.2
    json.dumps(plain_parameters(detector.get_params()))


def test_without_a_random_state_each_fit_draws_another_seed(training):
    seeds = {
        training(small().set_params(random_state=None), NORMAL)["config"].seed
        for _ in range(3)
    }
    assert len(seeds) == 3


@pytest.mark.parametrize("name", [1, np.int64(3), None, "", "a\nb", ("a",)])
def test_a_machine_whose_name_is_not_a_printable_text_is_refused(detector, name):
    with pytest.raises(InputError, match=r"machine name .* is not printable text: use"):
        small().fit({name: NORMAL}, RATE)
    with pytest.raises(InputError, match="machine"):
        detector.predict({name: NEW}, RATE)
    with pytest.raises(InputError, match="unknown machine ''"):
        detector.score_recordings(NEW[0], RATE, machine="")


def test_numpy_texts_are_names(detector):
    scores = detector.score_samples({np.str_("machine"): NEW[:1]}, RATE)
    assert len(scores["machine"]) == 1


@pytest.mark.parametrize(
    "labels", [[0] * 12, np.zeros(12, bool), np.zeros(12), ["normal"] * 12]
)
@pytest.mark.parametrize("stack", [list, np.stack])
def test_normal_labels_are_accepted_as_scikit_learn_passes_them(
    training, monkeypatch, labels, stack
):
    detector = small()
    fit = detector.fit
    monkeypatch.setattr(
        detector, "fit", lambda X, rate: fit(X, labels, sample_rate=rate)
    )
    assert training(detector, stack(NORMAL))["config"].train.epochs == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1] * 6, "y labels recording 1 as 1: fit on normal recordings only"),
        ([1] * 12, "y labels recording 0 as 1"),
        ([-1] * 12, "y labels recording 0 as -1"),
        (["anomaly"] * 12, "y labels recording 0 as 'anomaly'"),
        ([0] * 11, "y has 11 labels, which do not match the recordings"),
        ([None] * 12, "y labels recording 0 as None"),
        ("16000", "sample_rate is '16000'"),
    ],
)
def test_labels_that_are_not_normal_are_never_taken_for_a_sample_rate(labels, message):
    with pytest.raises(InputError, match=message):
        small().fit(NORMAL, labels)


def test_labels_of_files_are_refused_because_they_cannot_be_matched(tmp_path):
    for given in (tmp_path, str(tmp_path), {"fan": NORMAL}):
        with pytest.raises(
            InputError, match="do not match the recordings: pass a list"
        ):
            small().fit(given, [0] * 12)
    with pytest.raises(InputError, match="two sample rates"):
        small().fit(NORMAL, RATE, RATE)


def test_cross_validation_of_scikit_learn_works(detector, monkeypatch):
    def fit(self, recordings, labels, sample_rate):
        of_training(recordings, labels, sample_rate)
        vars(self).update(vars(detector))
        return self

    monkeypatch.setattr(gv.AnomalyDetector, "fit", fit)
    result = cross_val_score(
        small(),
        np.stack(NORMAL),
        np.zeros(12),
        cv=2,
        scoring=lambda d, X, y: d.score_samples(list(X), RATE).mean(),
        params={"sample_rate": RATE},
    )
    assert np.isfinite(result).all()


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy, "joblib"])
def test_a_detector_can_be_pickled_before_and_after_scoring(detector, tmp_path, copied):
    def again(one):
        if copied == "joblib":
            joblib.dump(one, tmp_path / "d.joblib")
            return joblib.load(tmp_path / "d.joblib")
        return pickle.loads(copied(one)) if copied is pickle.dumps else copied(one)

    before = again(copy.deepcopy(detector))
    expected = detector.score_samples(NEW, RATE)
    for other in (before, again(detector)):
        assert other.threshold_ == detector.threshold_
        assert other.get_params() == detector.get_params()
        assert other.detector_.config == detector.detector_.config
    if copied is pickle.dumps:
        np.testing.assert_array_equal(other.score_samples(NEW, RATE), expected)
    with pytest.raises(InputError, match="call fit first"):
        again(small()).predict(NEW, RATE)


def test_the_conditions_of_the_training_are_saved_and_compared(
    detector, tmp_path, capsys
):
    detector.save(tmp_path / "d")
    loaded = gv.AnomalyDetector.load(tmp_path / "d")
    vars(loaded)["_scorer"] = detector._scorer
    assert loaded.detector_.conditions == detector.detector_.conditions
    loaded.score_samples(NEW, RATE)
    assert capsys.readouterr().err.splitlines() == ["recordings 10/10"]
    for _ in range(2):
        loaded.predict([0.1 * sound[:3600] for sound in NEW], RATE)
    notes = capsys.readouterr().err
    assert notes.count("clips of 0.22 s are shorter than the training clips") == 1
    assert notes.count("recordings are 20 dB quieter than any training recording") == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"false_alarm_rate": 1.1}, "scoring.false_alarm_rate is 1.1: it must be"),
        ({"false_alarm_rate": float("nan")}, "is malformed"),
        ({"clip_seconds": -1.0}, "clip_seconds is -1.0: it must"),
        ({"clip_seconds": float("nan")}, "malformed"),
        ({"random_state": -1}, "random_state is -1: it must be from 0 to"),
        ({"epochs": 0}, "train.epochs is 0: it must"),
        ({"preset": "nonsense"}, "nonsense"),
        ({"settings": ["model.nonsense=1"]}, "unknown field 'model.nonsense'"),
        ({"settings": [5]}, "is malformed"),
        ({"random_state": True}, "is malformed"),
        ({"epochs": "5"}, "is malformed"),
        ({"from_the_future": 1}, "another version"),
        ([], "is malformed"),
    ],
)
def test_every_value_of_a_detector_is_validated_as_if_typed(
    detector, tmp_path, parameters, message
):
    """The damaged parameters are saved with a correct checksum."""
    good = detector.get_params() | {"settings": SMALL}
    given = good | parameters if isinstance(parameters, dict) else parameters
    files = {"anomaly_detector.json": json.dumps(given)}
    save_detector(tmp_path, detector.detector_, files)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        gv.AnomalyDetector.load(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_saving_to_a_link_replaces_what_it_points_to(detector, tmp_path):
    link = tmp_path / "current.detector"
    link.symlink_to("v1.detector")
    for _ in range(2):
        detector.save(link)
        names = sorted((path.name, path.is_symlink()) for path in tmp_path.iterdir())
        assert names == [("current.detector", True), ("v1.detector", False)]
    assert gv.AnomalyDetector.load(link).threshold_ == detector.threshold_
