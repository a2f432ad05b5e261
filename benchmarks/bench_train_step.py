"""Time training of all machines and seeds in one compiled program, against PyTorch.

A repetition is a few epochs of every machine and seed over synthetic log-mels.
"""

import argparse
import itertools
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import matmul
from benchmarks.contest import Contestant, Outcome, hold, spread
from benchmarks.processes import Call, Member
from benchmarks.script import (
    environment,
    parser,
    positive,
    run_script,
    say,
    show,
    write,
)
from gammavae_jax.process import available_cores

MODELS = ("autoencoder", "gammavae")
OURS, PIPELINE, CAREFUL, PER_CORE = "ours", "pipeline", "careful", "careful_per_core"
PEERS = {
    "none": (),
    "careful": (CAREFUL, PER_CORE),
    "all": (CAREFUL, PER_CORE, PIPELINE),
}
FRAMES_OF_A_WINDOW = 5
SCALING_CLIPS = (100, 300, 1000)


@dataclass(frozen=True)
class Case:
    """A training job to time; `clips` is the number of clips per machine."""

    model: str
    machines: int
    seeds: int
    batch_size: int
    clips: int
    frames: int

    @property
    def machine_of_model(self) -> list[int]:
        """The machine of each model."""
        return list(range(self.machines)) * self.seeds


def parse() -> argparse.Namespace:
    options = parser(__doc__)
    add = options.add_argument
    add("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME",
        help=f"any of {', '.join(MODELS)} (default: both)")  # fmt: skip
    add("--machines", nargs="+", type=positive, default=[1, 7], metavar="N",
        help="numbers of machines to train at a time (default: 1 7)")  # fmt: skip
    add("--seeds", nargs="+", type=positive, default=[1, 5], metavar="N",
        help="seeds per machine (default: 1 5)")  # fmt: skip
    add("--batch-size", type=positive, default=256, metavar="B", help="default: 256")
    add(
        "--clips",
        type=positive,
        default=100,
        metavar="N",
        help="clips per machine (default: 100)",
    )
    add("--frames", type=positive, default=313, metavar="N",
        help="frames per clip (default: 313, which is 10 s)")  # fmt: skip
    add("--epochs", type=positive, default=4, metavar="N",
        help="epochs in a repetition of our side (default: 4)")  # fmt: skip
    add("--batching", choices=("auto", "vmap", "map"), default="auto",
        help="batching of models within a device (default: auto)")  # fmt: skip
    add(
        "--peers",
        choices=PEERS,
        default="all",
        help="PyTorch trainers to compare with (default: all)",
    )
    add("--pipeline-windows", type=positive, default=10240, metavar="N",
        help="windows in a repetition of the slow peer (default: 10240)")  # fmt: skip
    add("--scaling", nargs="*", type=positive, metavar="CLIPS",
        help="time only our side, with the largest of --machines and these numbers of "
        "clips (default: 100 300 1000)")  # fmt: skip
    parsed = options.parse_args()
    if parsed.frames < FRAMES_OF_A_WINDOW:
        least = f"use at least {FRAMES_OF_A_WINDOW} (one window)"
        options.error(f"--frames {parsed.frames}: {least}")
    if parsed.batch_size < 2:
        options.error("--batch-size 1: batch normalisation needs at least 2")
    return parsed


def main() -> int:
    options = parse()
    if options.peers != "none" and not matmul.has_torch():
        say(
            "PyTorch is not installed: timing our side only (pip install -e '.[bench]')"
        )
        options.peers = "none"
    is_scaling = options.scaling is not None
    cases = scaling_cases(options) if is_scaling else comparison_cases(options)
    setup = Call("benchmarks.process_setup:as_the_command_line", {"n_models": 1})
    about = environment(setup)
    results = []
    for case in cases:
        say(f"\n{case}")
        contestants = [
            ours(case, options.epochs, options.batching),
            *matmul.matmul_contestants(),
        ]
        if not is_scaling:
            contestants += peers(case, options, about["platform"] == "cpu")
        outcomes = hold(contestants, options.rounds, options.warm_up, say)
        results.append(result(case, outcomes))
    rates = [r["matmul_gflops"] for r in results]
    record: dict[str, Any] = {
        "data": "synthetic log-mels, from a random generator",
        "rounds": options.rounds,
        "warm_up": options.warm_up,
        "results": results,
        "environment": {**about, "matmul_gflops": spread(rates).median},
    }
    if is_scaling:
        record["scaling"] = scaling(results)
    write(options.json, record)
    show_results(results)
    if is_scaling:
        show_scaling(record["scaling"])
    return 0


def comparison_cases(options: argparse.Namespace) -> list[Case]:
    chosen = itertools.product(options.models, options.machines, options.seeds)
    rest = options.batch_size, options.clips, options.frames
    return [Case(*names, *rest) for names in chosen]


def scaling_cases(options: argparse.Namespace) -> list[Case]:
    size = max(options.machines), min(options.seeds), options.batch_size
    return [
        Case(model, *size, clips, options.frames)
        for model in options.models
        for clips in sorted(options.scaling or SCALING_CLIPS)
    ]


def ours(case: Case, epochs: int, batching: str) -> Contestant:
    n_models = 1 if batching == "vmap" else len(case.machine_of_model)
    setup = Call("benchmarks.process_setup:as_the_command_line", {"n_models": n_models})
    settings = {**asdict(case), "epochs": epochs, "batching": batching}
    prepare = Call("benchmarks.training:prepare", settings)
    return Contestant("gammavae_jax", OURS, (Member(setup, prepare),))


def peers(case: Case, options: argparse.Namespace, is_cpu: bool) -> list[Contestant]:
    """Return all forms of the selected peers."""
    # torch.compile needs an installed C++ compiler.
    compiled = ["compiled"] * (shutil.which(os.environ.get("CXX", "c++")) is not None)
    contestants = []
    for role in PEERS[options.peers]:
        if role == PIPELINE:
            contestants.append(pipeline(case, options.pipeline_windows))
        elif role == CAREFUL:
            forms = ["eager", *compiled, *["graphs"] * (not is_cpu)]
            # On a busy computer, one thread is faster than several that wait.
            threads = (False, True) if is_cpu else (False,)
            contestants += [
                careful(case, *form) for form in itertools.product(forms, threads)
            ]
        elif is_cpu:
            contestants += [
                careful_per_core(case, form) for form in ("eager", *compiled)
            ]
    return contestants


def careful(case: Case, form: str, has_one_thread: bool) -> Contestant:
    threads = "one_thread" if has_one_thread else "all_cores"
    setup = Call(f"benchmarks.process_setup:{threads}", {})
    member = _peer(setup, "careful", case, case.machine_of_model, {"form": form})
    return Contestant(f"careful_{form}_{threads}", CAREFUL, (member,))


def careful_per_core(case: Case, form: str) -> Contestant:
    """Distribute the models over single-threaded processes, one for each core."""
    n_processes = min(available_cores(), len(case.machine_of_model))
    members = []
    for number in range(n_processes):
        setup = Call("benchmarks.process_setup:one_thread", {})
        machines = case.machine_of_model[number::n_processes]
        members.append(_peer(setup, "careful", case, machines, {"form": form}))
    return Contestant(f"{PER_CORE}_{form}", PER_CORE, tuple(members))


def pipeline(case: Case, windows: int) -> Contestant:
    setup = Call("benchmarks.process_setup:all_cores", {})
    member = _peer(setup, "pipeline", case, case.machine_of_model, {"windows": windows})
    return Contestant(PIPELINE, PIPELINE, (member,))


def _peer(
    setup: Call, module: str, case: Case, machines: list[int], more: dict[str, Any]
) -> Member:
    settings = {
        "model": case.model,
        "machines": machines,
        "batch_size": case.batch_size,
        "clips": case.clips,
        "frames": case.frames,
        **more,
    }
    return Member(setup, Call(f"benchmarks.peers.{module}:prepare", settings))


def result(case: Case, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    our, facts = outcomes[OURS], outcomes[OURS].facts[0]
    reached = {
        role: outcomes[role].rate for role in matmul.ROLES.values() if role in outcomes
    }
    flops_a_second = our.rate * facts["flops_per_window"]["formula"]
    roles = (PIPELINE, CAREFUL, PER_CORE)
    ratios = {r: our.ratios(outcomes[r]) for r in roles if r in outcomes}
    return {
        **asdict(case),
        "windows_per_s": our.rate,
        "fraction_of_matmul_rate": flops_a_second / max(reached.values()),
        "ratio_to": {r: ratios[r].median if r in ratios else None for r in roles},
        "ratio_spread": {role: ratio._asdict() for role, ratio in ratios.items()},
        "seconds": spread(our.seconds)._asdict(),
        "seconds_per_epoch": spread(our.seconds).median / facts["epochs"],
        "windows_per_repetition": our.work,
        **facts,
        "peers": {role: peer_result(outcomes[role]) for role in ratios},
        "matmul_gflops": max(reached.values()) / 1e9,
        "matmul_gflops_of": {role: rate / 1e9 for role, rate in reached.items()},
    }


def peer_result(outcome: Outcome) -> dict[str, Any]:
    return {
        "form": outcome.name,
        "windows_per_s": outcome.rate,
        "seconds": spread(outcome.seconds)._asdict(),
        "windows_per_repetition": outcome.work,
        "windows_per_s_in_warm_up": dict(outcome.warm_up_rates),
        "processes": len(outcome.facts),
        "device": outcome.facts[0]["device"],
        "peak_memory_bytes": sum(f["peak_memory_bytes"] for f in outcome.facts),
    }


def scaling(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how time and memory grow with the clips; 1 means proportional."""
    smallest = {r["model"]: r for r in reversed(results)}
    rows = []
    for record in results:
        first = smallest[record["model"]]
        growth = record["seconds_per_epoch"] / first["seconds_per_epoch"]
        rows.append(
            {
                **{
                    name: record[name]
                    for name in ("model", "machines", "seeds", "clips")
                },
                "seconds_per_epoch": record["seconds_per_epoch"],
                "seconds_over_proportion": growth * first["clips"] / record["clips"],
                "peak_memory_bytes": record["peak_memory_bytes"],
                "device_bytes": record["device_bytes"],
                "device_bytes_over_log_mels": (
                    record["device_bytes"] / record["log_mel_bytes"]
                ),
            }
        )
    return rows


def show_results(results: list[dict[str, Any]]) -> None:
    names = ("model", "machines", "seeds", "clips")
    columns = [*names, "windows/s", "s per epoch", "of matmul rate", "compile s",
               "peak MB", PIPELINE, CAREFUL, "per core"]  # fmt: skip
    rows = [
        [
            *(str(r[name]) for name in names),
            r["windows_per_s"],
            r["seconds_per_epoch"],
            r["fraction_of_matmul_rate"],
            r["compile_s"],
            r["peak_memory_bytes"] / 1e6,
            *(r["ratio_to"][role] for role in (PIPELINE, CAREFUL, PER_CORE)),
        ]
        for r in results
    ]
    show("Training; last three columns: our rate divided by the peer's", columns, rows)


def show_scaling(rows: list[dict[str, Any]]) -> None:
    columns = ["model", "machines", "clips", "s per epoch", "s over proportion",
               "peak MB", "device bytes over log-mels"]  # fmt: skip
    chosen = [
        [
            *(str(row[name]) for name in ("model", "machines", "clips")),
            row["seconds_per_epoch"],
            row["seconds_over_proportion"],
            row["peak_memory_bytes"] / 1e6,
            row["device_bytes_over_log_mels"],
        ]
        for row in rows
    ]
    show("Growth with the number of clips", columns, chosen)


if __name__ == "__main__":
    run_script(main)
