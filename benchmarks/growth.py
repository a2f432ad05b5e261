"""Measure how the cost of `gammavae fit` and `gammavae score` grows.

One thing varies at a time: machines, training clips, the length of a clip, or clips to
score. Every command is a new process that reads recordings of noise. `--page` generates
the tables of `docs/scaling.md` from the figures.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.growth_page import BEGIN, COMMANDS, END, expected, growth_page
from benchmarks.noise_recordings import write_noise
from benchmarks.processes import Call
from benchmarks.scaling_page import show_page
from benchmarks.script import (
    environment,
    parser,
    positive,
    run_script,
    say,
    show,
    write,
)
from benchmarks.timed_command import Timed, run_timed

FOLDS = 2  # the models of each machine
_WITHOUT = ("import", "compile", "exit")  # stages that cost about the same at any size
_LARGEST_SHARE = 0.6  # of the memory; a case that may need more does not start


class Case(NamedTuple):
    """The sizes of one case; all but one have their smallest usual values."""

    machines: int = 1
    clips: int = 10  # training clips per machine
    seconds: int = 1  # length of a clip
    scored: int = 1  # clips that `gammavae score` scores


AXES = {
    "machines": (1, 10, 100, 1000),
    "clips": (10, 100, 1000, 10_000),
    "seconds": (1, 10, 60, 600, 3600),
    "scored": (1, 10, 100, 1000, 10_000),
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    made = parser(__doc__, rounds=None, warm_up=None)
    add = made.add_argument
    for name, what in (
        ("machines", "machines"),
        ("clips", "training clips of a machine"),
        ("seconds", "seconds of a clip"),
        ("scored", "clips to score"),
    ):
        sizes = AXES[name]
        default = " ".join(map(str, sizes))
        add(f"--{name}", type=positive, nargs="+", default=sizes, metavar="N",
            help=f"{what} (default: {default})")  # fmt: skip
    add("--minutes", type=positive, default=8, metavar="N",
        help="start no case that is expected to end later (default: 8)")  # fmt: skip
    add("--page", type=Path, metavar="JSON",
        help="print the page's section for these figures; measure nothing")  # fmt: skip
    add("--into", type=Path, metavar="MD",
        help="with --page: write the section into this page")  # fmt: skip
    return made.parse_args(arguments)


def main() -> int:
    options = parse()
    if options.page is not None:
        return show_page(options.page, options.into, growth_page, BEGIN, END)
    about = environment(Call("benchmarks.process_setup:all_cores", {}))
    sizes = {axis: sorted(set(getattr(options, axis))) for axis in AXES}
    with tempfile.TemporaryDirectory() as folder:
        growth = Growth(Path(folder), 60.0 * options.minutes, about["memory_bytes"])
        record = {
            "data": "noise",
            "folds": FOLDS,
            "usual": Case()._asdict(),
            "minutes": options.minutes,
            **growth.measure(sizes),
            "environment": about,
        }
    write(options.json, record)
    show_results(record)
    return 0


class Growth:
    """Runs cases and leaves out those that would take too much.

    Args:
        folder: an existing folder for recordings and detectors.
        seconds: the time after which no case should end.
        memory_bytes: the memory of the computer.
    """

    def __init__(self, folder: Path, seconds: float, memory_bytes: int):
        self.folder = folder
        self.end = time.monotonic() + seconds
        self.memory_bytes = _LARGEST_SHARE * memory_bytes
        self.known: dict[Case, dict[str, Any]] = {}

    def measure(self, sizes: dict[str, list[int]]) -> dict[str, Any]:
        """Measure the smallest case of each axis, then the second smallest, etc."""
        results: dict[str, list[dict[str, Any]]] = {axis: [] for axis in sizes}
        left_out: dict[str, list[int]] = {axis: [] for axis in sizes}
        for axis, size in in_turns(sizes):
            case = Case()._replace(**{axis: size})
            if left_out[axis] or self.is_too_large(results[axis], axis, size):
                left_out[axis].append(size)
                say(f"{axis} {size}: left out")
                continue
            if case not in self.known:
                self.known[case] = self.once(case, f"{axis} {size}")
            results[axis].append({"size": size, **self.known[case]})
        return {"results": results, "left_out": left_out}

    def is_too_large(
        self, before: Sequence[dict[str, Any]], axis: str, size: int
    ) -> bool:
        """Return whether a case would take too much, judging by smaller cases."""
        if not before:
            return False
        commands = ("score",) if axis == "scored" else COMMANDS
        costs = [[found[of] for of in commands] for found in before]
        sizes = [found["size"] for found in before]
        work = [sum(each["work_cpu_s"] for each in of_case) for of_case in costs]
        seconds = before[-1]["seconds"] + expected(sizes, work, size) - work[-1]
        peaks = [max(each["peak_memory_bytes"] for each in of) for of in costs]
        memory = peaks[0]
        if len(before) > 1:
            above = [peak - peaks[0] for peak in peaks[1:]]
            memory += expected(sizes[1:], above, size)
        is_late = time.monotonic() + seconds > self.end
        return is_late or memory > self.memory_bytes

    def once(self, case: Case, label: str) -> dict[str, Any]:
        """Run `gammavae fit` and `gammavae score` and return their figures.

        `seconds` also counts the time for writing recordings. Cases that differ only in
        the clips to score share a detector.
        """
        start, fitted = time.monotonic(), case._replace(scored=1)
        detector = self.folder / "-".join(map(str, fitted)) / "noise.detector"
        recordings = self.folder / "recordings"
        normal, new = recordings / "normal", recordings / "new"
        if detector.exists():
            fit = self.known[fitted]["fit"]
        else:
            make_recordings(normal, case.machines, case.clips, case.seconds)
            fit = self.figures(fit_arguments(normal, detector, case))
        make_recordings(new, 1, case.scored, case.seconds, is_new=True)
        machine = next(new.iterdir())
        score = self.figures(["score", detector, machine, "--machine", machine.name])
        shutil.rmtree(recordings)
        if fitted != Case():
            shutil.rmtree(detector.parent)
        say(f"{label}: {fit['cpu_s']:.1f} and {score['cpu_s']:.1f} CPU s")
        return {"seconds": time.monotonic() - start, "fit": fit, "score": score}

    def figures(self, arguments: Sequence[str | Path]) -> dict[str, Any]:
        """Run a command with an empty cache; return its time, memory and stages."""
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            variables = {"GAMMAVAE_CACHE_DIR": cache}
            return figures_of(run_timed(arguments, variables, self.folder))


def in_turns(sizes: dict[str, list[int]]) -> Iterator[tuple[str, int]]:
    """Yield the smallest size of each axis, then the second smallest, and so on."""
    for step in range(max(map(len, sizes.values()))):
        for axis, of_axis in sizes.items():
            if step < len(of_axis):
                yield axis, of_axis[step]


def make_recordings(
    root: Path, machines: int, clips: int, seconds: int, is_new: bool = False
) -> None:
    """Write recordings of noise; new ones differ from those to train on."""
    for machine in range(machines):
        folder = root / f"machine{machine:04d}"
        folder.mkdir(parents=True)
        for clip in range(clips):
            number = 2 * (machine * clips + clip) + is_new
            write_noise(folder / f"{clip:05d}.wav", seconds, number)


def fit_arguments(root: Path, detector: Path, case: Case) -> list[str | Path]:
    """Return a command that trains for one epoch on whole recordings."""
    length = ["--clip-seconds", str(case.seconds)]
    epochs = ["--epochs", "1", "--set", f"train.n_folds={FOLDS}"]
    return ["fit", root, "--by-folder", "--out", detector, *length, *epochs]


def figures_of(used: Timed) -> dict[str, Any]:
    """Return a command's figures; `work_cpu_s` leaves out what any size costs."""
    fixed = sum(used.stages[stage]["cpu_s"] for stage in _WITHOUT)
    return {
        "wall_s": used.wall_s,
        "cpu_s": used.cpu_s,
        "work_cpu_s": max(used.cpu_s - fixed, 0.0),
        "peak_memory_bytes": used.peak_memory_bytes,
        "stages": used.stages,
    }


def shown(found: dict[str, Any]) -> tuple[float, ...]:
    seconds = (found[name] for name in ("wall_s", "cpu_s", "work_cpu_s"))
    return *seconds, found["peak_memory_bytes"] / 1e6


def show_results(record: dict[str, Any]) -> None:
    for axis, results in record["results"].items():
        rows = [
            [f"{found['size']}", *shown(found["fit"]), *shown(found["score"])]
            for found in results
        ]
        kinds = ("s", "CPU s", "work, CPU s", "peak MB")
        columns = [axis, *(f"{of}: {kind}" for of in COMMANDS for kind in kinds)]
        show(f"Growth with {axis}", columns, rows)


if __name__ == "__main__":
    run_script(main)
