"""Measure training and the main job on one accelerator, all in one command.

The parts run one after another: a list of operations that may run serially (`program`),
the time of an epoch for several numbers of models, batch sizes and precisions (`grid`),
a comparison with an optimised PyTorch trainer, the careful peer (`peer`), a profiler
trace (`trace`), and the main job, from recordings to the report (`main_job`).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.accelerator_page import accelerator_page
from benchmarks.bench_train_step import (
    FRAMES_OF_A_WINDOW,
    MODELS,
    Case,
    careful,
    ours,
    result,
)
from benchmarks.contest import hold
from benchmarks.grid_cases import PRECISIONS, grid_cases
from benchmarks.matmul import has_torch, matmul_contestants
from benchmarks.noise_recordings import make_recordings
from benchmarks.processes import Call, Member, ProcessError, once, run_command
from benchmarks.scaling import RUN
from benchmarks.script import (
    environment,
    new_file,
    parser,
    positive,
    run_script,
    say,
    write,
)

FORMS = ("eager", "compiled", "graphs")
_SETUP = Call("benchmarks.process_setup:as_the_command_line", {"n_models": 1})
_SECONDS_OF_CLIP = 10.0
_PRESET = "default"


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=3, warm_up=1)
    add = options.add_argument
    add("--page", type=new_file, metavar="MD",
        help="write a Markdown page to this file")  # fmt: skip
    add("--skip", nargs="+", choices=PARTS, default=[], metavar="PART",
        help=f"leave out parts: any of {', '.join(PARTS)}")  # fmt: skip
    add("--models", nargs="+", choices=MODELS, default=["gammavae", "autoencoder"],
        metavar="NAME", help="autoencoder or gammavae (default: both); the peer and "
        "the trace use the first one")  # fmt: skip
    add("--machines", type=positive, default=7, metavar="N",
        help="number of machines; the grid also measures one machine "
        "(default: 7)")  # fmt: skip
    add("--seeds", nargs="+", type=positive, default=[1, 5, 25], metavar="N",
        help="seeds per machine in the grid (default: 1 5 25)")  # fmt: skip
    add("--batch-sizes", nargs="+", type=positive, default=[256, 2048], metavar="B",
        help="batch sizes in the grid; other parts use the first one "
        "(default: 256 2048)")  # fmt: skip
    add("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS,
        metavar="NAME", help="precisions in the grid; other parts use float32 "
        "(default: all three)")  # fmt: skip
    add("--grid-seconds", type=positive, default=180, metavar="S",
        help="start no case of the grid after this time (default: 180)")  # fmt: skip
    add("--clips", type=positive, default=100, metavar="N",
        help="clips per machine, except in the main job (default: 100)")  # fmt: skip
    add("--frames", type=positive, default=313, metavar="N",
        help="frames per clip, except in the main job (default: 313)")  # fmt: skip
    add("--peer-forms", nargs="+", choices=FORMS, metavar="NAME",
        help="forms of the peer (default: eager, compiled, and on a GPU "
        "graphs)")  # fmt: skip
    add("--main-job-clips", type=positive, default=1000, metavar="N",
        help="training clips per machine in the main job (default: 1000)")  # fmt: skip
    add("--main-job-epochs", type=positive, default=20, metavar="N",
        help="epochs of the main job (default: 20)")  # fmt: skip
    parsed = options.parse_args()
    if min(parsed.batch_sizes) < 2:
        options.error("--batch-sizes 1: batch normalisation needs at least 2")
    if parsed.frames < FRAMES_OF_A_WINDOW:
        least = f"use at least {FRAMES_OF_A_WINDOW} (one window)"
        options.error(f"--frames {parsed.frames}: {least}")
    return parsed


def main() -> int:
    options = parse()
    start = time.monotonic()
    record: dict[str, Any] = {
        "data": "synthetic log-mels, and recordings of noise",
        "settings": {
            name: value
            for name, value in vars(options).items()
            if name not in ("json", "page")
        },
        "environment": environment(_SETUP),
        "seconds_of_parts": {},
        "total_s": 0.0,
        "errors": {},
    }
    for name, part in PARTS.items():
        if name not in options.skip:
            run_part(name, part, options, record)
            record["total_s"] = time.monotonic() - start
            write(options.json, record)  # kept if a later part is interrupted
    page = accelerator_page(record)
    if options.page is not None:
        options.page.write_text(page, encoding="utf-8")
    print(page, end="")
    return 1 if record["errors"] else 0


def run_part(
    name: str,
    part: Callable[[argparse.Namespace, dict[str, Any]], Any],
    options: argparse.Namespace,
    record: dict[str, Any],
) -> None:
    """Run a part and add its figures or its error to the record, with its time."""
    say(f"\n{name}")
    start = time.monotonic()
    try:
        record[name] = part(options, record)
    except ProcessError as error:
        # The other parts are useful without this one.
        say(f"{name} failed: {error}")
        record["errors"][name] = str(error)
    seconds = time.monotonic() - start
    record["seconds_of_parts"][name] = seconds
    say(f"{name}: {seconds:.0f} s")


def program(options: argparse.Namespace, record: dict[str, Any]) -> dict[str, Any]:
    """List the operations that may run serially in each model's program."""
    sizes = {"machines": options.machines, "batch_size": options.batch_sizes[0]}
    return {
        model: _call("benchmarks.program:list_training", {"model": model, **sizes})
        for model in options.models
    }


def grid(options: argparse.Namespace, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Time epochs in all cases, in one process per model."""
    base = options.machines, options.seeds[0]
    sizes = [(1, 1), *((options.machines, seeds) for seeds in options.seeds)]
    cases = grid_cases(
        list(dict.fromkeys(sizes)), options.batch_sizes, options.precisions, base
    )
    settings = {
        "cases": cases,
        "clips": options.clips,
        "frames": options.frames,
        "rounds": options.rounds,
        "warm_up": options.warm_up,
        "seconds": options.grid_seconds / len(options.models),
    }
    found = []
    for model in options.models:
        say(f"{model}: {len(cases)} cases")
        target = "benchmarks.training_grid:measure"
        found += _call(target, {"model": model, **settings})
    return found


def peer(options: argparse.Namespace, record: dict[str, Any]) -> dict[str, Any] | None:
    """Compare with the careful peer; return None if PyTorch is not installed."""
    if not has_torch():
        say("PyTorch, which the peer needs, is missing: pip install -e '.[bench]'")
        return None
    is_cpu = record["environment"]["platform"] == "cpu"
    possible = ["eager"]
    # torch.compile needs an installed C++ compiler.
    if shutil.which(os.environ.get("CXX", "c++")) is not None:
        possible += ["compiled"] if is_cpu else ["compiled", "graphs"]
    sizes = options.machines, 1, options.batch_sizes[0], options.clips, options.frames
    case = Case(options.models[0], *sizes)
    contestants = [ours(case, 1, "auto"), *matmul_contestants()]
    for form in options.peer_forms or possible:
        contestants.append(careful(case, form, has_one_thread=False))
    return result(case, hold(contestants, options.rounds, options.warm_up, say))


def trace(options: argparse.Namespace, record: dict[str, Any]) -> dict[str, Any]:
    """Trace an epoch and return its table."""
    settings = {
        "model": options.models[0],
        "machines": options.machines,
        "batch_size": options.batch_sizes[0],
        "clips": options.clips,
        "frames": options.frames,
    }
    return _call("benchmarks.trace_table:trace_epoch", settings)


def main_job(options: argparse.Namespace, record: dict[str, Any]) -> dict[str, Any]:
    """Run the main job on recordings of noise, with an empty compilation cache."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data, out = work / "data", work / "out"
        start = time.monotonic()
        sizes = options.machines, options.main_job_clips, _SECONDS_OF_CLIP
        make_recordings(data, *sizes)
        making_s = time.monotonic() - start
        say(f"wrote the recordings in {making_s:.0f} s")
        command = [
            sys.executable, str(RUN), "--all-machines", "--data-root", str(data),
            "--out", str(out), "--preset", _PRESET,
            "--epochs", str(options.main_job_epochs),
        ]  # fmt: skip
        cache = {"JAX_COMPILATION_CACHE_DIR": str(work / "cache")}
        try:
            used = run_command(command, {**os.environ, **cache}, work / "log")
        except SystemExit as error:
            raise ProcessError(f"the run ended with status {error.code}") from error
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {
        "preset": _PRESET,
        "machines": options.machines,
        "clips": options.main_job_clips,
        "seconds_of_clip": _SECONDS_OF_CLIP,
        "epochs": options.main_job_epochs,
        "making_recordings_s": making_s,
        **used._asdict(),
        "timing": summary["timing"],
    }


PARTS: dict[str, Callable[[argparse.Namespace, dict[str, Any]], Any]] = {
    "program": program,
    "grid": grid,
    "peer": peer,
    "trace": trace,
    "main_job": main_job,
}


def _call(target: str, settings: dict[str, Any]) -> Any:
    return once(Member(_SETUP, Call(target, settings)))


if __name__ == "__main__":
    run_script(main)
