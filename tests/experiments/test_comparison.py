"""Comparing variants: each runs once, models are reused, the tables are complete."""

import csv
import json
import shutil

import pytest
from rich.console import Console
from support.finished_runs import write_run
from support.recorded import write_machine

from experiments import comparison
from experiments.comparison import require_labels, run_variant, write_comparison
from gammavae_jax.config_json import override, to_dict
from gammavae_jax.data.loading import Source
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.presets import preset
from gammavae_jax.runs.folder import RunFolder

SMOTE = override(preset("gammavae"), ["scoring.smote_ratio=0.2"])
LOG = Log(Console(quiet=True), Console(quiet=True))


def attempt(config, path, models=None, **options):
    source, folder = Source(path, ()), RunFolder(path, **options)
    return run_variant(config, source, folder, None, models, LOG)


@pytest.fixture
def calls(monkeypatch):
    """Replace `run` and record its arguments."""
    recorded = []

    def record(config, source, folder, year, log):
        recorded.append((config, folder))
        return True

    monkeypatch.setattr(comparison, "run", record)
    monkeypatch.setattr(comparison, "find_all", lambda source, splits: [])
    return recorded


@pytest.fixture
def models(tmp_path):
    """The folder of a run with a trained state."""
    write_run(tmp_path / "default", 0.7)
    state = tmp_path / "default/checkpoint/train/20"
    state.mkdir(parents=True)
    (state / "array").write_text("numbers")
    return tmp_path / "default"


def test_a_finished_variant_is_not_run_again(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    attempt(config, tmp_path / "default")
    assert calls == []
    attempt(config, tmp_path / "default", overwrite=True)
    assert [folder.overwrite for _, folder in calls] == [True]


def test_an_interrupted_variant_is_resumed(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    (tmp_path / "default/summary.json").unlink()
    attempt(config, tmp_path / "default")
    assert [folder.resume for _, folder in calls] == [True]


def test_a_variant_with_other_settings_is_refused(tmp_path, calls):
    config = write_run(tmp_path / "default", 0.7)
    other = override(config, ["model.n_latent=4"])
    with pytest.raises(InputError, match="run with other settings"):
        attempt(other, tmp_path / "default")
    assert calls == []


def test_an_interrupted_copy_of_models_leaves_nothing_and_is_repeated(
    tmp_path, calls, models, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            attempt(SMOTE, tmp_path / "smote", models)
    assert not (tmp_path / "smote").exists()
    attempt(SMOTE, tmp_path / "smote", models)
    config = json.loads((tmp_path / "smote" / "config.json").read_text())
    assert config == to_dict(SMOTE)
    # A variant that was interrupted after the copy is resumed.
    attempt(SMOTE, tmp_path / "smote", models)
    assert [folder.resume for _, folder in calls] == [True, True]


def test_an_unrelated_folder_is_not_replaced_by_models(tmp_path, calls, models):
    (tmp_path / "smote").mkdir()
    (tmp_path / "smote/thesis.txt").write_text("years")
    for overwrite in (True, False):
        with pytest.raises(InputError):
            attempt(SMOTE, tmp_path / "smote", models, overwrite=overwrite)
    assert (tmp_path / "smote/thesis.txt").read_text() == "years"
    assert calls == []


def test_trained_models_are_copied_from_another_variant(tmp_path, calls, models):
    attempt(SMOTE, tmp_path / "smote", models)
    assert (tmp_path / "smote/checkpoint/train/20/array").read_text() == "numbers"
    ((config, folder),) = calls
    assert config == SMOTE
    assert folder.resume
    assert (models / "checkpoint/train/20/array").exists()
    assert not (tmp_path / "smote/summary.json").exists()


def test_the_tables_hold_every_variant_and_number(tmp_path):
    write_run(tmp_path / "one", 0.7123)
    write_run(tmp_path / "two", 0.6543, scores=("fusion_mean", "mse", "kl"))
    text = write_comparison(tmp_path, {"one": "the first", "two": "the second"})
    assert (tmp_path / "ablation.md").read_text() == text
    lines = text.splitlines()
    first = next(line for line in lines if line.startswith("| the first"))
    assert first.split("|")[2].strip() == "71.23 ± 1.00"
    assert "8.00 ± 1.00 | 20.00 ± 1.00 | 12 |" in first
    assert sum(line.startswith("| no model: ") for line in lines) == 2
    assert "| the first | 10 | 25 | 4 | 2 |" in lines
    with (tmp_path / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_key = {(r["variant"], r["score"], r["machine"], r["metric"]): r for r in rows}
    assert len(by_key) == len(rows)
    assert float(by_key["two", "fusion_mean", "", "official_score"]["mean"]) == 0.6543
    assert float(by_key["two", "kl", "fan", "fpr_target"]["mean"]) == 0.6


def test_all_lines_of_a_table_have_the_same_number_of_cells(tmp_path):
    write_run(tmp_path / "one", 0.7)
    tables = write_comparison(tmp_path, {"one": "the first"}).split("\n\n")
    for table in (t for t in tables if t.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_runs_with_different_machines_are_not_compared(tmp_path):
    write_run(tmp_path / "one", 0.7)
    write_run(tmp_path / "two", 0.7, machine="pump")
    with pytest.raises(InputError, match=r"two' has other machines than .*one'"):
        write_comparison(tmp_path, {"one": "the first", "two": "the second"})
    assert not (tmp_path / "ablation.md").exists()


def test_a_variant_that_trained_nothing_shows_no_training_time(tmp_path):
    write_run(tmp_path / "one", 0.7, train_s=0.01)
    lines = write_comparison(tmp_path, {"one": "the first"}).splitlines()
    assert next(x for x in lines if x.startswith("| the first")).endswith("1.00 |  |")


def test_unlabelled_test_clips_are_refused(tmp_path):
    for machine in ("fan", "pump"):
        write_machine(tmp_path / machine, train=[4000], test=[4000])
    source = Source(tmp_path, ("fan", "pump"))
    require_labels(source)
    named = tmp_path / "pump/test/section_00_source_test_normal_0000.wav"
    named.rename(named.with_name("section_00_0000.wav"))
    with pytest.raises(InputError, match="test clips of pump_section_00 have neither"):
        require_labels(source)
