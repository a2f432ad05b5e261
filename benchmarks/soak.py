"""Soak test: kill and resume runs, then load a server; nothing may be lost or leaked.

For the first half of the time, the main job on two small machines is killed at random
moments and resumed, and its results are compared, bit for bit, with a run that was
never killed. For the second half, `gammavae serve` gets valid and invalid recordings on
loopback. Some clients are slow, disconnect, or do not speak HTTP. The exit status is 1
if a run ended differently, a request was lost, a score was wrong, or the server leaked
memory, files or threads. This test needs Linux.
"""

import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.killed_runs import (
    Killing,
    LostRunError,
    finish,
    kill_and_resume,
    seconds_of,
)
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
from benchmarks.served_load import (
    Sample,
    Tally,
    good_recordings,
    load,
    sample,
    serving,
)
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.process import keep_compiled_programs

_SIZES = {
    "fan": SyntheticSize(12, 3, 3, (1.0, 1.2)),
    "valve": SyntheticSize(7, 0, 2, (1.0, 1.0)),
}
_KILLS_OF_A_RUN = 5
# A server's memory may still grow in the first third of the time.
_MOST_GROWTH = 16e6  # bytes, from the middle third to the last one
_MOST_GROWTH_SHARE = 0.05
_MOST_REPORTED = 20  # faults of one kind
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak test and report its result."""
    options = _options(arguments)
    record: dict[str, Any] = {
        "minutes": options.minutes,
        "seed": options.seed,
        "environment": environment(Call("benchmarks.process_setup:all_cores", {})),
    }
    keep_compiled_programs()
    half = 30.0 * options.minutes
    with tempfile.TemporaryDirectory(prefix="gammavae-soak-") as folder:
        place = Path(folder)
        data = make_synthetic(place / "data", _SIZES)
        record["runs"] = runs = _soak_runs(data, place, half, options.seed)
        record["server"] = server = _soak_server(data, place, half, options)
    faults = [*runs["faults"], *server["faults"]]
    record["faults"] = faults
    _show(runs, server)
    write(options.json, record)
    for fault in faults:
        print(f"FAULT: {fault}")
    print("nothing lost, nothing leaked" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


def _options(arguments: Sequence[str] | None) -> Any:
    made = parser(__doc__, rounds=None, warm_up=None)
    made.add_argument(
        "--minutes",
        type=float,
        default=20.0,
        metavar="M",
        help="total time (default: 20)",
    )
    made.add_argument(
        "--clients",
        type=positive,
        default=24,
        metavar="N",
        help="clients at a time (default: 24)",
    )
    made.add_argument(
        "--seed", type=int, default=0, metavar="S", help="random seed (default: 0)"
    )
    options = made.parse_args(arguments)
    if not 0 < options.minutes < 1e5:
        made.error("--minutes must be more than 0")
    return options


def _soak_runs(data: Path, place: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Kill and resume runs for some seconds; finish at least one run."""
    unbroken = place / "unbroken"
    finish(data, unbroken)  # compiles
    ends = time.monotonic() + seconds
    whole = seconds_of(data, place / "again")
    say(f"a run takes {whole:.1f} s; killing for {seconds:.0f} s")
    killing, draw = Killing(), random.Random(seed)
    faults = []
    while not killing.n_starts or time.monotonic() < ends:
        out = place / f"killed-{killing.n_ends}"
        try:
            kill_and_resume(
                *(data, out, unbroken, draw, whole, _KILLS_OF_A_RUN, killing),
                signals=_SIGNALS,
            )
        except LostRunError as error:
            faults.append(f"a run could not be resumed: {error}")
            break
        say(f"{killing.n_killed} killed, {killing.n_ends} runs finished")
    faults += [
        f"a killed run ended differently: {name}" for name in killing.differences
    ]
    return {
        "seconds_of_a_run": round(whole, 2),
        "started": killing.n_starts,
        "killed": killing.n_killed,
        "killed_when": dict(killing.killed_when),
        "statuses": {str(k): n for k, n in killing.statuses.items()},
        "ended": killing.n_ends,
        "differences": killing.differences,
        "faults": faults,
    }


def _soak_server(
    data: Path, place: Path, seconds: float, options: Any
) -> dict[str, Any]:
    """Put load on the server for some seconds, then check its state and exit status."""
    recordings = good_recordings(data)
    say(f"{options.clients} clients for {seconds:.0f} s")
    with serving(place / "unbroken" / "checkpoint") as (process, address):
        load(address, process.pid, recordings, 3.0, options.clients, -1)  # warms up
        before = sample(process.pid, 0.0)
        tally, samples = load(
            address, process.pid, recordings, seconds, options.clients, options.seed
        )
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    faults = faults_of(tally, before, samples)
    if status != 128 + signal.SIGTERM:
        faults.append(f"the server ended with status {status} after SIGTERM")
    return {
        "sent": dict(tally.sent),
        "answered": dict(sorted(tally.answered.items())),
        "lost": len(tally.lost),
        "wrong": len(tally.wrong),
        "scores_per_s": round(_n_scored(tally) / seconds, 1),
        "before": before._asdict(),
        **_memory(samples),
        "samples": [list(s) for s in samples],
        "faults": faults,
    }


def _n_scored(tally: Tally) -> int:
    return sum(n for kind, n in tally.answered.items() if kind.endswith(": 200"))


def _memory(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return memory at start, middle and end, and its growth after the first third."""
    under_load = samples[:-1]
    late = under_load[len(under_load) // 3 :]
    slope = 0.0
    if len(late) > 2:
        hours = [s.seconds / 3600 for s in late]
        slope = float(np.polyfit(hours, [s.rss_bytes / 1e6 for s in late], 1)[0])
    return {
        "rss_start_bytes": under_load[0].rss_bytes,
        "rss_middle_bytes": under_load[len(under_load) // 2].rss_bytes,
        "rss_end_bytes": under_load[-1].rss_bytes,
        "rss_slope_mb_per_hour": round(slope, 1),
        "rss_growth_bytes": _growth(under_load),
        "open_files_end": samples[-1].open_files,
        "threads_end": samples[-1].threads,
    }


def _growth(samples: Sequence[Sample]) -> int:
    """Return by how many bytes the median memory grows late in the run.

    The last third of the samples is compared with the middle third.
    """
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    medians = [np.median([s.rss_bytes for s in part]) for part in (middle, last)]
    return int(medians[1] - medians[0])


def faults_of(tally: Tally, before: Sample, samples: Sequence[Sample]) -> list[str]:
    """Return a line for each loss, error or leak; the last sample's server is idle."""
    faults = [f"lost: {lost}" for lost in tally.lost[:_MOST_REPORTED]]
    faults += [f"wrong: {wrong}" for wrong in tally.wrong[:_MOST_REPORTED]]
    rest, growth = samples[-1], _growth(samples[:-1])
    if growth > max(_MOST_GROWTH, _MOST_GROWTH_SHARE * before.rss_bytes):
        faults.append(f"memory grew by {growth / 1e6:.0f} MB")
    for what in ("open_files", "threads"):
        more = getattr(rest, what) - getattr(before, what)
        if more > 0:
            faults.append(f"{more} more {what.replace('_', ' ')} than before")
    return faults


def _show(runs: Mapping[str, Any], server: Mapping[str, Any]) -> None:
    """Print the tables."""
    show(
        "runs killed and resumed",
        ["", ""],
        [
            ["processes started", str(runs["started"])],
            ["killed", str(runs["killed"])],
            *([f"  {when}", str(n)] for when, n in sorted(runs["killed_when"].items())),
            ["runs that finished", str(runs["ended"])],
            [
                "of these, different from the unbroken run",
                str(len(runs["differences"])),
            ],
        ],
    )
    show(
        "the server",
        ["", ""],
        [
            *([f"sent, {kind}", str(n)] for kind, n in sorted(server["sent"].items())),
            *(
                [f"  answered, {kind}", str(n)]
                for kind, n in server["answered"].items()
            ),
            ["lost", str(server["lost"])],
            ["wrong", str(server["wrong"])],
            ["scores per second", f"{server['scores_per_s']:g}"],
            [
                "MB at start, middle, end",
                ", ".join(
                    f"{server[f'rss_{when}_bytes'] / 1e6:.0f}"
                    for when in ("start", "middle", "end")
                ),
            ],
            ["MB per hour", f"{server['rss_slope_mb_per_hour']:g}"],
            [
                "open files before, after",
                f"{server['before']['open_files']}, {server['open_files_end']}",
            ],
            [
                "threads before, after",
                f"{server['before']['threads']}, {server['threads_end']}",
            ],
        ],
    )


if __name__ == "__main__":
    run_script(main)
