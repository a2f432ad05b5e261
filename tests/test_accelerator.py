"""The command that measures an accelerator, at a tiny size on the CPU."""

import argparse
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import wavfile
from support.processes import ROOT, python

from benchmarks import accelerator, training_grid
from benchmarks.accelerator_page import accelerator_page
from benchmarks.grid_cases import PRECISIONS, GridCase, grid_cases
from benchmarks.matmul import has_torch
from benchmarks.noise_recordings import make_recordings
from benchmarks.processes import ProcessError
from benchmarks.program import list_training, listing, lowered_for_cuda
from benchmarks.trace_table import Event, kind_of, trace_table, traced
from gammavae_jax.data.machines import find_machines

MINIATURE = (
    *("--models", "autoencoder", "--machines", 2, "--seeds", 1, "--clips", 2),
    *("--frames", 20, "--batch-sizes", 16, "--precisions", "float32"),
    *("--peer-forms", "eager", "--main-job-clips", 6, "--main-job-epochs", 1),
    *("--rounds", 1, "--warm-up", 1),
)


@pytest.mark.slow
def test_one_command_measures_every_part_and_writes_a_page(tmp_path):
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    files = "--json", figures, "--page", page
    run = python("-m", "benchmarks.accelerator", *MINIATURE, *files)
    record = json.loads(figures.read_text())
    assert record["errors"] == {}
    assert record["seconds_of_parts"].keys() == accelerator.PARTS.keys()
    assert [found["models"] for found in record["grid"]] == [2, 1]
    assert all(found["windows_per_s"] > 0 for found in record["grid"])
    assert record["grid"][0]["compile_s"] > 0
    # The arrays of the first case (two models) are freed before the second one.
    assert record["grid"][1]["device_bytes"] < 0.6 * record["grid"][0]["device_bytes"]
    assert record["program"]["autoencoder"]
    assert sum(record["trace"]["kinds"].values()) == pytest.approx(1)
    assert record["main_job"]["timing"]["train_s"] > 0
    assert record["main_job"]["wall_s"] > record["main_job"]["timing"]["train_s"]
    if has_torch():
        assert record["peer"]["ratio_to"]["careful"] > 0
    assert page.read_text() == accelerator_page(record) == run.stdout


def record_without_parts():
    about = {"cores": 16, "processor": "a", "device": "gpu", "torch": None}
    about |= {"python": "3", "packages": {"jax": "0"}, "load_average_before": 0.0}
    settings = {"machines": 7, "clips": 100, "frames": 313, "rounds": 3, "warm_up": 1}
    return {
        "data": "noise", "settings": settings, "environment": about,
        "seconds_of_parts": {}, "errors": {}, "total_s": 9.0,
    }  # fmt: skip


def grid_record(seeds, seconds):
    return {
        "model": "gammavae", "machines": 7, "seeds": seeds, "batch_size": 256,
        "precision": "float32", "models": 7 * seeds, "seconds": {"median": seconds},
        "windows_per_s": 1e6, "lowering_s": 1.0, "compile_s": 2.0,
        "device_bytes": 10**9, "device_peak_bytes": 2 * 10**9,
    }  # fmt: skip


def test_the_page_compares_seeds_and_names_what_was_not_measured():
    case = {"model": "vae", "machines": 7, "seeds": 25, "batch_size": 256}
    missing = {**case, "precision": "tf32", "error": "out of memory"}
    grid = [grid_record(1, 0.5), grid_record(5, 0.75), missing]
    page = accelerator_page(record_without_parts() | {"grid": grid})
    assert "| gammavae | 7 | 256 | float32 | 5 | 1.50 |" in page
    assert "| 1,000,000 | 750 | 1.0 | 2.0 | 1,000 | 2,000 |" in page
    assert "- vae, 7, 25, 256, tf32: out of memory" in page


def test_a_failed_part_does_not_stop_the_others():
    def failing(options, record):
        raise ProcessError("grid:\nout of memory")

    record = record_without_parts()
    accelerator.run_part("grid", failing, argparse.Namespace(), record)
    assert record["errors"] == {"grid": "grid:\nout of memory"}
    assert record["seconds_of_parts"].keys() == {"grid"}
    assert "`grid` failed:\n\n```\ngrid:\nout of memory\n```" in accelerator_page(
        record
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "4"], "--frames 4"),
        (["--batch-sizes", "1", "32"], "--batch-sizes 1"),
        (["--skip", "everything"], "everything"),
        (["--page", "nowhere/page.md"], "nowhere/page.md"),
    ],
)
def test_a_bad_option_is_reported_in_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["accelerator", *arguments])
    with pytest.raises(SystemExit, match="2"):
        accelerator.parse()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_the_grid_has_all_combinations_and_varies_one_axis_at_first():
    sizes, batch_sizes = [(1, 1), (7, 1), (7, 5), (7, 25)], [256, 2048]
    cases = grid_cases(sizes, batch_sizes, PRECISIONS, (7, 1))
    assert len(set(cases)) == 24
    assert cases[0] == GridCase(7, 1, 256, "float32")
    assert {(c.machines, c.seeds) for c in cases[:7]} == set(sizes)
    assert {c.batch_size for c in cases[:7]} == set(batch_sizes)
    assert {c.precision for c in cases[:7]} == set(PRECISIONS)
    assert GridCase(7, 25, 2048, "bfloat16") in cases[-6:]


def measure_one_case(seconds):
    return training_grid.measure(
        "autoencoder", [GridCase(7, 5, 256, "tf32")], clips=2, frames=20, rounds=1,
        warm_up=1, seconds=seconds,
    )  # fmt: skip


def test_a_case_that_fails_or_comes_too_late_has_an_error(monkeypatch):
    def too_large(*settings):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nbuffers: ...")

    monkeypatch.setattr(training_grid, "Training", too_large)
    (failed,), (late,) = measure_one_case(60.0), measure_one_case(-1.0)
    assert failed["error"] == "RESOURCE_EXHAUSTED: Out of memory"
    assert late["error"] == "the grid's time limit was reached"
    assert failed["models"] == late["models"] == 35


def test_noise_is_written_in_the_challenges_layout(tmp_path):
    make_recordings(tmp_path, machines=2, clips=10, seconds=0.5)
    machines = find_machines(tmp_path)
    assert len(machines) == 2
    train = sorted((tmp_path / "machine0" / "train").iterdir())
    test = sorted((tmp_path / "machine1" / "test").iterdir())
    assert (len(train), len(test)) == (10, 20)
    assert sum("target" in path.name for path in train) == 1
    assert sum("anomaly" in path.name for path in test) == 10
    rate, first = wavfile.read(train[0])
    assert (rate, first.shape, first.dtype) == (16000, (8000,), np.int16)
    assert not np.array_equal(first, wavfile.read(train[1])[1])


def test_an_operations_own_time_excludes_those_inside_it():
    stream = [
        Event("while.1", 0.0, 100.0),
        Event("cublas_gemm", 10.0, 40.0),
        Event("loop_add_fusion", 60.0, 10.0),
        Event("sort.3", 150.0, 50.0),
    ]
    table = trace_table([stream, [Event("MemcpyD2H", 120.0, 10.0)]])
    assert math.isclose(table["span_s"], 200e-9)
    # Nothing runs from 100 to 120 and from 130 to 150.
    assert table["idle_share"] == pytest.approx(0.2)
    total = 50 + 40 + 10 + 50 + 10
    assert table["kinds"] == pytest.approx(
        {
            "loops": 50 / total,
            "sort": 50 / total,
            "matrix products": 40 / total,
            "fusions": 10 / total,
            "copies": 10 / total,
        }
    )
    assert [found["name"] for found in table["operations"][:3]] == [
        "while.1", "sort.3", "cublas_gemm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gemm_fusion_dot.4", "matrix products"),
        ("input_scatter_fusion", "scatter, gather"),
        ("wrapped_transpose", "copies"),
        ("loop_multiply_fusion.2", "fusions"),
        ("ThreeFry2x32Kernel", "random numbers"),
        ("reduce.7", "rest"),
    ],
)
def test_the_kind_of_an_operation_is_known_from_its_name(name, kind):
    assert kind_of(name) == kind


def loop_of_sorts(x):
    return jax.lax.fori_loop(0, 5, lambda _, x: jnp.sort(jnp.sin(x)), x)


def test_a_real_trace_shows_the_operations_of_a_program():
    x = jnp.arange(1000.0)
    run = jax.jit(loop_of_sorts)
    jax.block_until_ready(run(x))
    table = trace_table(traced(lambda: jax.block_until_ready(run(x))))
    (sort,) = [found for found in table["operations"] if found["kind"] == "sort"]
    assert sort["calls"] >= 5
    assert 0 <= table["idle_share"] < 1


def listed(function, *arguments):
    return listing(lowered_for_cuda(function, *arguments))


def test_a_loop_is_listed_with_its_iterations_and_what_is_inside():
    loop, sort = listed(loop_of_sorts, np.ones(8, np.float32))
    assert (loop.name, loop.trip_count, loop.depth) == ("while", 5, 0)
    assert (sort.name, sort.depth, sort.shapes) == ("sort", 1, "8xf32")
    assert loop.body["sine"] == loop.body["sort"] == 1
    assert "loop_of_sorts" in loop.function


def test_a_program_without_loops_has_an_empty_listing():
    assert listed(lambda x: jnp.tanh(x @ x).sum(), np.ones((8, 8), np.float32)) == []


def test_models_with_different_numbers_of_steps_need_selects():
    def count(n):
        return jax.lax.fori_loop(0, n, lambda i, x: x + i, 0)

    (loop,) = listed(jax.vmap(count), np.arange(3, dtype=np.int32))
    assert loop.trip_count is None
    assert loop.selected_arrays > 0


def test_a_custom_call_is_listed_with_its_target():
    def call(x):
        return jax.ffi.ffi_call("solver", jax.ShapeDtypeStruct(x.shape, x.dtype))(x)

    (found,) = listed(call, np.ones(8, np.float32))
    assert found.name == "custom_call solver"


def test_the_training_program_has_the_loops_that_the_readme_lists():
    operations = list_training("gammavae", 2, 32)
    names = [found["name"] for found in operations]
    assert {name: names.count(name) for name in names} == {
        "sort": 1, "while": 3, "gather": 6,
    }  # fmt: skip
    loops = [found for found in operations if found["name"] == "while"]
    assert [found["function"].partition(" ")[0] for found in loops] == [
        "_mean_terms", "log_draw", "_mean_terms",
    ]  # fmt: skip
    assert [found["depth"] for found in loops] == [0, 1, 0]
    assert [found["trip_count"] for found in loops] == [None] * 3
    assert loops[1]["line"].startswith("models/gamma_sampler.py:")
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for found in operations:
        assert found["line"].partition(":")[0] in readme
