"""Runs of a comparison: none is made twice, none is lost, models are used again."""

import json
import shutil

import pytest
from rich.console import Console
from support.finished_runs import write_run

from experiments import variants
from experiments.variants import run_variant
from gammavae_jax.config_json import override, to_dict
from gammavae_jax.data.loading import Source
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.presets import preset
from gammavae_jax.runs.folder import RunFolder

LOG = Log(Console(quiet=True), Console(quiet=True))


def attempt(config, source, folder, models=None):
    return run_variant(config, source, folder, None, models, LOG)


@pytest.fixture
def calls(monkeypatch):
    """The arguments of `run`, which does nothing."""
    seen = []

    def remember(config, source, folder, year, log):
        seen.append((config, folder))
        return True

    monkeypatch.setattr(variants, "run", remember)
    monkeypatch.setattr(variants, "find_all", lambda source, splits: [])
    return seen


def test_a_variant_that_was_run_is_not_run_again(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    source, folder = Source(tmp_path, ("fan",)), RunFolder(tmp_path / "default")
    attempt(config, source, folder)
    assert calls == []
    attempt(config, source, folder._replace(overwrite=True))
    assert [folder.overwrite for _, folder in calls] == [True]


def test_a_variant_half_run_is_gone_on_with(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    (tmp_path / "default/summary.json").unlink()
    attempt(config, Source(tmp_path, ()), RunFolder(tmp_path / "default"))
    assert [folder.resume for _, folder in calls] == [True]


def test_a_variant_of_other_settings_is_refused(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    other = override(config, ["model.n_latent=4"])
    job = Source(tmp_path, ()), RunFolder(tmp_path / "default")
    with pytest.raises(InputError, match="made with other settings"):
        attempt(other, *job)
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
    source, folder = Source(tmp_path, ()), RunFolder(tmp_path / "smote")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attempt(anew, source, folder, models)
    assert not folder.path.exists()
    attempt(anew, source, folder, models)
    assert json.loads((folder.path / "config.json").read_text()) == to_dict(anew)
    # Interrupted after the copy, it is gone on with.
    attempt(anew, source, folder, models)
    assert [folder.resume for _, folder in calls] == [True, True]


def test_a_folder_of_something_else_is_not_replaced_by_models(tmp_path, calls, models):
    (tmp_path / "smote").mkdir()
    (tmp_path / "smote/thesis.txt").write_text("years")
    anew = override(preset("default"), ["scoring.smote_ratio=0.2"])
    for overwrite in (True, False):
        folder = RunFolder(tmp_path / "smote", overwrite=overwrite)
        with pytest.raises(InputError):
            attempt(anew, Source(tmp_path, ()), folder, models)
    assert (tmp_path / "smote/thesis.txt").read_text() == "years"
    assert calls == []


def test_trained_models_are_taken_from_another_variant(tmp_path, calls, models):
    anew = override(preset("default"), ["scoring.smote_ratio=0.2"])
    attempt(anew, Source(tmp_path, ()), RunFolder(tmp_path / "smote"), models)
    assert (tmp_path / "smote/checkpoint/train/20/array").read_text() == "numbers"
    ((given, folder),) = calls
    assert given == anew
    assert folder.resume
    assert (models / "checkpoint/train/20/array").exists()
    assert not (tmp_path / "smote/summary.json").exists()
