"""The training clips that are stored beside a detector."""

import copy
import json
import pickle
import shutil

import jax
import numpy as np
import pytest
from support.finished_runs import change_marker
from support.live_stubs import RATE, humming

import gammavae_jax as gv
from gammavae_jax.errors import InputError
from gammavae_jax.files import remove
from gammavae_jax.runs import detector_folder
from gammavae_jax.runs.checkpoint import save_detector
from gammavae_jax.runs.detector_folder import load_training_clips

SETTINGS = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]
NORMAL = [humming(seed, 1.0 + seed % 2) for seed in range(12)]
NEW = [humming(seed, 2.0) for seed in range(50, 52)]


@pytest.fixture(scope="module")
def fitted(one_device):
    estimator = gv.AnomalyDetector(
        epochs=1, clip_seconds=1.0, verbose=False, settings=SETTINGS
    )
    groups = list("aabbccddeeff")
    return estimator.fit({"fan/1": NORMAL}, sample_rate=RATE, groups={"fan/1": groups})


@pytest.fixture
def folder(fitted, tmp_path):
    fitted.save(tmp_path / "fan.detector")
    return tmp_path / "fan.detector"


def load(folder):
    return gv.AnomalyDetector.load(folder, verbose=False)


def stored_sum(folder):
    return json.loads((folder / "detector.json").read_text())["sum"]


def assert_same(clips, expected):
    jax.tree.map(np.testing.assert_array_equal, clips._asdict(), expected._asdict())


def test_training_clips_are_read_as_they_were_saved(fitted, folder):
    read = load_training_clips(folder, stored_sum(folder), fitted.detector_)
    assert read.keys() == {"fan/1"}
    assert_same(read["fan/1"], fitted._training_clips()["fan/1"])
    assert read["fan/1"].group is not None


def test_a_detector_that_was_saved_or_copied_learns_as_the_fitted_one(fitted, folder):
    copies = [copy.copy(fitted), load(folder), pickle.loads(pickle.dumps(load(folder)))]
    scores = []
    for estimator in copies:
        estimator.partial_fit({"fan/1": NEW}, sample_rate=RATE)
        scores.append(estimator.score_samples(NORMAL, RATE))
    np.testing.assert_allclose(scores[1:], [scores[0]] * 2, rtol=1e-5)


def test_a_new_version_is_saved_with_all_of_its_clips(folder, tmp_path):
    second = load(folder).partial_fit(NEW, sample_rate=RATE)
    second_folder = tmp_path / "fan-2.detector"
    second.save(second_folder)
    read = load_training_clips(
        second_folder, stored_sum(second_folder), second.detector_
    )
    assert read["fan/1"].names[-2:] == ("array 0", "array 1")
    assert_same(read["fan/1"], second._training_clips()["fan/1"])


def test_scoring_does_not_read_the_training_clips(fitted, folder):
    shutil.rmtree(folder / "training_clips")
    scores = load(folder).score_samples(NEW, RATE)
    np.testing.assert_allclose(scores, fitted.score_samples(NEW, RATE), rtol=1e-6)


def test_learning_is_refused_whichever_file_of_the_training_clips_is_damaged(folder):
    paths = [p for p in folder.glob("training_clips*/**/*") if p.is_file()]
    estimator = load(folder)
    for path in [*paths, folder / "training_clips.json"]:
        good = path.read_bytes()
        flipped = bytes([good[0] ^ 1, *good[1:]]) if good else b"x"
        for bad in (flipped, good[: len(good) // 2] if good else None, None):
            path.unlink(missing_ok=True)
            if bad is not None:
                path.write_bytes(bad)
            with pytest.raises(
                InputError, match=r"is damaged \(training_clips|are gone"
            ):
                estimator.partial_fit(NEW, sample_rate=RATE)
        path.write_bytes(good)
    estimator.partial_fit(NEW, sample_rate=RATE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("names", ["a"]),
        ("names", 3),
        ("recording", [1] * 18),
        ("recording", "x"),
        ("recording", [[n // 2] for n in range(18)]),
        ("n_frames", [10**15] * 18),
        ("n_frames", [-1] * 18),
        ("n_frames", [32] * 17),
        ("seconds", [1.0]),
        ("signals", [[0.0]] * 18),
        ("formats", [[1]]),
        ("explained", ["x"] * 18),
        ("group", [-1] * 18),
        ("group", [[0]] * 18),
        ("fold", [2] * 18),
        ("fold", [[0]] * 18),
        ("fold", [10**30] * 18),
        ("fold", None),
    ],
)
def test_malformed_descriptions_of_training_clips_are_refused(folder, field, value):
    """The marker's checksum is valid, so only the description is wrong."""
    marker = folder / "training_clips.json"
    machines = json.loads(marker.read_text())["machines"]
    assert len(machines["fan/1"]["fold"]) == 18
    machines["fan/1"][field] = value
    change_marker(marker, {"machines": machines})
    with pytest.raises(InputError, match="is malformed, or belongs to") as caught:
        load(folder).partial_fit(NEW, sample_rate=RATE)
    assert len(str(caught.value).splitlines()) == 1


def test_the_clips_of_another_machine_are_refused(fitted, folder):
    marker = folder / "training_clips.json"
    machines = json.loads(marker.read_text())["machines"]
    change_marker(marker, {"machines": {"pump": machines["fan/1"]}})
    with pytest.raises(InputError, match="belongs to another detector"):
        load_training_clips(folder, stored_sum(folder), fitted.detector_)


def test_the_clips_of_another_fit_of_the_machine_are_refused(fitted, folder, tmp_path):
    """The machine's name, the folds and the shapes of all arrays are equal."""
    before, message = load(folder), "was replaced since it was loaded: load it again"
    other = copy.copy(fitted).partial_fit({"fan/1": NEW}, sample_rate=RATE)
    other.save(folder)
    with pytest.raises(InputError, match=message):
        before.partial_fit(NEW, None, RATE)
    with pytest.raises(InputError, match=message):
        before.save(folder)
    load(folder).partial_fit([NORMAL[0][::-1]], sample_rate=RATE)

    fitted.save(tmp_path / "first.detector")
    for path in folder.glob("training_clips*"):
        remove(path)
        (tmp_path / "first.detector" / path.name).rename(path)
    with pytest.raises(InputError, match="belongs to another detector"):
        load(folder).partial_fit(NEW, sample_rate=RATE)


def test_clips_that_cannot_be_read_are_not_deleted(
    folder, tmp_path, monkeypatch, capsys
):
    def denied(*_):
        raise InputError("too many open files: close some")

    estimator, before = gv.AnomalyDetector.load(folder), sorted(folder.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(detector_folder, "load_training_clips", denied)
        with pytest.raises(InputError, match="too many open files"):
            estimator.save(folder)
        assert sorted(folder.rglob("*")) == before
        estimator.save(tmp_path / "copy.detector")
    assert "saved without its training clips" in capsys.readouterr().err
    estimator.save(folder)
    assert (folder / "training_clips.json").is_file()


def test_a_checkpoint_without_training_clips_cannot_learn(fitted, tmp_path):
    save_detector(tmp_path / "checkpoint", fitted.detector_)
    estimator = load(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="keeps no training clips, so it cannot learn"):
        estimator.partial_fit(NEW, sample_rate=RATE)


def test_a_detector_is_saved_with_a_message_if_its_clips_are_gone(folder, capsys):
    estimator = gv.AnomalyDetector.load(folder)
    shutil.rmtree(folder)
    estimator.save(folder)
    assert "saved without its training clips" in capsys.readouterr().err
    assert load(folder).threshold_ == estimator.threshold_
