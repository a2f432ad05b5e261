"""A stopped run is resumed, a finished one rescored, or either is refused."""

import contextlib
import shutil
import signal

import pytest
import soundfile
from support.logs import quiet_log
from support.main_job import (
    FOUR_EPOCHS,
    TINY,
    assert_same_results,
    rescore,
    run_all,
    score_bytes,
)

from gammavae_jax.config_json import override, to_dict, to_json
from gammavae_jax.data.loading import Source
from gammavae_jax.errors import InputError
from gammavae_jax.runs import run
from gammavae_jax.runs.folder import RunFolder, locked_folder, read_config
from gammavae_jax.runs.resume import FolderObserver


def test_a_resumed_run_gives_the_same_results_as_an_uninterrupted_one(
    finished, data, tmp_path
):
    half = tmp_path / "half"
    run_all(data, half, "--epochs", 2, "--seeds", 2, *TINY)
    run_all(data, half, "--resume", *FOUR_EPOCHS)
    assert_same_results(half, finished, "metrics.jsonl")


def resume(out, data, *options):
    """Return the command that resumes the run of all machines in a folder."""
    return "run", "--data-root", data, "--out", out, "--resume", *options


ALL = ("--all-machines", *FOUR_EPOCHS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--machines", "valve", "fan", *FOUR_EPOCHS], "different order"),
        (
            ["--all-machines", "--seeds", 3, *TINY, "model.n_latent=5"],
            "different settings (n_seeds=2, not 3; model.n_latent=4, not 5):",
        ),
    ],
    ids=["order", "settings"],
)
def test_resuming_with_another_order_of_machines_or_other_settings_is_refused(
    finished, data, refusal, options, message
):
    assert message in refusal(*resume(finished, data, *options))


def test_resuming_never_removes_results_that_have_no_training(
    finished, data, tmp_path, refusal
):
    again = tmp_path / "again"
    rescore(finished / "checkpoint", data, again)
    before = score_bytes(again)
    assert "no training state to resume from" in refusal(*resume(again, data, *ALL))
    assert score_bytes(again) == before


def test_resuming_with_different_recordings_of_the_same_names_is_refused(
    finished, copied, tmp_path, refusal
):
    (first, *_) = sorted((copied / "fan" / "train").iterdir())
    samples, rate = soundfile.read(first)
    soundfile.write(first, 0.5 * samples, rate)
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    message = refusal(*resume(again, copied, *ALL))
    assert "was trained on different recordings" in message
    assert score_bytes(again) == score_bytes(finished)


def test_scoring_trained_models_again_equals_a_new_run_with_those_settings(
    finished, data, tmp_path
):
    settings = "scoring.false_alarm_rate=0.3", "scoring.smote_ratio=0.5"
    other = "--scores", "mse_top", "fusion_max", *FOUR_EPOCHS, *settings
    rescored, fresh = tmp_path / "rescored", tmp_path / "fresh"
    shutil.copytree(finished, rescored)
    run = run_all(data, rescored, "--resume", *other)
    assert "all 4 epochs are done: only scoring is left" in run.stderr
    run_all(data, fresh, *other)
    names = "results.csv", "clips.csv", "metrics.jsonl", "config.json"
    assert_same_results(rescored, fresh, *names)


def test_resuming_a_killed_overwrite_starts_from_the_beginning(finished, tmp_path):
    """The remains of the older run's training have other settings."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    before = read_config(out)
    assert before is not None
    config = override(before, ["model.n_latent=5"])
    folder, log = RunFolder(out, resume=True), quiet_log()
    observer = FolderObserver(config, folder, {}, log)
    with pytest.raises(InputError, match="was made with different settings"):
        observer.begin()
    text = to_json(to_dict(config))
    (out / "config.json").write_text(text)  # overwriting does this first
    assert observer.begin() is None


def test_a_second_run_in_a_folder_is_refused_before_it_reads_anything(
    finished, data, tmp_path
):
    out = tmp_path / "out"
    config = read_config(finished)
    assert config is not None
    job = Source(data, ("fan", "valve")), RunFolder(out), None
    log = quiet_log()
    refused = pytest.raises(InputError, match=f"another run is writing to '{out}'")
    with locked_folder(out, resume=False, overwrite=False):
        with refused:
            run.run(config, *job, log)
        with refused:
            run.rescore(finished / "checkpoint", *job, log)
    assert not out.exists()


def test_a_damaged_state_is_reported_and_the_previous_one_resumed(
    finished, data, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    largest = max(
        (path for path in (out / "checkpoint/train/4").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    largest.write_bytes(largest.read_bytes()[:-1])
    run = run_all(data, out, "--resume", *FOUR_EPOCHS)
    assert "train/4' is damaged" in run.stderr
    assert "going back to the state after epoch 2" in run.stderr
    assert_same_results(out, finished, "metrics.jsonl", "clips.csv", "results.csv")


@pytest.mark.parametrize(("every", "saved"), [(3, [3, 5]), (5, [5]), (9, [5])])
def test_a_state_is_saved_every_few_epochs_and_after_the_last(
    tiny, tmp_path, every, saved
):
    config = tiny("vae", "train.epochs=5", f"train.checkpoint_every={every}")
    observer = FolderObserver(config, RunFolder(tmp_path), {}, quiet_log())
    assert [epoch for epoch in range(1, 6) if observer.must_save(epoch)] == saved


def test_a_training_asks_to_stop_only_after_a_signal(tiny, tmp_path, heeded_interrupts):
    observer = FolderObserver(tiny("vae"), RunFolder(tmp_path), {}, quiet_log())
    stops = []
    with contextlib.suppress(KeyboardInterrupt), observer.heed_signals():
        stops.append(observer.stop_requested())
        signal.raise_signal(signal.SIGINT)
        stops.append(observer.stop_requested())
    assert stops == [False, True]
