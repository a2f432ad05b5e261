"""A checkpoint is enough to score, on any number of devices, and says what ails it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from gammavae_jax.checkpoint import (
    TrainCheckpoint,
    restore_detector,
    restore_training,
    save_detector,
    save_training,
)
from gammavae_jax.config import FUSION_SCORES
from gammavae_jax.detector import Detector
from gammavae_jax.errors import InputError
from gammavae_jax.neighbours import fit_reference
from gammavae_jax.score import GaussianFit
from gammavae_jax.scorer import Scorer, wanted_statistics
from gammavae_jax.train import init_state

MACHINES = (("fan", "00"), ("pump", "02"))


@pytest.fixture
def state(tiny):
    """A training state of one seed with two folds, and two machines."""
    one = init_state(tiny(), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.stack([np.stack([leaf, leaf])] * 2), one)


def references_of(config, rng) -> Any:
    """References of two folds and machines, each of ten clips and two spare places."""
    one = fit_reference(
        rng.normal(size=(10, 384)),
        np.arange(10) % 2,
        np.ones(10, bool),
        np.arange(10) > 7,
        config.scoring,
        12,
        rng,
    )
    every = jax.tree.map(lambda leaf: np.stack([np.stack([leaf, leaf])] * 2), one)
    return dict.fromkeys(wanted_statistics(config), every)


@pytest.fixture
def detector(tiny, state):
    rng = np.random.default_rng(0)
    config = tiny()
    fit = GaussianFit(
        *(rng.normal(size=(2, 2, *s)).astype(np.float32) for s in [(128,), (128, 128)])  # pyright: ignore
    )
    calibration = {
        name: rng.random((1, 2, 10))
        for name in (*config.computed_scores, FUSION_SCORES[0])
    }
    calibration["mse"][0, 1, 7:] = np.nan
    return Detector(
        config=config,
        machines=MACHINES,
        filterbank=rng.random((513, 128)).astype(np.float32),
        scorer=Scorer(state.params, state.batch_stats, fit, fit),
        references=references_of(config, rng),
        calibration=calibration,
        thresholds={name: rng.random((1, 2)) for name in config.scores},
    )


def assert_same(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_a_detector_comes_back_as_it_was(tmp_path, detector):
    save_detector(tmp_path, detector)
    back = restore_detector(tmp_path)
    assert (back.config, back.machines) == (detector.config, detector.machines)
    assert_same(back.scorer, detector.scorer)
    assert_same(back.filterbank, detector.filterbank)
    assert dict(back.references).keys() == {"spectrum", "residual", "peak"}
    assert_same(dict(back.references), dict(detector.references))
    assert_same(back.calibration, detector.calibration)
    assert_same(dict(back.thresholds), dict(detector.thresholds))


def test_a_detector_without_references_and_calibration_comes_back(
    tmp_path, detector, tiny
):
    """Such as one with the official thresholds."""
    official = tiny("official")
    one = init_state(official, jax.random.key(0))
    state = jax.tree.map(lambda leaf: np.stack([np.stack([leaf, leaf])]), one)
    fit = jax.tree.map(lambda leaf: leaf[:1], detector.scorer.source)
    bare = replace(
        detector,
        config=official,
        scorer=Scorer(state.params, state.batch_stats, fit, fit),
        references={},
        calibration={},
        thresholds={name: np.ones((1, 2)) for name in official.scores},
    )
    save_detector(tmp_path, bare)
    back = restore_detector(tmp_path)
    assert (dict(back.references), dict(back.calibration)) == ({}, {})
    assert_same(back.scorer, bare.scorer)


def test_a_training_comes_back_at_its_newest_state(tmp_path, state, tiny):
    clips = {"fan": ["a.wav"], "pump": ["b.wav", "c.wav"]}
    for epoch in (1, 2):
        now = state._replace(is_stopped=np.array([[False, epoch == 2]] * 2))
        save_training(tmp_path, TrainCheckpoint(epoch, now, tiny(), clips))
    back = restore_training(tmp_path)
    assert back is not None
    assert (back.epoch, back.config, back.clips) == (2, tiny(), clips)
    assert_same(back.state, now)
    assert [p.name for p in (tmp_path / "train").iterdir()] == ["2"]


def test_no_training_state_is_no_error(tmp_path):
    assert restore_training(tmp_path) is None


def test_a_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="no checkpoint in"):
        restore_detector(tmp_path / "nowhere")


def test_another_version_is_refused(tmp_path, detector):
    save_detector(tmp_path, detector)
    about = json.loads((tmp_path / "detector.json").read_text())
    (tmp_path / "detector.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(InputError, match="another version"):
        restore_detector(tmp_path)


# Orbax leaves a coroutine unfinished when its storage fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["json", "array file", "whole folder"])
def test_damage_is_said(tmp_path, detector, damage):
    save_detector(tmp_path, detector)
    if damage == "json":
        (tmp_path / "detector.json").write_text("{")
    elif damage == "whole folder":
        shutil.rmtree(tmp_path / "detector")
    else:
        files = [p for p in (tmp_path / "detector").rglob("*") if p.is_file()]
        largest = max(files, key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(InputError, match="is damaged"):
        restore_detector(tmp_path)


def test_a_checkpoint_of_four_devices_restores_on_one(tmp_path, detector):
    assert len(jax.devices()) == 4
    save_detector(tmp_path, detector)
    program = (
        "import sys, pathlib, jax\n"
        "from gammavae_jax.checkpoint import restore_detector\n"
        "detector = restore_detector(pathlib.Path(sys.argv[1]))\n"
        "print(len(jax.devices()), detector.scorer.source.factor.sum())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        capture_output=True,
        text=True,
        check=True,
    )
    devices, total = run.stdout.split()
    assert devices == "1"
    np.testing.assert_allclose(
        float(total), detector.scorer.source.factor.sum(), rtol=1e-5
    )


def test_an_interrupt_waits_until_a_state_is_saved(tmp_path, state, tiny, monkeypatch):
    save = ocp.save

    def interrupted(*arguments, **keywords):
        signal.raise_signal(signal.SIGINT)
        save(*arguments, **keywords)

    monkeypatch.setattr(ocp, "save", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        save_training(tmp_path, TrainCheckpoint(1, state, tiny(), {"a": [], "b": []}))
    assert signal.getsignal(signal.SIGINT) is before
    back = restore_training(tmp_path)
    assert back is not None
    assert back.epoch == 1
