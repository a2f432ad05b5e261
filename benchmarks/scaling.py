"""Time complete runs for growing numbers of machines (in waves), clips and devices.

Every run is a new process that uses programs compiled by an earlier run. Its time
covers everything from recordings to pages, except compilation. `--page` generates the
tables of `docs/scaling.md` from the figures.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.processes import Call, run_command
from benchmarks.scaling_page import scaling_page, show_page
from benchmarks.script import (
    environment,
    parser,
    positive,
    run_script,
    say,
    show,
    write,
)
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.data.synthetic.machines import MACHINES
from gammavae_jax.log import Log

RUN = Path(__file__).resolve().parent.parent / "experiments" / "run.py"
TARGET_SHARE = 5  # one training clip in five is from the target domain
N_TEST = 2  # test clips for each domain and label


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    made = parser(__doc__, rounds=3, warm_up=None)
    add = made.add_argument
    add("--machines", type=positive, nargs="+", default=[10, 100, 1000], metavar="N",
        help="sizes of the fleets (default: 10 100 1000)")  # fmt: skip
    add("--wave-size", type=positive, default=50, metavar="N", help="default: 50")
    add("--clips", type=positive, nargs="+", default=[10, 40, 160], metavar="N",
        help="training clips per machine; fleets have the smallest number "
        "(default: 10 40 160)")  # fmt: skip
    add("--clip-machines", type=positive, default=20, metavar="N",
        help="machines in the runs that vary the clips (default: 20)")  # fmt: skip
    add("--devices", type=positive, nargs="+", default=[1, 2], metavar="N",
        help="numbers of devices that share the machines (default: 1 2)")  # fmt: skip
    add("--device-machines", type=positive, default=50, metavar="N",
        help="machines in the runs on several devices (default: 50)")  # fmt: skip
    add("--seconds", type=float, default=0.5, metavar="S",
        help="seconds per clip (default: 0.5)")  # fmt: skip
    add("--epochs", type=positive, default=2, metavar="N", help="default: 2")
    add("--folds", type=positive, default=2, metavar="N",
        help="models per machine (default: 2)")  # fmt: skip
    add("--data", type=Path, metavar="DIR",
        help="folder for synthetic fleets (default: a temporary one)")  # fmt: skip
    add("--page", type=Path, metavar="JSON",
        help="print the page's section for these figures; measure nothing")  # fmt: skip
    add("--into", type=Path, metavar="MD",
        help="with --page: write the section into this page")  # fmt: skip
    return made.parse_args(arguments)


def main() -> int:
    options = parse()
    if options.page is not None:
        return show_page(options.page, options.into, scaling_page)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = work / "data" if options.data is None else options.data
        record = measure(options, data, work)
    write(options.json, record)
    show_results(record)
    return 0


def measure(options: argparse.Namespace, data: Path, work: Path) -> dict[str, Any]:
    """Measure all runs one after another, after a warm-up for each array shape.

    Each fleet runs only once, because large fleets take long.
    """
    few = min(options.clips)
    fleet = recordings(data, max(options.machines), few, options.seconds)
    run = Run(options, work)
    run(fleet, min(options.machines), label="warm-up")
    results: dict[str, list[Any]] = {"machines": [], "clips": [], "devices": []}
    for n in sorted(options.machines):
        results["machines"] += [run(fleet, n, label=f"{n} machines")]
    for n_clips in sorted(options.clips):
        n = options.clip_machines
        root = recordings(data, n, n_clips, options.seconds)
        run(root, n, label="warm-up")
        figures = run(root, n, label=f"{n_clips} clips", rounds=options.rounds)
        results["clips"] += [figures | {"clips": n_clips}]
    for n_devices in sorted(options.devices):
        n = min(options.device_machines, max(options.machines))
        run(fleet, n, n_devices, label="warm-up")
        label = f"{n_devices} devices"
        figures = run(fleet, n, n_devices, label=label, rounds=options.rounds)
        results["devices"] += [figures | {"devices": n_devices}]
    return {
        "data": "synthetic fleets of small machines",
        "wave_size": options.wave_size,
        "epochs": options.epochs,
        "folds": options.folds,
        "clips_of_fleet": few,
        "test_clips": 4 * N_TEST,
        "seconds_of_clip": options.seconds,
        "rounds": options.rounds,
        **results,
        "environment": environment(Call("benchmarks.process_setup:all_cores", {})),
    }


def recordings(data: Path, n_machines: int, n_clips: int, seconds: float) -> Path:
    """Return the folder of a synthetic fleet; make it if it does not exist."""
    n_target = max(1, n_clips // TARGET_SHARE)
    size = SyntheticSize(n_clips - n_target, n_target, N_TEST, (seconds, seconds))
    root = data / f"fleet-{n_machines}-machines-{n_clips}-clips-{seconds:g}-s"
    kinds = itertools.islice(itertools.cycle(sorted(MACHINES)), n_machines)
    sizes = {f"{kind}{number:04d}": size for number, kind in enumerate(kinds)}
    return make_synthetic(root, sizes, Log())


class Run:
    """Runs the main job and measures the process's time and memory."""

    def __init__(self, options: argparse.Namespace, work: Path):
        self.options, self.work, self.number = options, work, 0

    def __call__(
        self,
        root: Path,
        n_machines: int,
        n_devices: int | None = None,
        *,
        label: str,
        rounds: int = 1,
    ) -> dict[str, Any]:
        """Run a fleet's first machines several times; return the median round."""
        figures = [self.once(root, n_machines, n_devices) for _ in range(rounds)]
        figures.sort(key=lambda each: each["wall_s"])
        median = figures[len(figures) // 2]
        megabytes = median["peak_memory_bytes"] / 1e6
        say(f"{label}: {median['wall_s']:.1f} s, {megabytes:.0f} MB")
        return median

    def once(
        self, root: Path, n_machines: int, n_devices: int | None
    ) -> dict[str, Any]:
        """Run one process and return its figures."""
        self.number += 1
        out, options = self.work / f"run{self.number}", self.options
        machines = sorted(p.name for p in root.iterdir() if p.is_dir())[:n_machines]
        command = [
            sys.executable, str(RUN), "--machines", *machines, "--data-root", str(root),
            "--out", str(out), "--wave-size", str(options.wave_size),
            "--epochs", str(options.epochs), "--set", *models(options.folds),
        ]  # fmt: skip
        used = run_command(command, self.variables(n_devices), self.work / "log")
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return {
            "machines": n_machines,
            "waves": summary.get("waves", 1),
            **used._asdict(),
            "timing": summary["timing"],
        }

    def variables(self, n_devices: int | None) -> dict[str, str]:
        """Return the environment variables for compiled programs and the devices."""
        variables = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(self.work / "programs"),
        }
        if n_devices is None:
            return variables
        flag = f"--xla_force_host_platform_device_count={n_devices}"
        variables["XLA_FLAGS"] = f"{variables.get('XLA_FLAGS', '')} {flag}".strip()
        # Selects an accelerator's devices; a CPU ignores this.
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(n_devices)))
        return variables


def models(folds: int) -> list[str]:
    """Return the settings for this number of models per machine."""
    return [f"train.n_folds={folds}"] if folds > 1 else ["train.split=clip"]


def show_results(record: dict[str, Any]) -> None:
    for kind in ("machines", "clips", "devices"):
        stages = list(record[kind][0]["timing"])
        columns = [kind, "wall s", "peak MB", *(s.replace("_", " ") for s in stages)]
        rows = [
            [
                str(found[kind]),
                found["wall_s"],
                found["peak_memory_bytes"] / 1e6,
                *(found["timing"][stage] for stage in stages),
            ]
            for found in record[kind]
        ]
        show(f"Complete runs, by {kind}", columns, rows)


if __name__ == "__main__":
    run_script(main)
