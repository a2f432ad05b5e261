"""Every benchmark runs at a tiny size and writes the promised figures."""

import importlib.util
import json
import os
import runpy
import sys

import jax
import pytest
from support.benchmarks import assert_positive, figures, script
from support.processes import ROOT

from benchmarks.contest import Contestant, hold, spread
from benchmarks.machine import flops_by_formula
from benchmarks.processes import Call, Member, ProcessError, once
from benchmarks.scaling_page import BEGIN, END, scaling_page
from benchmarks.served_load import Sample, Tally
from benchmarks.soak import faults_of as soak_faults
from benchmarks.training import configuration
from gammavae_jax.training.step import init_state

NO_SETUP = Call("benchmarks.process_setup:all_cores", {})
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install -e '.[bench]'",
)
TINY = ["--rounds", "2", "--warm-up", "1"]
TINY_TRAINING = ["--clips", "2", "--frames", "40", "--machines", "2", "--seeds", "1"]


def assert_is_training_result(record):
    assert_positive(
        record[name]
        for name in (
            "machines", "seeds", "batch_size", "clips", "windows_per_s", "lowering_s",
            "fraction_of_matmul_rate", "compile_s", "device_bytes", "peak_memory_bytes",
        )
    )  # fmt: skip
    assert record["seconds"].keys() == {"median", "min", "max", "iqr"}
    assert_positive(record["flops_per_window"].values())
    assert record["ratio_to"].keys() == {"pipeline", "careful", "careful_per_core"}


def test_training_without_peers_writes_the_promised_figures(tmp_path):
    record = figures(
        "bench_train_step", tmp_path, *TINY, *TINY_TRAINING, "--peers", "none",
        "--models", "autoencoder",
    )  # fmt: skip
    (result,) = record["results"]
    assert result["model"] == "autoencoder"
    assert_is_training_result(result)
    assert set(result["ratio_to"].values()) == {None}
    assert_positive([record["environment"]["matmul_gflops"]])


@pytest.mark.slow
def test_growth_with_the_number_of_clips_is_reported(tmp_path):
    record = figures(
        "bench_train_step", tmp_path, *TINY, *TINY_TRAINING, "--models", "autoencoder",
        "--scaling", 4, 2,
    )  # fmt: skip
    assert [row["clips"] for row in record["scaling"]] == [2, 4]
    assert record["scaling"][0]["seconds_over_proportion"] == 1.0
    for row, result in zip(record["scaling"], record["results"], strict=True):
        assert_is_training_result(result)
        assert_positive(row[name] for name in row if name != "model")


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("model", ["autoencoder", "gammavae"])
def test_training_is_compared_with_every_peer(tmp_path, model):
    record = figures(
        "bench_train_step", tmp_path, *TINY, *TINY_TRAINING, "--models", model,
        "--batch-size", 32, "--pipeline-windows", 64,
    )  # fmt: skip
    (result,) = record["results"]
    assert_is_training_result(result)
    if record["environment"]["platform"] != "cpu":
        del result["ratio_to"]["careful_per_core"]
    assert_positive(result["ratio_to"].values())
    for role, peer in result["peers"].items():
        assert peer["form"].startswith(role)
        assert_positive([peer["windows_per_s"], *peer["seconds"].values()][:-1])


def test_features_are_compared_with_librosa(tmp_path):
    record = figures("bench_features", tmp_path, *TINY, "--clips", 3)
    (result,) = record["results"]
    assert_positive([result["clips_per_s"], result["librosa_clips_per_s"]])
    assert_positive(result["ratio_to"].values())
    assert result["max_difference_db"] < 1e-3


def test_scoring_agrees_with_the_official_form(tmp_path):
    record = figures(
        "bench_score", tmp_path, *TINY, "--clips", 6, "--official-clips", 4,
        "--machines", 2, "--frames", 60,
    )  # fmt: skip
    (result,) = record["results"]
    assert result["clips"] == 6
    assert result["official_clips_timed"] == 4
    assert result["max_relative_difference"] < 1e-3
    assert_positive([result["clips_per_s"], result["official_clips_per_s"]])
    assert_positive(result["ratio_to"].values())


@pytest.mark.slow
def test_fleets_are_timed_by_machines_clips_and_devices(tmp_path):
    record = figures(
        "scaling", tmp_path, "--machines", 2, 4, "--wave-size", 2, "--clips", 4, 8,
        "--clip-machines", 2, "--devices", 1, 2, "--device-machines", 2,
        "--epochs", 1, "--seconds", 0.4,
    )  # fmt: skip
    assert [run["machines"] for run in record["machines"]] == [2, 4]
    assert [run["waves"] for run in record["machines"]] == [1, 2]
    assert [run["clips"] for run in record["clips"]] == [4, 8]
    assert [run["devices"] for run in record["devices"]] == [1, 2]
    for run in (*record["machines"], *record["clips"], *record["devices"]):
        assert_positive([run["wall_s"], run["peak_memory_bytes"]])
        assert_positive([run["timing"]["train_s"], run["timing"]["windows_per_s"]])
    assert "10,000 machines, projected" in scaling_page(record)


def fleet_run(machines, wall_s, **more):
    return {
        "machines": machines,
        "waves": max(1, machines // 50),
        "wall_s": wall_s,
        "peak_memory_bytes": 1_000_000_000 + machines,
        "timing": {"train_s": wall_s / 4, "windows_per_s": 5000.0},
        **more,
    }


@pytest.fixture
def fleet_figures():
    """Return the figures of fleets that take 10 s plus half a second per machine."""
    runs = [fleet_run(n, 10 + n / 2) for n in (10, 100, 1000)]
    about = {"cores": 2, "processor": "a", "device": "cpu", "platform": "cpu"}
    about |= {"python": "3", "packages": {"jax": "0"}, "load_average_before": 0.0}
    return {
        "clips_of_fleet": 10, "test_clips": 8, "seconds_of_clip": 0.5, "folds": 2,
        "epochs": 2, "wave_size": 50, "rounds": 3,
        "machines": runs, "environment": about,
        "clips": [fleet_run(10, wall_s, clips=n)
                  for n, wall_s in ((10, 15), (20, 14), (40, 30))],
        "devices": [fleet_run(50, 35, devices=1), fleet_run(50, 35, devices=2)],
    }  # fmt: skip


def test_the_projection_is_the_line_through_the_measured_fleets(fleet_figures):
    page = scaling_page(fleet_figures)
    assert "takes 10.0 s plus 0.50 s for each machine" in page
    # (10 + 10,000 / 2) s, and with 40 clips (10 + 2 * 10,000) s, over 1, 8 and 64
    # devices. 20 clips took a second less than 10 clips, which counts as chance.
    assert "| 10 | 0.50 | 84 min | 11 min | 88 s |" in page
    assert "| 20 | 0.50 | 84 min | 11 min | 88 s |" in page
    assert "| 40 | 2.00 | 5.6 h | 42 min | 5 min |" in page
    assert (
        "From 100 to 1,000 machines (10 times as many), peak memory grows by a factor "
        "of 1.00 and time by a factor of 8.5." in page
    )


def test_figures_replace_the_marked_section_of_a_page(fleet_figures, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    (tmp_path / "figures.json").write_text(json.dumps(fleet_figures))
    script("scaling", "--page", tmp_path / "figures.json", "--into", page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert scaling_page(fleet_figures) in text
    assert "old" not in text


def test_the_page_on_fleets_has_the_measured_figures():
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    figures = ROOT / "benchmarks" / "results" / "fleet.json"
    _, _, rest = page.partition(BEGIN)
    between, _, _ = rest.partition(END)
    if figures.exists():
        assert between.strip() == scaling_page(json.loads(figures.read_text())).strip()
    else:
        assert between.strip() == "Not measured yet."


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("bench_train_step", ["--models", "transformer"], "transformer"),
        ("bench_train_step", ["--frames", "4"], "--frames 4"),
        ("bench_train_step", ["--batch-size", "1"], "--batch-size 1"),
        ("bench_features", ["--clips", "0"], "'0' is not a whole number"),
        ("bench_score", ["--rounds", "many"], "'many' is not a whole number"),
        ("bench_score", ["--json", "nowhere/figures.json"], "nowhere/figures.json"),
        ("bench_end_to_end", ["--data-root", "nowhere"], "nowhere"),
        ("scaling", ["--machines", "0"], "'0' is not a whole number"),
        ("scaling", ["--page", "nowhere.json"], "nowhere.json"),
        ("scaling", ["--page", "README.md"], "contains no figures from this script"),
        ("bench_end_to_end", ["--commands", "watch"], "watch"),
        ("growth", ["--clips", "0"], "'0' is not a whole number"),
        ("growth", ["--page", "README.md"], "contains no figures from this script"),
    ],
)
def test_a_bad_option_is_reported_in_one_line(
    monkeypatch, capsys, name, arguments, message
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(f"benchmarks/{name}.py", run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_failing_process_shows_its_traceback():
    missing = Member(NO_SETUP, Call("benchmarks.nowhere:prepare", {}))
    with pytest.raises(ProcessError, match=r"broken:\n(.|\n)*No module named"):
        hold([Contestant("broken", "broken", (missing,))], 1, 1, print)
    with pytest.raises(ProcessError, match="No module named"):
        once(missing)


def test_a_process_that_dies_is_named():
    dying = Member(NO_SETUP, Call("os:_exit", {"status": 3}))
    with pytest.raises(ProcessError, match="dying: its process ended with status 3"):
        hold([Contestant("dying", "dying", (dying,))], 1, 1, print)


def test_a_process_is_set_up_before_anything_is_imported():
    setup = Call("benchmarks.process_setup:one_thread", {})
    threads = Member(setup, Call("benchmarks.process_setup:thread_count", {}))
    assert once(threads) == 1
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_spread_of_a_single_round_is_zero():
    assert spread([2.0]) == (2.0, 2.0, 2.0, 0.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 1.0, 5.0, 2.0)


def test_the_official_network_takes_1_42_million_operations_a_window():
    for model in ("autoencoder", "gammavae"):
        flops = flops_by_formula(configuration(model, 1, 256))
        assert flops == pytest.approx(1.42e6, rel=0.01)


@pytest.mark.parametrize("model", ["autoencoder", "gammavae"])
def test_speed_is_measured_with_one_model_per_seed_and_the_official_scores(model):
    config = configuration(model, 3, 64)
    assert (config.n_members, config.train.batch_size) == (3, 64)
    assert config.scores == ("mse", "mahalanobis", "mahalanobis_framewise")


@needs_torch
@pytest.mark.parametrize("model", ["autoencoder", "gammavae"])
def test_the_peer_has_the_same_number_of_parameters(model):
    from benchmarks.peers.networks import build

    config = configuration(model, 1, 256)
    state = jax.eval_shape(lambda key: init_state(config, key), jax.random.key(0))
    ours = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    theirs = build(model, config.features.n_features).parameters()
    assert ours == sum(parameter.numel() for parameter in theirs)


@pytest.mark.slow
def test_a_short_soak_loses_and_leaks_nothing(tmp_path):
    path = tmp_path / "figures.json"
    run = script("soak", "--minutes", 1, "--json", path, check=False)
    record = json.loads(path.read_text())
    assert (run.returncode, record["faults"]) == (0, []), run.stdout
    assert record["runs"]["ended"] >= 1
    assert record["runs"]["differences"] == []
    server = record["server"]
    assert (server["lost"], server["wrong"]) == (0, 0)
    assert_positive([server["answered"][kind] for kind in ("good: 200", "bad: 422")])
    assert "nothing lost, nothing leaked" in run.stdout


def test_a_soak_reports_losses_errors_and_leaks():
    def sample(seconds, megabytes, files=10, threads=5):
        return Sample(float(seconds), round(megabytes * 1e6), files, threads)

    tally = Tally()
    steady = [sample(s, 500) for s in range(30)]
    assert soak_faults(tally, steady[0], steady) == []
    growing = [sample(s, 500 + 3 * s) for s in range(30)]
    assert soak_faults(tally, steady[0], growing) == ["memory grew by 30 MB"]
    leaking = [*steady, sample(31, 500, files=12, threads=6)]
    assert soak_faults(tally, steady[0], leaking) == [
        "2 more open files than before",
        "1 more threads than before",
    ]
    tally.lost.append("good: gone")
    tally.score(1, 0.5)
    tally.score(1, 0.5)
    tally.score(1, 0.25)
    faults = soak_faults(tally, steady[0], steady)
    assert faults == ["lost: good: gone", "wrong: recording 1: 0.25"]
