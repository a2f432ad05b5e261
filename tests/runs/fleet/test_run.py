"""A fleet in waves gives the results of one run, even if it is killed and resumed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.finished_runs import rows_of
from support.logs import quiet_log, text_of
from support.main_job import (
    TINY,
    assert_same_results,
    command,
    rescore,
    run_all,
    score_bytes,
)
from support.processes import ROOT

from gammavae_jax.cli.run import Report
from gammavae_jax.config_json import override
from gammavae_jax.data.loading import Source
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.errors import InputError
from gammavae_jax.runs.fleet.plan import read_plan, write_plan
from gammavae_jax.runs.fleet.run import (
    _begun_wave,
    describe_waves,
    rescore_machines,
    run_machines,
)
from gammavae_jax.runs.folder import RunFolder, read_config
from gammavae_jax.runs.result_files import remove_results

TABLES = ("results.csv", "clips.csv")
SETTINGS = ["--epochs", 2, *TINY]
SUMS = ("official_score", "arithmetic_means", "harmonic_means", "machines")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Create three machines of different sizes and lengths; waves need padding."""
    sizes = {
        "fan0001": SyntheticSize(12, 3, 3, (0.4, 0.6)),
        "fan0002": SyntheticSize(7, 0, 2, (0.5, 0.5)),
        "valve": SyntheticSize(5, 2, 2, (0.3, 0.4)),
    }
    return make_synthetic(tmp_path_factory.mktemp("data") / "set", sizes)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Return the folder of one run of all machines."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_all(data, out, "--wave-size", 3, *SETTINGS)
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def waves(data, cache, tmp_path_factory):
    """Return the folder of the same run in two waves, with a feature cache."""
    out = tmp_path_factory.mktemp("runs") / "waves"
    run_all(data, out, "--wave-size", 2, "--feature-cache", cache, *SETTINGS)
    return out


def summary_of(out):
    return json.loads((out / "summary.json").read_text())


def assert_same_fleet(out, expected):
    assert_same_results(out, expected, *TABLES)
    for name in SUMS:
        assert summary_of(out)[name] == summary_of(expected)[name], name


def test_a_fleet_of_one_wave_is_an_ordinary_run(whole):
    assert {path.name for path in whole.iterdir()} == {
        "config.json", "metrics.jsonl", "results.csv", "clips.csv", "summary.json",
        "report.html", "checkpoint", "scores",
    }  # fmt: skip


def test_results_do_not_depend_on_the_wave_size(whole, waves):
    assert_same_fleet(waves, whole)
    assert {path.name for path in waves.iterdir()} == {
        "config.json", "fleet.json", "results.csv", "clips.csv", "summary.json",
        "report.html", "scores", "waves",
    }  # fmt: skip
    assert (waves / "config.json").read_bytes() == (whole / "config.json").read_bytes()
    machines = {
        "0000": ["fan0001_section_00", "fan0002_section_00"],
        "0001": ["valve_section_00"],
    }
    for wave, expected in machines.items():
        lines = (waves / "waves" / wave / "metrics.jsonl").read_text().splitlines()
        assert list(json.loads(lines[0])["machines"]) == expected


def test_the_feature_cache_has_an_array_for_each_machine_and_split(waves, cache):
    assert len(list(cache.glob("*.npy"))) == len(list(cache.glob("*.json"))) == 6


def test_a_killed_wave_is_resumed_and_ends_like_an_uninterrupted_run(
    whole, data, cache, tmp_path
):
    out = tmp_path / "killed"
    arguments = [
        "--all-machines", "--data-root", data, "--out", out, "--wave-size", 1,
        "--feature-cache", cache, *SETTINGS,
    ]  # fmt: skip
    script = [sys.executable, str(ROOT / "experiments" / "run.py")]
    run = subprocess.Popen(
        [*script, *map(str, arguments)],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    started = out / "waves" / "0001" / "config.json"
    while run.poll() is None and not started.exists():
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait(timeout=30) == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    first = out / "waves" / "0000" / "summary.json"
    before = first.stat().st_mtime_ns
    resumed = command("run.py", *arguments, "--resume")
    assert "wave 2 of 3" in resumed.stderr
    assert "wave 1 of 3" not in resumed.stderr
    assert first.stat().st_mtime_ns == before
    assert_same_fleet(out, whole)


@pytest.mark.slow
def test_evaluating_a_fleet_or_one_of_its_waves_writes_the_same_bytes(
    waves, data, tmp_path
):
    out, wave = tmp_path / "again", waves / "waves" / "0001"
    rescore(waves, data, out)
    assert_same_fleet(out, waves)
    alone = tmp_path / "alone"
    rescore(wave / "checkpoint", data, alone)
    assert_same_fleet(alone, wave)


def test_the_page_of_a_fleet_links_to_every_machine_with_the_worst_first(waves):
    page = (waves / "report.html").read_text()
    links = re.findall(r'<a href="([^"#]+)">(\w+)</a>', page)
    assert {name for _, name in links} == {
        "fan0001_section_00", "fan0002_section_00", "valve_section_00",
    }  # fmt: skip
    for link, name in links:
        assert name in (waves / link).read_text()
    means = [float(x) for x in re.findall(r"<td>([\d.]+)</td><td>\d+ of", page)]
    assert means == sorted(means)
    clips = rows_of(waves / "clips.csv")
    rows = [row for row in clips if row["score"] == "fusion_smooth_max"]
    alarms = sum(int(row["decision"]) for row in rows)
    assert f"<dt>alarms</dt><dd>{alarms}</dd>" in page
    assert f"<dt>test clips</dt><dd>{len(rows)}</dd>" in page
    assert "Synthetic data" in page


def test_the_summary_of_a_fleet_adds_up_its_waves(waves):
    of_waves = [summary_of(folder) for folder in sorted((waves / "waves").iterdir())]
    timing = summary_of(waves)["timing"]
    assert timing["train_s"] == sum(s["timing"]["train_s"] for s in of_waves)
    assert timing["windows_per_s"] > 0
    assert summary_of(waves)["waves"] == 2


def job(data, out, **options):
    return Source(data, ("fan0001", "fan0002", "valve")), RunFolder(out, **options)


def refusal(config, job, wave_size=None, year=None):
    source, folder = job
    with pytest.raises(InputError) as error:
        run_machines(config, source, folder, year, wave_size, quiet_log())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_fleet_is_only_resumed_in_its_own_waves(waves, whole, data, tiny):
    for out, options, message in (
        (waves, {"wave_size": 1}, "has a wave size of 2: omit --wave-size"),
        (whole, {"wave_size": 1}, "was not run in waves"),
        (waves, {"year": 2021}, "uses another year's metrics: omit --year"),
    ):
        assert message in refusal(tiny(), job(data, out, resume=True), **options)


def test_a_fleet_with_different_recordings_or_settings_is_not_resumed(
    waves, data, tiny, tmp_path
):
    text = refusal(tiny(), job(data, waves, resume=True))
    assert "was made with different settings" in text
    other = Path(shutil.copytree(data, tmp_path / "other"))
    clip = next((other / "valve" / "train").iterdir())
    clip.rename(clip.with_name("section_00_source_train_normal_0099.wav"))
    text = refusal(tiny(), job(other, waves, resume=True))
    assert "was made from different machines or recordings" in text


def test_bad_recordings_of_any_wave_are_counted_before_the_first_is_trained(
    data, tiny, tmp_path
):
    damaged = Path(shutil.copytree(data, tmp_path / "damaged"))
    for machine in ("fan0002", "valve"):
        clip = min((damaged / machine / "test").iterdir())
        clip.write_bytes(b"no sound")
    out = tmp_path / "out"
    text = refusal(tiny(), job(damaged, out), 1)
    assert "fan0002/test/section_00" in text
    assert "(2 recordings cannot be used; --skip-bad-files lists them)" in text
    assert not out.exists()


@pytest.mark.slow
def test_a_recording_that_only_decoding_finds_bad_ends_only_its_own_wave(
    whole, data, tmp_path
):
    damaged = Path(shutil.copytree(data, tmp_path / "damaged"))
    clip = min((damaged / "valve" / "test").iterdir())
    sound = clip.read_bytes()
    samples, rate = soundfile.read(clip, dtype="float32")
    samples[7] = np.nan
    soundfile.write(clip, samples, rate, subtype="FLOAT")
    out = tmp_path / "out"
    common = ["--all-machines", "--data-root", damaged, "--out", out, *SETTINGS]
    run = command("run.py", *common, "--wave-size", 1, check=False)
    assert run.returncode == 2
    assert "wave 3 of 3: " in run.stderr
    assert "sample 7 is nan" in run.stderr
    assert "Traceback" not in run.stderr
    assert (out / "waves" / "0001" / "summary.json").exists()
    clip.write_bytes(sound)
    resumed = command("run.py", *common, "--resume")
    assert "wave 2 of 3" not in resumed.stderr
    assert_same_fleet(out, whole)


def test_waves_need_a_single_process(data, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    text = refusal(tiny(), job(data, tmp_path / "out"), 1)
    assert "waves need a single process" in text


def test_a_dry_run_describes_the_waves(waves, data, tiny, tmp_path, monkeypatch):
    def description(of_job, wave_size: int | None = None):
        source, folder = of_job
        log = quiet_log()
        describe_waves(tiny(), source, folder, wave_size, log)
        return text_of(log.output)

    new = job(data, tmp_path / "out")
    assert description(new) == ""
    assert "in 3 waves (--wave-size 1)" in description(new, 1)
    assert "in 2 waves (--wave-size 2)" in description(job(data, waves, resume=True))
    monkeypatch.setattr("gammavae_jax.runs.fleet.run.all_fit", lambda *_: False)
    assert "in waves, unless all machines fit in memory" in description(new)


def test_an_unfinished_fleet_is_not_evaluated(waves, data, tmp_path):
    half = Path(shutil.copytree(waves, tmp_path / "half"))
    (half / "waves" / "0001" / "summary.json").unlink()
    again = tmp_path / "again"
    with pytest.raises(InputError, match=r"wave 2 of the fleet in .* is not finished"):
        rescore_machines(half, Source(data, ()), RunFolder(again), None, quiet_log())
    assert not again.exists()


def test_evaluating_a_fleet_never_removes_a_part_of_it(waves, data):
    before = score_bytes(waves)
    for out in (waves, waves / "waves" / "0000", waves.parent):
        job = Source(data, ()), RunFolder(out, overwrite=True), None
        problem = "is, contains or is inside the fleet's folder"
        with pytest.raises(InputError, match=problem):
            rescore_machines(waves, *job, quiet_log())
    assert score_bytes(waves) == before
    assert (waves / "waves" / "0000" / "checkpoint" / "detector.json").exists()


def test_resuming_a_fleet_that_was_killed_before_its_plan_plans_it(
    waves, data, tiny, tmp_path
):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(waves / "config.json", out)
    damaged = Path(shutil.copytree(data, tmp_path / "damaged"))
    min((damaged / "valve" / "test").iterdir()).write_bytes(b"no sound")
    text = refusal(tiny(), job(damaged, out, resume=True), 1)
    assert "valve/test/section_00" in text  # it was measured, not refused


def test_a_year_before_the_challenge_is_refused_before_any_work(tiny, tmp_path):
    nowhere = job(tmp_path / "nowhere", tmp_path / "out")
    assert "the year is 1999" in refusal(tiny(), nowhere, year=1999)
    with pytest.raises(InputError, match="the year is 1999"):
        rescore_machines(tmp_path, *nowhere, 1999, quiet_log())


def test_the_page_of_a_whole_fleet_cannot_be_recreated(waves):
    with pytest.raises(InputError, match=r"is a fleet: .*waves/0000"):
        Report(waves).run()


def test_a_wave_of_an_overwritten_fleet_is_started_again(waves, data, tmp_path):
    out = Path(shutil.copytree(waves, tmp_path / "out"))
    of_fleet = read_config(out)
    assert of_fleet is not None
    longer = replace(of_fleet, train=replace(of_fleet.train, epochs=5))
    assert _begun_wave(longer, out, 0).resume
    other = override(of_fleet, ["model.n_latent=5"])
    of_wave = _begun_wave(other, out, 0)
    assert not of_wave.resume
    assert not of_wave.path.exists()
    assert (out / "waves" / "0001").exists()


def test_a_fleet_refuses_fewer_epochs_than_a_wave_has_and_stays_unchanged(
    waves, data, tmp_path
):
    out = Path(shutil.copytree(waves, tmp_path / "out"))
    remove_results(out)
    before = (out / "config.json").read_text()
    of_fleet = read_config(out)
    assert of_fleet is not None
    shorter = replace(of_fleet, train=replace(of_fleet.train, epochs=1))
    text = refusal(shorter, job(data, out, resume=True))
    assert "waves/0000' is already trained to epoch 2" in text
    assert (out / "config.json").read_text() == before


def test_a_fleet_is_evaluated_with_the_metrics_of_its_year(waves, data, tmp_path):
    fleet = Path(shutil.copytree(waves, tmp_path / "fleet"))
    write_plan(fleet, read_plan(fleet)._replace(year=2020))
    rescore_machines(fleet, *job(data, tmp_path / "out"), None, quiet_log())
    assert summary_of(tmp_path / "out")["year"] == 2020


def test_a_finished_fleet_killed_in_further_training_resumes_to_the_new_epochs(
    waves, data, tmp_path
):
    """Its own configuration stays that of the results until new ones are published."""
    out = Path(shutil.copytree(waves, tmp_path / "out"))
    (state,) = (out / "waves" / "0001" / "checkpoint" / "train").glob("2.json")
    text = state.read_text().replace('"epochs": 2', '"epochs": 5')
    assert text != state.read_text()
    state.write_text(text)
    resumed = run_all(data, out, "--resume", "--dry-run", *TINY)
    assert '"epochs": 5' in resumed.stdout
