"""The main job from the command line: whole, resumed, repeated, refused."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from packing import pack_machines

from gammavae_jax.evaluate import Row
from gammavae_jax.synthetic import SyntheticSize, make_synthetic

ROOT = Path(__file__).parent.parent
TINY = [
    "--set",
    "model.hidden=[16]",
    "model.n_latent=4",
    "train.batch_size=64",
    "train.checkpoint_every=2",
]


def command(script, *arguments, check=True):
    """Run a script in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    run = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert not check or run.returncode == 0, run.stderr
    return run


def refusal_to_resume(out, data):
    """What the same run says when it refuses to go on in a folder."""
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", out, "--resume",
        "--epochs", 4, "--seeds", 2, *TINY, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    return run.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two synthetic machines of different sizes and lengths."""
    sizes = {
        "fan": SyntheticSize(12, 3, 3, (0.4, 0.6)),
        "valve": SyntheticSize(7, 0, 2, (0.5, 0.5)),
    }
    return make_synthetic(tmp_path_factory.mktemp("data") / "set", sizes)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run of two seeds and four epochs."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", out, "--epochs", 4,
        "--seeds", 2, *TINY,
    )  # fmt: skip
    return out, run


def score_bytes(out):
    files = sorted((out / "scores").rglob("*.csv"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def notes_of(out):
    return " ".join(json.loads((out / "summary.json").read_text())["notes"])


def test_a_run_leaves_what_the_contract_says(finished):
    out, run = finished
    assert {path.name for path in out.iterdir()} == {
        "config.json", "metrics.jsonl", "results.csv", "summary.json", "report.html",
        "checkpoint", "scores",
    }  # fmt: skip
    scores = ("mse", "mahalanobis", "mahalanobis_framewise")
    assert score_bytes(out).keys() == {
        f"scores/{score}/seed{seed}/{kind}_{machine}_section_00_test.csv"
        for score in scores
        for seed in (13711, 13712)
        for kind in ("anomaly_score", "decision_result")
        for machine in ("fan", "valve")
    }
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == Row._fields
    assert len(rows) == 2 * 3 * 2
    metrics = [
        json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4]
    assert metrics[0]["machines"].keys() == {"fan_section_00", "valve_section_00"}
    summary = json.loads((out / "summary.json").read_text())
    for score in scores:
        assert len(summary["official_score"][score]["per_seed"]) == 2
    assert {
        "features_s", "compile_s", "train_s", "score_s", "windows_per_s",
    } <= summary["timing"].keys()  # fmt: skip
    assert json.loads((out / "config.json").read_text())["score"] in scores
    assert "official score" in run.stdout


def test_synthetic_numbers_are_labelled_as_such(finished):
    out, run = finished
    assert "SYNTHETIC" in run.stdout
    assert "Synthetic data" in (out / "report.html").read_text()
    assert "Synthetic data" in notes_of(out)


def test_evaluating_the_checkpoint_writes_the_same_bytes(finished, data, tmp_path):
    out, _ = finished
    again = tmp_path / "again"
    command(
        "evaluate.py", "--checkpoint", out / "checkpoint", "--data-root", data,
        "--out", again,
    )  # fmt: skip
    assert score_bytes(again) == score_bytes(out)
    assert (again / "results.csv").read_bytes() == (out / "results.csv").read_bytes()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    finished, data, tmp_path
):
    out, _ = finished
    common = ["--all-machines", "--data-root", data, "--epochs", 4, "--seeds", 2]
    command("run.py", *common, "--out", tmp_path / "same", *TINY)
    command("run.py", *common, "--out", tmp_path / "other", "--seed", 5, *TINY)
    assert score_bytes(tmp_path / "same") == score_bytes(out)
    for name in ("metrics.jsonl", "results.csv", "config.json"):
        assert (tmp_path / "same" / name).read_bytes() == (out / name).read_bytes()
    other = score_bytes(tmp_path / "other")
    here = "scores/mse/seed{}/anomaly_score_fan_section_00_test.csv"
    assert other[here.format(5)] != score_bytes(out)[here.format(13711)]


def test_archives_give_the_same_bytes_as_folders(finished, data, tmp_path):
    """The evaluation needs those with test clips alone."""
    out, _ = finished
    packed = pack_machines(data, tmp_path / "packed")
    run, again = tmp_path / "run", tmp_path / "again"
    command(
        "run.py", "--all-machines", "--data-root", packed, "--out", run, "--epochs", 4,
        "--seeds", 2, *TINY,
    )  # fmt: skip
    for archive in packed.glob("*_train.zip"):
        archive.unlink()
    command(
        "evaluate.py", "--checkpoint", run / "checkpoint", "--data-root", packed,
        "--out", again,
    )  # fmt: skip
    assert score_bytes(run) == score_bytes(again) == score_bytes(out)
    for name in ("metrics.jsonl", "results.csv", "config.json"):
        assert (run / name).read_bytes() == (out / name).read_bytes()
    assert (again / "results.csv").read_bytes() == (out / "results.csv").read_bytes()


def test_the_next_run_finds_all_its_programs_compiled(finished, data, tmp_path):
    folder = Path(os.environ["GAMMAVAE_CACHE_DIR"]) / "compiled"
    before = sorted(folder.iterdir())
    command(
        "run.py", "--all-machines", "--data-root", data, "--out", tmp_path / "out",
        "--epochs", 4, "--seeds", 2, *TINY,
    )  # fmt: skip
    assert sorted(folder.iterdir()) == before
    assert before


def test_a_resumed_run_ends_as_the_unbroken_one(finished, data, tmp_path):
    out, _ = finished
    half = tmp_path / "half"
    common = [
        "--all-machines", "--data-root", data, "--seeds", 2, "--out", half,
    ]  # fmt: skip
    command("run.py", *common, "--epochs", 2, *TINY)
    command("run.py", *common, "--epochs", 4, "--resume", *TINY)
    assert score_bytes(half) == score_bytes(out)
    assert (half / "metrics.jsonl").read_bytes() == (out / "metrics.jsonl").read_bytes()


def test_help_answers_in_under_half_a_second():
    for script in ("run.py", "evaluate.py"):
        command(script, "--help")
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            command(script, "--help")
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.5


@pytest.mark.slow
def test_the_built_in_data_is_neither_trivial_nor_hopeless(tmp_path):
    command("run.py", "--all-machines", "--out", tmp_path / "out")
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["score"] == "mse"]
    assert len(rows) == 7
    for row in rows:
        assert 0.6 < float(row["auc"]) < 0.95, row["machine"]


def test_a_dry_run_writes_nothing(data, tmp_path):
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", tmp_path / "dry",
        "--dry-run",
    )  # fmt: skip
    assert "fan_section_00: 15 training clips, 12 test clips" in run.stdout
    assert not (tmp_path / "dry").exists()


@pytest.fixture
def copied(data, tmp_path):
    """A copy of the data, to be spoilt."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def spoil_nothing(root):
    return []


def spoil_empty_root(root):
    shutil.rmtree(root)
    root.mkdir()


def spoil_train(root):
    shutil.rmtree(root / "fan" / "train")


def spoil_test(root):
    shutil.rmtree(root / "fan" / "test")


def spoil_labels(root):
    for path in (root / "fan" / "test").glob("*anomaly*"):
        path.unlink()


def a_clip(root):
    return sorted((root / "fan" / "train").glob("*.wav"))[3]


def spoil_empty_file(root):
    a_clip(root).write_bytes(b"")


def spoil_rate(root):
    sound, _ = soundfile.read(a_clip(root))
    soundfile.write(a_clip(root), sound, 8000)


def spoil_nan(root):
    sound, rate = soundfile.read(a_clip(root))
    sound[7] = float("nan")
    soundfile.write(a_clip(root), sound, rate, subtype="FLOAT")


def spoil_length(root):
    sound, rate = soundfile.read(a_clip(root))
    soundfile.write(a_clip(root), sound[:1000], rate)


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (spoil_empty_root, [], "no machine found"),
        (spoil_train, [], "no recordings in .*train"),
        (spoil_test, [], "no recordings in .*test"),
        (spoil_labels, [], "all 6 test clips of fan_section_00 are normal"),
        (spoil_empty_file, [], "normal_0003"),
        (spoil_rate, [], "normal_0003.* 8000 Hz"),
        (spoil_nan, [], "normal_0003.*nan"),
        (spoil_length, [], "normal_0003.*too few"),
        (spoil_nothing, ["--preset", "papper"], "did you mean 'paper'"),
        (spoil_nothing, ["--scores", "mze"], "did you mean 'mse'"),
        (spoil_nothing, ["--set", "train.epoch=3"], "did you mean 'train.epochs'"),
        (spoil_nothing, ["--set", "model.hidden=wide"], "model.hidden"),
        (spoil_nothing, ["--epochs", "0"], "epochs"),
        (spoil_nothing, ["--resume"], "nothing to resume"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_with_nothing_written(
    copied, tmp_path, spoil, arguments, message
):
    spoil(copied)
    out = tmp_path / "out"
    run = command(
        "run.py", "--all-machines", "--data-root", copied, "--out", out, *arguments,
        check=False,
    )  # fmt: skip
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert run.stderr.splitlines()[-1] == errors[0]
    assert "Traceback" not in run.stderr
    assert re.search(message, errors[0])
    assert not out.exists()


def test_a_bad_file_is_left_out_where_that_was_said(copied, tmp_path):
    spoil_empty_file(copied)
    run = command(
        "run.py", "--machines", "fan", "--data-root", copied, "--out", tmp_path / "o",
        "--epochs", 1, "--skip-bad-files", *TINY,
    )  # fmt: skip
    assert "skipped: " in run.stderr
    assert "normal_0003" in notes_of(tmp_path / "o")


def test_a_finished_run_is_not_overwritten_unless_that_was_said(finished, data):
    out, _ = finished
    before = (out / "summary.json").read_bytes()
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", out, check=False
    )
    assert run.returncode == 2
    assert "say --overwrite (or --resume" in run.stderr
    assert (out / "summary.json").read_bytes() == before


def test_resuming_with_machines_in_another_order_is_refused(finished, data):
    out, _ = finished
    run = command(
        "run.py", "--machines", "valve", "fan", "--data-root", data, "--out", out,
        "--resume", "--epochs", 4, "--seeds", 2, *TINY, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "another order" in run.stderr


def test_an_evaluation_never_replaces_the_checkpoint_that_it_reads(finished, data):
    out, _ = finished
    before = score_bytes(out)
    run = command(
        "evaluate.py", "--checkpoint", out / "checkpoint", "--data-root", data,
        "--out", out, "--overwrite", check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "the checkpoint lies in" in run.stderr
    assert score_bytes(out) == before
    assert (out / "checkpoint" / "detector.json").exists()


def test_resuming_never_takes_results_away_without_a_training(finished, data, tmp_path):
    out, _ = finished
    again = tmp_path / "again"
    command(
        "evaluate.py", "--checkpoint", out / "checkpoint", "--data-root", data,
        "--out", again,
    )  # fmt: skip
    before = score_bytes(again)
    assert "no training to go on with" in refusal_to_resume(again, data)
    assert score_bytes(again) == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_resumed_ends_as_the_unbroken_one(finished, data, tmp_path, how):
    out, _ = finished
    killed = tmp_path / "killed"
    arguments = [
        "--all-machines", "--data-root", data, "--seeds", 2, "--epochs", 4,
        "--out", killed, *TINY,
    ]  # fmt: skip
    script = [sys.executable, str(ROOT / "experiments" / "run.py")]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    run = subprocess.Popen(
        [*script, *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = killed / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.01)
    run.send_signal(how)
    _, said = run.communicate(timeout=30)
    if how == signal.SIGINT:
        assert run.returncode == 130
        assert "interrupted" in said.splitlines()
        assert "Traceback" not in said
    command("run.py", *arguments, "--resume")
    assert score_bytes(killed) == score_bytes(out)
    assert metrics.read_bytes() == (out / "metrics.jsonl").read_bytes()


def test_resuming_with_other_recordings_of_the_same_names_is_refused(
    finished, copied, tmp_path
):
    out, _ = finished
    (first, *_) = sorted((copied / "fan" / "train").iterdir())
    samples, rate = soundfile.read(first)
    soundfile.write(first, 0.5 * samples, rate)
    again = tmp_path / "again"
    shutil.copytree(out, again)
    assert "was trained on other recordings" in refusal_to_resume(again, copied)
    assert score_bytes(again) == score_bytes(out)


def test_resuming_with_other_settings_is_refused(finished, data):
    out, _ = finished
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", out, "--resume",
        "--seeds", 2, "--set", "model.n_latent=5", check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "other settings" in run.stderr


def test_clips_without_labels_are_scored_and_not_evaluated(copied, tmp_path):
    for machine in ("fan", "valve"):
        for i, path in enumerate(sorted((copied / machine / "test").iterdir())):
            path.rename(path.with_name(f"section_00_{i:04d}.wav"))
    out = tmp_path / "o"
    command(
        "run.py", "--all-machines", "--data-root", copied, "--out", out, "--epochs", 1,
        *TINY,
    )  # fmt: skip
    assert len(score_bytes(out)) == 3 * 2 * 2
    assert (out / "results.csv").read_text().count("\n") == 1
