"""Time complete processes of the main job, from recordings to the report.

Runs come in pairs: first with an empty compilation cache (cold), then with the cache of
the first run (warm).
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.contest import spread
from benchmarks.processes import run_command
from benchmarks.script import parser, positive, run_script, say, show, write
from gammavae_jax.cli.shared import data_root_or_synthetic
from gammavae_jax.data.machines import find_machines

RUN = Path(__file__).resolve().parent.parent / "experiments" / "run.py"
CACHES = ("cold", "warm")


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=2, warm_up=None)
    add = options.add_argument
    add("--epochs", type=positive, default=100, metavar="N", help="default: 100")
    add("--seeds", type=positive, default=1, metavar="N", help="default: 1")
    add("--preset", default="default", metavar="NAME", help="default: default")
    add("--data-root", type=Path, metavar="DIR",
        help="folder of recordings (default: the built-in synthetic set)")  # fmt: skip
    return options.parse_args()


def main() -> int:
    options = parse()
    # Make the set before anything is timed.
    data_root = data_root_or_synthetic(options.data_root)
    find_machines(data_root)
    runs: dict[str, list[dict[str, Any]]] = {cache: [] for cache in CACHES}
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            for cache in CACHES:
                measured = run(options, data_root, Path(folder), cache)
                seconds = measured["wall_s"]
                say(f"round {number}/{options.rounds}: {cache} {seconds:.1f} s")
                runs[cache].append(measured)
    results = [result(options, cache, runs[cache]) for cache in CACHES]
    record = {
        "data": "built-in synthetic set" if options.data_root is None else "given",
        "rounds": options.rounds,
        "results": results,
        "environment": runs[CACHES[0]][0]["environment"],
    }
    write(options.json, record)
    show_results(results)
    return 0


def run(
    options: argparse.Namespace, data_root: Path, folder: Path, cache: str
) -> dict[str, Any]:
    """Run one process; return its time, its memory and figures from its summary.

    If the process fails, the script prints its output and exits.
    """
    out = folder / cache
    command = [
        sys.executable, str(RUN), "--all-machines",
        "--data-root", str(data_root), "--out", str(out), "--preset", options.preset,
        "--epochs", str(options.epochs), "--seeds", str(options.seeds),
    ]  # fmt: skip
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    used = run_command(command, environment, folder / f"{cache}.log")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {
        **used._asdict(),
        "timing": summary["timing"],
        "official_score": {
            name: score["mean"] for name, score in summary["official_score"].items()
        },
        "environment": summary["environment"],
    }


def result(
    options: argparse.Namespace, cache: str, runs: list[dict[str, Any]]
) -> dict[str, Any]:
    wall = [run["wall_s"] for run in runs]
    stages = runs[0]["timing"]
    return {
        "cache": cache,
        "preset": options.preset,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "wall_s": spread(wall).median,
        "wall_s_spread": spread(wall)._asdict(),
        "timing": {
            stage: spread([run["timing"][stage] for run in runs]).median
            for stage in stages
        },
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
        "official_score": runs[0]["official_score"],
    }


def show_results(results: list[dict[str, Any]]) -> None:
    stages = list(results[0]["timing"])
    columns = ["cache", "wall s", *(stage.replace("_", " ") for stage in stages)]
    rows = [
        [found["cache"], found["wall_s"], *(found["timing"][s] for s in stages)]
        for found in results
    ]
    show("The main job, complete processes; medians", columns, rows)


if __name__ == "__main__":
    run_script(main)
