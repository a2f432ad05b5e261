"""Who imports whom, read from the files of the package and its subpackages."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "gammavae_jax"
# By dotted names below the package: "train", "commands", "commands.evaluate".
MODULES = {
    ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
SCRIPTS = sorted(
    p for d in ("experiments", "benchmarks") for p in ROOT.glob(f"{d}/**/*.py")
)
MOST_LINES = 300

# What these modules may import of ours at most; `errors` is open to all.
LEAVES: dict[str, set[str]] = {
    "errors": set(),
    "archives": {"clip_name"},
    "audio": {"archives", "audio_header"},
    "audio_header": set(),
    "clip_name": set(),
    "clip_rows": {"clip_name"},
    "section_files": set(),
    "config": set(),
    "config_json": {"config"},
    "checkup": {"finding", "package_checks", "runtime", "self_tests"},
    "clip_statistics": set(),
    "cells": set(),
    "checkpoint_claims": set(),
    "clip_table": {"cells"},
    "folds": set(),
    "command_help": set(),
    "fusion": {"config"},
    "interruption": set(),
    "members": {"config"},
    "package_checks": {"finding"},
    "pooling": set(),
    "distributed": {"files"},
    "distributions": {"gamma_derivative"},
    "environment": {"distributions"},
    "evaluate": set(),
    "files": set(),
    "file_sums": set(),
    "finding": set(),
    "folder_lock": set(),
    "gamma_derivative": set(),
    "log": set(),
    "layout": set(),
    "memory": set(),
    "wave_loader": {"log"},
    "mesh_layout": {"interruption", "layout"},
    "queue_layout": {"interruption", "layout"},
    "parallel": {"distributed", "layout", "mesh_layout", "queue_layout", "runtime"},
    "product": set(),
    "published": set(),
    "runtime": {"interruption"},
    "threshold": {"config"},
    "features": {"config"},
    "batch_norm": set(),
    "batches": {"config", "dataset"},
    "diagnostics": {"config", "divergence", "model"},
    "divergence": {"config", "distributions"},
    "score": {"config", "pooling"},
    "self_tests": {"config_json", "distributions", "presets", "train"},
    "model": {"batch_norm", "config", "distributions", "product"},
    "loss": {"config", "divergence", "model"},
    "neighbours": {"config", "members"},
    "split": {"clip_statistics", "config", "dataset", "folds", "layout"},
    "train": {
        *("batches", "config", "dataset", "diagnostics", "layout"),
        *("loss", "members", "model"),
    },
    "scorer": {
        *("batches", "clip_statistics", "config", "dataset", "loss"),
        *("model", "neighbours", "score", "train"),
    },
    "epochs": {
        *("checkpoint", "config", "dataset", "distributed", "distributions"),
        *("files", "interruption", "layout", "log", "run_folder", "train"),
    },
}
# Where outsiders may be imported; everywhere for those not named.
OUTSIDERS: dict[str, set[str]] = {
    "tensorflow_probability": {"distributions"},
    "soundfile": {"audio"},
    "sklearn": {"anomaly_detector", "evaluate"},
    "orbax": {"stored_arrays"},
    "soxr": {"resample"},
    "fastapi": {"live.application"},
    "starlette": {"live.application"},
    "uvicorn": {"live.serving"},
    "h11": {"live.serving"},
    "prometheus_client": {"live.metrics"},
}
WIRING = {"__init__", "experiment", "results"}  # may know both models and metrics
# What a command may import before it runs: the standard library and these.
LIGHT = {PACKAGE, "tyro", "docstring_parser", "typeguard", "typing_extensions"}
FORBIDDEN_IMPORTS = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            base = ".".join(filter(None, [*above, node.module]))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    for name in imported(path):
        package, *parts = name.split(".")
        while package == PACKAGE and parts and ".".join(parts) not in MODULES:
            parts.pop()
        if package == PACKAGE and parts:
            found.add(".".join(parts))
    return found


def outsiders(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)} - {PACKAGE}


GRAPH = {name: ours(path) for name, path in MODULES.items()}


def test_imports_flow_one_way():
    """A cycle is an error of the sorting."""
    order = list(graphlib.TopologicalSorter(GRAPH).static_order())
    assert order.index("config") < order.index("train") < order.index("experiment")
    assert order.index("commands.evaluate") < order.index("cli")


def is_command(name: str) -> bool:
    return name.split(".")[0] == "commands"


def test_only_the_command_line_knows_the_commands():
    """And the demo, which is two commands in turn."""
    users = {name for name, used in GRAPH.items() if any(map(is_command, used))}
    assert users == {"cli", "commands.demo"}


def test_only_the_command_line_knows_how_it_is_read():
    users = {name for name, path in MODULES.items() if "tyro" in outsiders(path)}
    commands = {name for name in MODULES if is_command(name)} - {"commands"}
    assert users <= commands | {"cli", "command_help"}


def test_all_commands_are_read_before_anything_slow_is_imported():
    """So `--help` is quick, and `doctor` can tell of what is broken."""
    code = (
        "import sys; before = set(sys.modules)\n"
        f"from {PACKAGE}.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = done.stdout.splitlines()[-1].split()
    commands = {f"{PACKAGE}.{name}" for name in MODULES if is_command(name)}
    assert commands <= set(imported)
    names = {name.split(".")[0] for name in imported}
    assert names <= LIGHT | sys.stdlib_module_names


@pytest.mark.parametrize("name", sorted(LEAVES.keys() & MODULES.keys()))
def test_a_module_imports_no_more_than_its_part_of_the_pipeline(name):
    assert GRAPH[name] - {"errors"} <= LEAVES[name]


def test_the_rules_name_modules_that_exist():
    named = LEAVES.keys() | set().union(*LEAVES.values(), *OUTSIDERS.values()) | WIRING
    assert named <= MODULES.keys()


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_an_outside_library_has_one_door(outsider):
    users = {name for name, path in MODULES.items() if outsider in outsiders(path)}
    assert users == OUTSIDERS[outsider]


def test_only_the_wiring_knows_both_models_and_metrics():
    both = {
        name
        for name, used in GRAPH.items()
        if "evaluate" in used and used & {"train", "detector"}
    }
    assert both <= WIRING


@pytest.mark.parametrize(
    "path", [*MODULES.values(), *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_file_runs_what_it_reads(path):
    calls = {
        node.func.id
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    keywords = {
        node.arg for node in ast.walk(parse(path)) if isinstance(node, ast.keyword)
    }
    assert not calls & FORBIDDEN_CALLS
    assert not outsiders(path) & FORBIDDEN_IMPORTS
    assert "allow_pickle" not in keywords


def test_every_module_is_named_by_its_concept():
    assert not {part for name in MODULES for part in name.split(".")} & FORBIDDEN_NAMES
    assert not {path.stem for path in SCRIPTS} & FORBIDDEN_NAMES


@pytest.mark.parametrize("name", MODULES)
def test_a_module_fits_in_the_head(name):
    lines = MODULES[name].read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES
