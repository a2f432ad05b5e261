"""Bad input of the main job is reported in one line, or left out on request."""

import re
import shutil
import time

import pytest
import soundfile
from support.main_job import TINY, command, notes_of, run_all, score_bytes

from gammavae_jax.presets import preset


def test_help_takes_less_than_half_a_second():
    for script in ("run.py", "evaluate.py"):
        command(script, "--help")
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            command(script, "--help")
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.5


def test_a_dry_run_writes_nothing(data, tmp_path):
    run = run_all(data, tmp_path / "dry", "--dry-run")
    assert "fan_section_00: 15 training clips, 12 test clips" in run.stdout
    assert not (tmp_path / "dry").exists()


def test_a_dry_run_ends_by_reporting_that_the_folder_would_be_refused(data, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    run = run_all(data, tmp_path, "--dry-run", "--wave-size", 1)
    *_, waves, last = run.stdout.splitlines()
    assert waves == "in 2 waves (--wave-size 1)"
    assert last.startswith(f"would be refused: {str(tmp_path)!r} exists: pass")


def damage_nothing(root):
    return []


def damage_empty_root(root):
    shutil.rmtree(root)
    root.mkdir()


def damage_train(root):
    shutil.rmtree(root / "fan" / "train")


def damage_test(root):
    shutil.rmtree(root / "fan" / "test")


def damage_labels(root):
    for path in (root / "fan" / "test").glob("*anomaly*"):
        path.unlink()


def a_clip(root):
    return sorted((root / "fan" / "train").glob("*.wav"))[3]


def damage_empty_file(root):
    a_clip(root).write_bytes(b"")


def damage_rate(root):
    sound, _ = soundfile.read(a_clip(root))
    soundfile.write(a_clip(root), sound, 8000)


def damage_nan(root):
    sound, rate = soundfile.read(a_clip(root))
    sound[7] = float("nan")
    soundfile.write(a_clip(root), sound, rate, subtype="FLOAT")


def damage_length(root):
    sound, rate = soundfile.read(a_clip(root))
    soundfile.write(a_clip(root), sound[:1000], rate)


@pytest.mark.parametrize(
    ("damage", "arguments", "message"),
    [
        (damage_empty_root, [], "no machine found"),
        (damage_train, [], "no recordings in .*train"),
        (damage_test, [], "no recordings in .*test"),
        (damage_labels, [], "all 6 test clips of fan_section_00 are normal"),
        (damage_empty_file, [], "normal_0003"),
        (damage_rate, [], "normal_0003.* 8000 Hz"),
        (damage_nan, [], "normal_0003.*nan"),
        (damage_length, [], "normal_0003.*too few"),
        (damage_nothing, ["--preset", "papper"], "did you mean 'paper'"),
        (damage_nothing, ["--scores", "mze"], "did you mean 'mse'"),
        (damage_nothing, ["--set", "train.epoch=3"], "did you mean 'train.epochs'"),
        (damage_nothing, ["--set", "model.hidden=wide"], "model.hidden"),
        (damage_nothing, ["--epochs", "0"], "epochs"),
        (damage_nothing, ["--resume"], "nothing to resume"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_line_and_writes_nothing(
    copied, tmp_path, damage, arguments, message
):
    damage(copied)
    out = tmp_path / "out"
    run = run_all(copied, out, *arguments, check=False)
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert run.stderr.splitlines()[-1] == errors[0]
    assert "Traceback" not in run.stderr
    assert re.search(message, errors[0])
    assert not out.exists()


def test_skip_bad_files_leaves_out_a_bad_file(copied, tmp_path):
    damage_empty_file(copied)
    run = command(
        "run.py", "--machines", "fan", "--data-root", copied, "--out", tmp_path / "o",
        "--epochs", 1, "--skip-bad-files", *TINY,
    )  # fmt: skip
    assert "skipped: " in run.stderr
    assert "normal_0003" in notes_of(tmp_path / "o")


def test_clips_without_labels_are_scored_but_not_evaluated(copied, tmp_path):
    for machine in ("fan", "valve"):
        for i, path in enumerate(sorted((copied / machine / "test").iterdir())):
            path.rename(path.with_name(f"section_00_{i:04d}.wav"))
    out = tmp_path / "o"
    run_all(copied, out, "--epochs", 1, *TINY)
    assert len(score_bytes(out)) == len(preset("default").scores) * 2 * 2
    assert (out / "results.csv").read_text().count("\n") == 1
