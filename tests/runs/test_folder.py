import errno
import json
import os
import re
import shutil

import numpy as np
import pytest
from support.finished_runs import contents, rows_of

from gammavae_jax.config import Config, TrainConfig
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.runs import folder as run_folder
from gammavae_jax.runs.folder import (
    append_metrics,
    begin_folder,
    check_folder,
    last_epoch,
    locked_folder,
    read_config,
    read_metrics,
    resume_folder,
)
from gammavae_jax.runs.result_files import atomic_results, write_results

CONFIG = Config()
MACHINES = ["fan_section_00", "pump_section_00"]


@pytest.fixture
def out(tmp_path):
    """Return the folder of a run that has just begun."""
    folder = tmp_path / "run"
    begin_folder(folder, CONFIG)
    return folder


def append(out, epoch, loss=1.5):
    """Append an epoch of two seeds and two machines, all with the same loss."""
    info = {
        "loss": np.full((2, 2), loss, np.float32),
        "is_stopped": np.zeros((2, 2), bool),
    }
    append_metrics(out, epoch, MACHINES, info)


def metrics(out):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rows():
    """Return one machine's row for each score."""
    return [Row(1, score, "fan", "00", *[0.5] * 13) for score in CONFIG.scores]


def snapshot(folder):
    """Return every path below a folder, with the content of files."""
    return dict.fromkeys(
        str(path.relative_to(folder)) for path in folder.rglob("*")
    ) | contents(folder)


def test_a_new_or_empty_folder_may_be_used(tmp_path):
    check_folder(tmp_path / "new" / "deeper")
    check_folder(tmp_path)
    check_folder(tmp_path, overwrite=True)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").touch()
    message = r"out' is a file: choose another path for --out"
    with pytest.raises(InputError, match=message):
        check_folder(tmp_path / "out", overwrite=True)


def test_a_folder_with_a_run_needs_resume_or_overwrite(out):
    before = snapshot(out)
    with pytest.raises(InputError, match=r"pass --overwrite to replace it or --resume"):
        check_folder(out)
    check_folder(out, resume=True)
    check_folder(out, overwrite=True)
    assert snapshot(out) == before


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_run_there_is_nothing_to_resume(tmp_path, exists):
    out = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(InputError, match="nothing to resume in"):
        check_folder(out, resume=True)


@pytest.mark.parametrize(
    "config",
    [None, "", "[]", '{"architectures": ["Bert"], "model_type": "bert"}'],
    ids=["without", "empty", "list", "another program's"],
)
def test_overwrite_never_replaces_a_folder_that_is_not_a_run(tmp_path, config):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "precious.csv").write_text("1")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match="is not a run folder"):
        check_folder(tmp_path, overwrite=True)


def test_a_run_killed_before_its_first_file_can_be_started_or_resumed(tmp_path):
    """It leaves its lock, or half of its first file."""
    for name in (".run-lock", f".config.json-{'0' * 32}"):
        (tmp_path / name).touch()
        check_folder(tmp_path)
        check_folder(tmp_path, resume=True)
        check_folder(tmp_path, overwrite=True)
    begin_folder(tmp_path, CONFIG)
    assert set(snapshot(tmp_path)) == {".run-lock", "config.json"}


def test_a_second_run_in_a_folder_is_refused_until_the_first_has_ended(out):
    before = snapshot(out)
    with locked_folder(out, resume=True, overwrite=False):
        for resume in (True, False):
            second = locked_folder(out, resume=resume, overwrite=not resume)
            message = f"another run is writing to {str(out)!r}: wait"
            with pytest.raises(InputError, match=re.escape(message)), second:
                pass
    assert snapshot(out) == before
    with locked_folder(out, resume=True, overwrite=False):
        pass


def test_a_refused_folder_stays_unchanged(tmp_path):
    (tmp_path / "thesis.txt").touch()
    for out in (tmp_path, tmp_path / "thesis.txt"):
        lock = locked_folder(out, resume=False, overwrite=True)
        with pytest.raises(InputError, match="choose another path for --out"), lock:
            pass
    new = locked_folder(tmp_path / "new" / "run", resume=False, overwrite=False)
    with pytest.raises(InputError, match="no data"), new:
        raise InputError("no data")
    assert set(snapshot(tmp_path)) == {"thesis.txt"}


def test_results_that_another_run_finished_meanwhile_are_not_replaced(
    tmp_path, monkeypatch
):
    """Another run ends in the folder between the first check and the lock."""
    real = run_folder.FolderLock

    def lock_late(folder, *arguments, **options):
        begin_folder(folder, CONFIG)
        return real(folder, *arguments, **options)

    monkeypatch.setattr(run_folder, "FolderLock", lock_late)
    lock = locked_folder(tmp_path / "run", resume=False, overwrite=False)
    with pytest.raises(InputError, match="exists: pass --overwrite"), lock:
        pass


def test_a_new_run_writes_its_configuration(tmp_path):
    config = Config(preset="mine", train=TrainConfig(epochs=7))
    begin_folder(tmp_path / "new" / "deeper", config)
    assert read_config(tmp_path / "new" / "deeper") == config


def test_overwriting_removes_only_what_a_run_wrote(out):
    append(out, 1)
    write_results(out, rows(), {}, [])
    for folder in ("checkpoint", "scores"):
        (out / folder).mkdir()
        (out / folder / "old").write_text("old")
    (out / "notes.txt").write_text("mine")
    (out / "figures").mkdir()
    begin_folder(out, CONFIG)
    assert set(snapshot(out)) == {"config.json", "notes.txt", "figures"}
    assert (out / "notes.txt").read_text() == "mine"


def test_overwriting_removes_a_link_without_following_it(out, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (out / "checkpoint").symlink_to(tmp_path / "elsewhere")
    begin_folder(out, CONFIG)
    assert set(snapshot(out)) == {"config.json"}
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_a_failed_overwrite_can_be_repeated(out, monkeypatch):
    (out / "checkpoint").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
        begin_folder(out, CONFIG)
    check_folder(out, overwrite=True)


def test_a_folder_that_cannot_be_created_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        begin_folder(tmp_path / "file" / "out", CONFIG)


def test_metrics_have_a_line_per_epoch_with_an_entry_per_machine(out):
    losses = np.array([[1.0, 2.0], [3.0, 0.1]], np.float32)
    append_metrics(out, 1, MACHINES, {"loss": losses})
    append(out, 2)
    first, second = metrics(out)
    assert first == {
        "epoch": 1,
        "machines": {
            "fan_section_00": {"loss": [1.0, 3.0]},
            "pump_section_00": {"loss": [2.0, 0.1]},
        },
    }
    assert second["epoch"] == 2
    assert second["machines"]["fan_section_00"]["is_stopped"] == [False, False]


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_null(out, loss):
    append(out, 1, loss)
    (line,) = metrics(out)
    assert line["machines"]["fan_section_00"]["loss"] == [None, None]


def test_resuming_drops_the_epochs_after_the_checkpoint(out):
    for epoch in (1, 2, 3):
        append(out, epoch, loss=1 / epoch)
    kept = (out / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]
    longer = Config(train=TrainConfig(epochs=200))
    resume_folder(out, longer, epoch=2)
    assert (out / "metrics.jsonl").read_text() == "".join(kept)
    assert read_config(out) == longer
    append(out, 3)
    assert [line["epoch"] for line in metrics(out)] == [1, 2, 3]


def test_damaged_or_lost_lines_are_reported_and_the_others_kept(out):
    for epoch in (1, 2, 3, 4):
        append(out, epoch)
    first, second, _, fourth = (out / "metrics.jsonl").read_bytes().splitlines(True)
    damaged = second.replace(b'"epoch"', b'"epoch\xff')
    (out / "metrics.jsonl").write_bytes(first + damaged + fourth)
    assert resume_folder(out, CONFIG, epoch=4) == [2, 3]
    assert (out / "metrics.jsonl").read_bytes() == first + fourth


def test_metrics_on_a_full_disk_are_an_input_error(out, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = (
        r"run' cannot be written \(No space left on device\): free up disk space \(--"
    )
    with pytest.raises(InputError, match=message):
        append(out, 1)


def test_resuming_a_run_with_results_keeps_them_and_their_configuration(out):
    append(out, 1)
    with atomic_results(out, CONFIG) as results:
        write_results(results, rows(), {}, [])
    before = snapshot(out)
    longer = Config(train=TrainConfig(epochs=200))
    resume_folder(out, longer, epoch=1)
    assert snapshot(out) == before
    with atomic_results(out, longer) as results:
        write_results(results, rows(), {}, [])
    assert read_config(out) == longer


def test_a_half_written_last_line_is_ignored(out):
    append(out, 1)
    whole = (out / "metrics.jsonl").read_text()
    with (out / "metrics.jsonl").open("a") as file:
        file.write(whole[: len(whole) // 2])
    resume_folder(out, CONFIG, epoch=5)
    assert (out / "metrics.jsonl").read_text() == whole


def test_a_run_killed_before_its_first_line_can_be_resumed(out):
    resume_folder(out, CONFIG, epoch=0)
    assert metrics(out) == []


def test_results_are_written_as_csv_and_json(out):
    about = {"timing": {"train_s": 1.0}, "environment": {"device": "cpu"}}
    write_results(out, rows(), about, ["a note"])
    scores = [row["score"] for row in rows_of(out / "results.csv")]
    assert scores == list(CONFIG.scores)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["official_score"]["mse"]["per_seed"] == [pytest.approx(0.5)]
    assert summary["timing"] == {"train_s": 1.0}
    assert summary["environment"] == {"device": "cpu"}
    assert summary["notes"] == ["a note"]


def test_results_without_rows_are_still_written(out):
    write_results(out, [], {"timing": {}}, ["no labels"])
    assert (out / "results.csv").read_text().count("\n") == 1
    assert json.loads((out / "summary.json").read_text())["notes"] == ["no labels"]


def test_the_last_epoch_comes_from_the_last_line_of_metrics(out):
    append(out, 1)
    append(out, 2, loss=0.5)
    assert last_epoch(out) == metrics(out)[-1]["machines"]
    assert read_metrics(out) == metrics(out)


def test_a_damaged_configuration_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"preset": ')
    message = r"config\.json' is damaged: restore it from a backup"
    with pytest.raises(InputError, match=message):
        read_config(tmp_path)
