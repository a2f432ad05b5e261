import json
import os
import sys
from types import ModuleType

import pytest

from gammavae_jax import runtime
from gammavae_jax.runtime import (
    available_cores,
    give_cores_to_runs,
    limit_blas_threads,
    runs_in_checkpoint,
)

COUNT = "--xla_force_host_platform_device_count"
EIGEN = "--xla_cpu_multi_thread_eigen"


@pytest.fixture
def flags(monkeypatch):
    """XLA's flags after a call, on four cores and before JAX is imported."""
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setattr(runtime, "available_cores", lambda: 4)

    def after(n_runs, before=None):
        monkeypatch.delenv("XLA_FLAGS", raising=False)
        if before is not None:
            monkeypatch.setenv("XLA_FLAGS", before)
        give_cores_to_runs(n_runs)
        return os.environ.get("XLA_FLAGS", "").split()

    return after


@pytest.mark.parametrize(("n_runs", "devices"), [(2, 2), (4, 4), (35, 4)])
def test_each_core_with_a_run_is_a_single_threaded_device(flags, n_runs, devices):
    assert flags(n_runs) == [f"{COUNT}={devices}", f"{EIGEN}=false"]


@pytest.mark.parametrize("n_runs", [0, 1])
def test_a_single_run_keeps_all_cores(flags, n_runs):
    assert flags(n_runs) == []


def test_a_single_core_is_not_divided(flags, monkeypatch):
    monkeypatch.setattr(runtime, "available_cores", lambda: 1)
    assert flags(7) == []


def test_other_flags_of_the_user_are_kept(flags):
    assert flags(2, "--xla_dump_to=x") == [
        *("--xla_dump_to=x", f"{COUNT}=2", f"{EIGEN}=false"),
    ]


@pytest.mark.parametrize("flag", [f"{COUNT}=1", f"{EIGEN}=true"])
def test_what_the_user_has_decided_is_not_decided_again(flags, flag):
    name = flag.split("=")[0]
    assert [f for f in flags(7, flag) if f.startswith(name)] == [flag]


def test_nothing_is_done_once_jax_is_imported(flags, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", ModuleType("jax"))
    assert flags(7) == []


def test_a_thread_limit_of_the_user_stays(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    limit_blas_threads()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    limit_blas_threads()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


def test_there_is_a_core_to_run_on():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_the_runs_of_a_checkpoint_are_machines_times_seeds(tmp_path):
    about = {"machines": [["fan", "00"], ["fan", "01"]], "config": {"n_seeds": 3}}
    (tmp_path / "detector.json").write_text(json.dumps(about))
    assert runs_in_checkpoint(tmp_path) == 6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"machines": 2, "config": {"n_seeds": 1}}',
        '{"machines": [1, 2], "config": {"n_seeds": null}}',
        '{"machines": [1, 2], "config": {"n_seeds": "two"}}',
        "\xff",
    ],
)
def test_a_damaged_checkpoint_counts_as_one_run(tmp_path, text):
    """Whoever reads it for good says what is wrong with it."""
    (tmp_path / "detector.json").write_bytes(text.encode("latin-1"))
    assert runs_in_checkpoint(tmp_path) == 1


def test_a_missing_checkpoint_counts_as_one_run(tmp_path):
    assert runs_in_checkpoint(tmp_path / "nowhere") == 1
