"""What the main job is given and cannot use: said in one line, or left out."""

import re
import shutil
import time
from pathlib import Path

import pytest
import soundfile
from support.main_job import TINY, command, notes_of, score_bytes, two_machines

from gammavae_jax.presets import preset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two synthetic machines of different sizes and lengths."""
    return two_machines(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def copied(data, tmp_path):
    """A copy of the data, to be spoilt."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def test_help_answers_in_under_half_a_second():
    for script in ("run.py", "evaluate.py"):
        command(script, "--help")
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            command(script, "--help")
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.5


def test_a_dry_run_writes_nothing(data, tmp_path):
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", tmp_path / "dry",
        "--dry-run",
    )  # fmt: skip
    assert "fan_section_00: 15 training clips, 12 test clips" in run.stdout
    assert not (tmp_path / "dry").exists()


def test_a_dry_run_says_at_its_end_that_the_folder_would_be_refused(data, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    run = command(
        "run.py", "--all-machines", "--data-root", data, "--out", tmp_path,
        "--dry-run", "--wave-size", 1,
    )  # fmt: skip
    *_, waves, last = run.stdout.splitlines()
    assert waves == "in 2 waves, machines in each: 1"
    assert last.startswith(f"would be refused: {str(tmp_path)!r} exists: pass")


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


def test_clips_without_labels_are_scored_and_not_evaluated(copied, tmp_path):
    for machine in ("fan", "valve"):
        for i, path in enumerate(sorted((copied / machine / "test").iterdir())):
            path.rename(path.with_name(f"section_00_{i:04d}.wav"))
    out = tmp_path / "o"
    command(
        "run.py", "--all-machines", "--data-root", copied, "--out", out, "--epochs", 1,
        *TINY,
    )  # fmt: skip
    assert len(score_bytes(out)) == len(preset("default").scores) * 2 * 2
    assert (out / "results.csv").read_text().count("\n") == 1
