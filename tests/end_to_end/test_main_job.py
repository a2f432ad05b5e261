"""The main job from the command line: run, repeated, on archives, evaluated."""

import csv
import json
import re
import shutil

import pytest
from support.finished_runs import contents, rows_of
from support.main_job import (
    FOUR_EPOCHS,
    TINY,
    assert_same_results,
    command,
    notes_of,
    rescore,
    run_all,
    score_bytes,
)
from support.packing import pack_machines

from gammavae_jax.cli.run import Report
from gammavae_jax.cli.threshold import Threshold
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.presets import preset
from gammavae_jax.runs.folder import read_metrics

EXACT = ("metrics.jsonl", "results.csv", "clips.csv", "config.json")


def test_a_run_writes_the_documented_files(finished_run):
    out, printed = finished_run
    assert {path.name for path in out.iterdir()} == {
        "config.json", "metrics.jsonl", "results.csv", "clips.csv", "summary.json",
        "report.html", "checkpoint", "scores",
    }  # fmt: skip
    scores = preset("default").scores
    assert score_bytes(out).keys() == {
        f"scores/{score}/seed{seed}/{kind}_{machine}_section_00_test.csv"
        for score in scores
        for seed in (13711, 13712)
        for kind in ("anomaly_score", "decision_result")
        for machine in ("fan", "valve")
    }
    rows = rows_of(out / "results.csv")
    assert tuple(rows[0]) == Row._fields
    assert len(rows) == 2 * len(scores) * 2
    metrics = read_metrics(out)
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4]
    # Two folds of each seed.
    assert len(metrics[0]["machines"]["fan_section_00"]["loss"]) == 4
    assert metrics[0]["machines"].keys() == {"fan_section_00", "valve_section_00"}
    summary = json.loads((out / "summary.json").read_text())
    for score in scores:
        assert len(summary["official_score"][score]["per_seed"]) == 2
    assert {
        "features_s", "compile_s", "train_s", "score_s", "windows_per_s",
    } <= summary["timing"].keys()  # fmt: skip
    assert json.loads((out / "config.json").read_text())["score"] in scores
    assert "official score" in printed


def test_results_on_synthetic_data_are_labelled(finished_run):
    out, printed = finished_run
    assert "SYNTHETIC" in printed
    assert "Synthetic data" in (out / "report.html").read_text()
    assert "Synthetic data" in notes_of(out)


def test_evaluating_the_checkpoint_writes_the_same_bytes(finished, data, tmp_path):
    again = tmp_path / "again"
    rescore(finished / "checkpoint", data, again)
    assert_same_results(again, finished, "results.csv", "clips.csv")


def test_rescoring_notes_training_clips_and_what_is_left_out(finished, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    old = min((copy / "fan/train").iterdir())
    new = copy / "fan/test" / "section_00_source_test_normal_9999.wav"
    shutil.copy(old, new)
    new.with_suffix(".mp3").touch()
    said = rescore(finished / "checkpoint", copy, tmp_path / "again").stderr
    assert f"1 test clip is also a training clip (fan_section_00/{new.name})" in said
    assert f"1 file in another format (fan/test/{new.stem}.mp3)" in said


def test_the_table_of_clips_agrees_with_the_score_and_decision_files(finished):
    rows = rows_of(finished / "clips.csv")
    values = {}
    for path in sorted((finished / "scores").rglob("*.csv")):
        kind, machine = path.name.split("_section_")[0].rsplit("_", 1)
        key = (kind, path.parent.parent.name, path.parent.name, machine)
        with path.open(newline="") as file:
            values |= {(*key, name): float(value) for name, value in csv.reader(file)}
    assert len(values) == 2 * len(rows)
    for row in rows:
        key = row["score"], f"seed{row['seed']}", row["machine"], row["clip"]
        decision = values["decision_result", *key]
        assert float(row["decision"]) == decision
        score = float(row["anomaly_score"])
        assert score == pytest.approx(values["anomaly_score", *key], rel=1e-6)
        # A p-value counts the machine's training clips and the clip itself.
        n_clips = {"fan": 15, "valve": 7}[row["machine"]]
        count = float(row["p_value"]) * (n_clips + 1)
        assert count == pytest.approx(round(count))
        assert 1 <= round(count) <= n_clips + 1
        # Seven clips are too few for a rate of 10 %.
        if row["machine"] == "fan":
            assert (float(row["p_value"]) <= 0.1) == bool(decision)


def test_a_second_run_on_archives_gives_the_same_bytes_as_the_first_on_folders(
    finished, data, tmp_path
):
    """The evaluation needs only the archives with test clips."""
    packed = pack_machines(data, tmp_path / "packed")
    run, again = tmp_path / "run", tmp_path / "again"
    run_all(packed, run, *FOUR_EPOCHS)
    for archive in packed.glob("*_train.zip"):
        archive.unlink()
    rescore(run / "checkpoint", packed, again)
    assert_same_results(run, finished, *EXACT)
    assert_same_results(again, finished, "results.csv")


def test_the_next_run_compiles_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path / "cache"))
    # Cache every program, even if it compiles fast.
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    cached = []
    for name in ("first", "next"):
        run_all(data, tmp_path / name, "--epochs", 1, "--seeds", 2, *TINY)
        cached.append(sorted((tmp_path / "cache" / "compiled").glob("*-cache")))
    assert cached[0] == cached[1]
    assert cached[0]


@pytest.mark.slow
def test_the_built_in_data_is_neither_trivial_nor_hopeless(tmp_path):
    command("run.py", "--all-machines", "--out", tmp_path / "out")
    score = preset("default").score
    table = rows_of(tmp_path / "out" / "results.csv")
    rows = [row for row in table if row["score"] == score]
    assert len(rows) == 7
    for row in rows:
        assert 0.6 < float(row["auc"]) < 0.95, row["machine"]


def page_parts(path):
    """Split a page into its text, its pictures' `clip-<machine>-<clip>` and data."""
    parts = re.split(r'<script type="application/json" id="(clip-\d+-\d+)">', path)
    return parts[0], parts[1::2], [json.loads(p.split("<")[0]) for p in parts[2::2]]


def test_the_report_command_recreates_the_page_of_the_run(finished, data, tmp_path):
    """The values of pictures may differ by rounding."""
    Report(finished, out=tmp_path / "page.html").run()
    text, clips, pictures = page_parts((finished / "report.html").read_text())
    text_2, clips_2, pictures_2 = page_parts((tmp_path / "page.html").read_text())
    assert text_2 == text
    assert clips_2 == clips
    assert len(clips) == 20  # all test clips of both machines
    for one, other in zip(pictures, pictures_2, strict=True):
        assert one["sound"] == other["sound"]
        assert one["value"] == pytest.approx(other["value"], rel=1e-3, abs=1e-3)
        assert one["score"] == "fusion_smooth_max"
        assert one["sound"]["type"] == "audio/mpeg"


def test_the_score_in_a_picture_is_that_of_its_clip(finished):
    _, clips, pictures = page_parts((finished / "report.html").read_text())
    rows = [
        row
        for row in rows_of(finished / "clips.csv")
        if (row["score"], row["seed"]) == ("fusion_smooth_max", "13711")
    ]
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    for clip, picture in zip(clips, pictures, strict=True):
        m, c = map(int, clip.split("-")[1:])
        of_machine = [row for row in rows if row["machine"] == machines[m]]
        score = float(of_machine[c]["anomaly_score"])
        assert picture["value"] == pytest.approx(score, rel=1e-3, abs=2e-3)


def test_the_pictures_of_named_clips_come_first(finished, tmp_path):
    rows = rows_of(finished / "clips.csv")
    valve = next(row["clip"] for row in rows if row["machine"] == "valve")
    path = tmp_path / "page.html"
    for name in (valve, valve.removesuffix(".wav"), f"valve_section_00/{valve}"):
        Report(finished, out=path, clips=(name,)).run()
        assert page_parts(path.read_text())[1][0] == "clip-1-0"
    with pytest.raises(InputError, match="unknown clip 'section_0_source'"):
        Report(finished, out=path, clips=("section_0_source",)).run()


def change_summary(folder, **changes):
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_page_without_recordings_has_a_note(finished, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    change_summary(copy, data_root=str(tmp_path / "gone"))
    Report(copy).run()
    text, clips, _ = page_parts((copy / "report.html").read_text())
    assert clips == []
    assert "there are no pictures of clips" in text
    assert "the page will have no pictures: data root" in capsys.readouterr().err
    with pytest.raises(InputError, match="is not a folder: check the path"):
        Report(copy, data_root=tmp_path / "gone").run()


def test_a_page_needs_a_run_and_its_checkpoint(finished, data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("checkpoint"))
    Report(copy, out=tmp_path / "page.html").run()
    assert (tmp_path / "page.html").exists()
    change_summary(copy, checkpoint=str(tmp_path / "gone"))
    message = r"the checkpoint of .* was not found at .*gone"
    with pytest.raises(InputError, match=message):
        Report(copy).run()
    with pytest.raises(InputError, match="is not a finished run"):
        Report(tmp_path).run()


def test_the_thresholds_of_a_run_are_shown_but_never_changed(finished, capsys, refusal):
    checkpoint = finished / "checkpoint"
    before = contents(checkpoint)
    Threshold(checkpoint).run()
    assert "held-out clips" in capsys.readouterr().out
    message = refusal("threshold", checkpoint, "--false-alarm-rate", 0.2)
    assert "belongs to a run, and runs are never changed: pass" in message
    assert contents(checkpoint) == before


def test_an_evaluation_never_replaces_its_checkpoint(finished, data, refusal):
    before = score_bytes(finished)
    options = ("--data-root", data, "--out", finished, "--overwrite")
    message = refusal("rescore", "--checkpoint", finished / "checkpoint", *options)
    assert "the checkpoint is inside" in message
    assert score_bytes(finished) == before
    assert (finished / "checkpoint" / "detector.json").exists()


def test_a_page_has_the_pictures_of_recordings_that_were_moved(
    finished, data, tmp_path
):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    change_summary(copy, data_root=str(tmp_path / "gone"))
    Report(copy, data_root=data).run()
    _, clips, _ = page_parts((copy / "report.html").read_text())
    assert len(clips) == 20
