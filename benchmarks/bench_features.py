"""Time feature extraction, from WAV files to log-mels, against a plain librosa loop.

Both read the same files, which the system has cached in memory after the warm-up.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.contest import Contestant, Outcome, hold, spread
from benchmarks.processes import Call, Member, once
from benchmarks.script import (
    environment,
    parser,
    positive,
    run_script,
    say,
    show,
    write,
)

OURS, LIBROSA = "ours", "librosa"


def parse() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--clips",
        type=positive,
        default=256,
        metavar="N",
        help="clips of 10 s (default: 256)",
    )
    return options.parse_args()


def main() -> int:
    options = parse()
    setup = Call("benchmarks.process_setup:as_the_command_line", {"n_models": 1})
    about = environment(setup)
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/set"
        say(f"making {options.clips} synthetic clips of 10 s")
        making = Call(
            "benchmarks.waveforms:make", {"root": root, "clips": options.clips}
        )
        once(Member(setup, making))
        outcomes = hold(contestants(root, folder), options.rounds, options.warm_up, say)
        difference = max_difference(folder)
    record = result(options.clips, outcomes, difference)
    write(
        options.json,
        {
            "data": "synthetic clips of 10 s, 16 kHz",
            "rounds": options.rounds,
            "warm_up": options.warm_up,
            "results": [record],
            "environment": about,
        },
    )
    show_result(record)
    return 0


def contestants(root: str, folder: str) -> list[Contestant]:
    """Return the contestants: our side, set up like the command line, and librosa."""
    setups = {
        OURS: Call("benchmarks.process_setup:as_the_command_line", {"n_models": 1}),
        LIBROSA: Call("benchmarks.process_setup:all_cores", {}),
    }
    return [
        Contestant(
            name,
            name,
            (
                Member(
                    setup,
                    Call(
                        f"benchmarks.waveforms:prepare_{name}",
                        {"root": root, "out": f"{folder}/{name}.npy"},
                    ),
                ),
            ),
        )
        for name, setup in setups.items()
    ]


def max_difference(folder: str) -> float:
    """Return the largest difference between both sides' log-mels, in dB."""
    import numpy as np

    ours, theirs = (np.load(f"{folder}/{name}.npy") for name in (OURS, LIBROSA))
    return float(np.abs(ours - theirs).max())


def result(
    clips: int, outcomes: dict[str, Outcome], difference: float
) -> dict[str, Any]:
    ours, librosa = outcomes[OURS], outcomes[LIBROSA]
    ratio = ours.ratios(librosa)
    return {
        "clips": clips,
        "clips_per_s": ours.rate,
        "librosa_clips_per_s": librosa.rate,
        "ratio_to": {LIBROSA: ratio.median},
        "ratio_spread": {LIBROSA: ratio._asdict()},
        "seconds": spread(ours.seconds)._asdict(),
        "librosa_seconds": spread(librosa.seconds)._asdict(),
        "max_difference_db": difference,
        "peak_memory_bytes": ours.facts[0]["peak_memory_bytes"],
    }


def show_result(record: dict[str, Any]) -> None:
    columns = ["clips", "clips/s", "librosa clips/s", "ratio", "largest difference, dB"]
    row = [
        str(record["clips"]),
        record["clips_per_s"],
        record["librosa_clips_per_s"],
        record["ratio_to"][LIBROSA],
        record["max_difference_db"],
    ]
    show("Features, WAV files to log-mels", columns, [row])


if __name__ == "__main__":
    run_script(main)
