"""Time complete commands, from the start of the process to its end, stage by stage.

Commands come in pairs: first with an empty cache folder (cold), then with the folder
of the first one (warm). They run in a pseudo-terminal, which shows how long a person
sees nothing new.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.contest import spread
from benchmarks.processes import Call
from benchmarks.script import (
    environment,
    parser,
    positive,
    run_script,
    say,
    show,
    write,
)
from benchmarks.timed_command import SHOWN_STAGES, run_timed
from gammavae_jax.cli.shared import data_root_or_synthetic
from gammavae_jax.data.machines import find_machines
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.log import Log

COMMANDS = ("run", "fit", "score", "demo")
CACHES = ("cold", "warm")


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=2, warm_up=None)
    add = options.add_argument
    add("--commands", nargs="+", choices=COMMANDS, default=COMMANDS, metavar="NAME",
        help="run, fit, score or demo (default: all)")  # fmt: skip
    add("--epochs", type=positive, metavar="N",
        help="for run and fit (default: the command's own number)")  # fmt: skip
    add("--seeds", type=positive, default=1, metavar="N",
        help="for run (default: 1)")  # fmt: skip
    add("--preset", default="default", metavar="NAME",
        help="for run and fit (default: default)")  # fmt: skip
    add("--data-root", type=Path, metavar="DIR",
        help="recordings for run (default: the built-in synthetic set)")  # fmt: skip
    add("--clips", type=positive, default=15, metavar="N",
        help="clips for fit (default: 15)")  # fmt: skip
    add("--seconds", type=float, default=10.0, metavar="S",
        help="seconds of a clip for fit and score (default: 10)")  # fmt: skip
    return options.parse_args()


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        commands = Commands(options, Path(folder))
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for number in range(1, options.rounds + 1):
            for name in commands.names:
                for cache in CACHES:
                    measured = commands.measure(name, cache, number)
                    about = f"{measured['wall_s']:.1f} s, {measured['cpu_s']:.1f} CPU s"
                    say(f"round {number}/{options.rounds}: {cache} {name}: {about}")
                    found.setdefault((name, cache), []).append(measured)
    record = {
        "data": "built-in synthetic set" if options.data_root is None else "given",
        "rounds": options.rounds,
        "clips": options.clips,
        "seconds_of_clip": options.seconds,
        "preset": options.preset,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "results": [result(*key, runs) for key, runs in found.items()],
        "environment": environment(Call("benchmarks.process_setup:all_cores", {})),
    }
    write(options.json, record)
    show_results(record["results"])
    return 0


class Commands:
    """The commands that are measured, with the recordings that they need.

    Args:
        options: the script's options.
        folder: an existing folder for everything that the commands read and write.
    """

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.options, self.folder = options, folder
        self.names = [name for name in COMMANDS if name in options.commands]
        # Make the recordings and the detector before anything is timed.
        if "run" in self.names:
            self.data_root = data_root_or_synthetic(options.data_root)
            find_machines(self.data_root)
        if {"fit", "score"} & set(self.names):
            length = options.seconds, options.seconds
            size = SyntheticSize(options.clips, 1, 1, length)
            fan = make_synthetic(folder / "data", {"fan": size}, Log()) / "fan"
            self.clips = sorted((fan / "train").glob("*_source_*"))
            self.new_clip = next((fan / "test").glob("*_anomaly_*"))
        if "score" in self.names and "fit" not in self.names:
            say("fitting the detector for gammavae score")
            fit = self._arguments("fit", self._detector)
            run_timed(fit, self._variables("fit"), folder)

    def measure(self, name: str, cache: str, number: int) -> dict[str, Any]:
        """Run a command once; return its times, and for `run` its summary's figures.

        `score` needs the detector that the latest `fit` wrote.
        """
        out = self.folder / f"{name}-out"
        if out.exists():
            shutil.rmtree(out)
        folder = f"{name}-{number}"
        used = run_timed(
            self._arguments(name, out), self._variables(folder), self.folder
        )
        measured = {
            **used._asdict(),
            "silent_s": used.silence.seconds,
            "silent_after": used.silence.after,
        }
        if name == "run":
            text = (out / "summary.json").read_text(encoding="utf-8")
            measured |= figures_of_run(json.loads(text))
        if cache == CACHES[-1]:
            shutil.rmtree(self.folder / folder)
        return measured

    @property
    def _detector(self) -> Path:
        return self.folder / "fit-out"

    def _variables(self, cache: str) -> dict[str, str]:
        """Return the environment variables that select a cache folder.

        Commands store their compiled programs and the built-in synthetic set there.
        """
        folder = self.folder / cache
        folder.mkdir(exist_ok=True)
        return {"GAMMAVAE_CACHE_DIR": str(folder)}

    def _arguments(self, name: str, out: Path) -> list[str | Path]:
        """Return a command's arguments."""
        options = self.options
        epochs = ["--epochs", str(options.epochs)] if options.epochs else []
        training = ["--preset", options.preset, *epochs]
        if name == "run":
            data = ["--all-machines", "--data-root", self.data_root]
            return [name, *data, "--out", out, *training, "--seeds", str(options.seeds)]
        if name == "fit":
            return [name, *self.clips, "--out", out, *training]
        if name == "score":
            return [name, self._detector, self.new_clip]
        return [name, "--out", out]


def figures_of_run(summary: Mapping[str, Any]) -> dict[str, Any]:
    scores = summary["official_score"].items()
    return {
        "timing": summary["timing"],
        "official_score": {name: score["mean"] for name, score in scores},
    }


def result(command: str, cache: str, runs: Sequence[Mapping[str, Any]]) -> dict:
    """Return the medians over rounds."""
    found = {
        "command": command,
        "cache": cache,
        **medians(runs, ("wall_s", "cpu_s", "silent_s")),
        "wall_s_spread": spread([run["wall_s"] for run in runs])._asdict(),
        "silent_after": max(runs, key=lambda run: run["silent_s"])["silent_after"],
        "stages": {
            stage: medians([run["stages"][stage] for run in runs], ("wall_s", "cpu_s"))
            for stage in SHOWN_STAGES
        },
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
    }
    if "timing" in runs[0]:
        timings = [run["timing"] for run in runs]
        found["timing"] = medians(timings, tuple(timings[0]))
        found["official_score"] = runs[0]["official_score"]
    return found


def medians(
    figures: Sequence[Mapping[str, float]], names: Sequence[str]
) -> dict[str, float]:
    return {name: spread([each[name] for each in figures]).median for name in names}


def show_results(results: Sequence[Mapping[str, Any]]) -> None:
    for kind, title in (("wall_s", "Wall seconds"), ("cpu_s", "CPU seconds")):
        columns = ["command", "cache", *SHOWN_STAGES, "whole"]
        rows = [
            [
                found["command"],
                found["cache"],
                *(found["stages"][stage][kind] for stage in SHOWN_STAGES),
                found[kind],
            ]
            for found in results
        ]
        show(f"{title} of complete processes; medians", columns, rows)
    rows = [
        [found["command"], found["cache"], found["silent_s"], found["silent_after"]]
        for found in results
    ]
    columns = ["command", "cache", "seconds", "last line before"]
    show("Longest time without output; medians", columns, rows)


if __name__ == "__main__":
    run_script(main)
