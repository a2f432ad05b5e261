"""Runs of a comparison: none is made twice, none is lost, models are used again."""

import json
import shutil
from dataclasses import replace

import pytest
from rich.console import Console
from support.finished_runs import write_run

from experiments import variants
from experiments.variants import run_variant
from gammavae_jax.config_json import override, to_dict
from gammavae_jax.data.loading import Job
from gammavae_jax.errors import InputError
from gammavae_jax.presets import preset

QUIET = Console(quiet=True)


@pytest.fixture
def calls(monkeypatch):
    """What `run_experiment` is called with; it does nothing."""
    seen = []

    def remember(config, job, log, table):
        seen.append((config, job))
        return True

    monkeypatch.setattr(variants, "run_experiment", remember)
    monkeypatch.setattr(variants, "find_all", lambda job, splits: [])
    return seen


def test_a_variant_that_was_run_is_not_run_again(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    job = Job(tmp_path, ("fan",), tmp_path / "default")
    run_variant(config, job, None, QUIET, QUIET)
    assert calls == []
    run_variant(config, replace(job, overwrite=True), None, QUIET, QUIET)
    assert [job.overwrite for _, job in calls] == [True]


def test_a_variant_half_run_is_gone_on_with(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    (tmp_path / "default/summary.json").unlink()
    run_variant(config, Job(tmp_path, (), tmp_path / "default"), None, QUIET, QUIET)
    assert [job.resume for _, job in calls] == [True]


def test_a_variant_of_other_settings_is_refused(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    other = override(config, ["model.n_latent=4"])
    job = Job(tmp_path, (), tmp_path / "default")
    with pytest.raises(InputError, match="made with other settings"):
        run_variant(other, job, None, QUIET, QUIET)
    assert calls == []


@pytest.fixture
def models(tmp_path):
    """The folder of a run with a trained state."""
    write_run(tmp_path / "default", 0.7)
    state = tmp_path / "default/checkpoint/train/20"
    state.mkdir(parents=True)
    (state / "array").write_text("numbers")
    return tmp_path / "default"


def test_an_interrupted_copy_of_models_leaves_nothing(
    tmp_path, calls, models, monkeypatch
):
    """And the next start makes it anew."""
    anew = override(preset("default"), ["scoring.smote_ratio=0.2"])
    job = Job(tmp_path, (), tmp_path / "smote")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_variant(anew, job, models, QUIET, QUIET)
    assert not job.out.exists()
    run_variant(anew, job, models, QUIET, QUIET)
    assert json.loads((job.out / "config.json").read_text()) == to_dict(anew)
    # Interrupted after the copy, it is gone on with.
    run_variant(anew, job, models, QUIET, QUIET)
    assert [job.resume for _, job in calls] == [True, True]


def test_a_folder_of_something_else_is_not_replaced_by_models(tmp_path, calls, models):
    (tmp_path / "smote").mkdir()
    (tmp_path / "smote/thesis.txt").write_text("years")
    anew = override(preset("default"), ["scoring.smote_ratio=0.2"])
    job = Job(tmp_path, (), tmp_path / "smote", overwrite=True)
    for given in (job, replace(job, overwrite=False)):
        with pytest.raises(InputError):
            run_variant(anew, given, models, QUIET, QUIET)
    assert (tmp_path / "smote/thesis.txt").read_text() == "years"
    assert calls == []


def test_trained_models_are_taken_from_another_variant(tmp_path, calls, models):
    anew = override(preset("default"), ["scoring.smote_ratio=0.2"])
    run_variant(anew, Job(tmp_path, (), tmp_path / "smote"), models, QUIET, QUIET)
    assert (tmp_path / "smote/checkpoint/train/20/array").read_text() == "numbers"
    ((given, job),) = calls
    assert given == anew
    assert job.resume
    assert (models / "checkpoint/train/20/array").exists()
    assert not (tmp_path / "smote/summary.json").exists()
