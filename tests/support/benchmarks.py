"""Runs benchmark scripts and checks their figures."""

import json
import math

from support.processes import ROOT, python


def script(name, *arguments, check=True):
    """Run a benchmark in a separate process, without PYTHONPATH."""
    path = ROOT / "benchmarks" / f"{name}.py"
    return python(path, *arguments, check=check, PYTHONPATH="")


def figures(name, tmp_path, *arguments):
    """Run a benchmark and return the figures that it writes."""
    path = tmp_path / "figures.json"
    script(name, "--json", path, *arguments)
    record = json.loads(path.read_text())
    assert record["environment"]["device"]
    assert record["environment"]["packages"]["jax"]
    return record


def assert_positive(values):
    assert all(math.isfinite(value) and value > 0 for value in values), values
