"""Scoring: clips of 10 s a second, beside the official code's Mahalanobis form.

Ours scores every clip from log-mels in memory, once with the same score alone and once
with the three official ones; the official form scores some of the clips, and its time
for all is its time for one, multiplied.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

# Run by its path, a script finds the modules of its own folder alone.
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
from gammavae_jax.config import OFFICIAL_SCORES

OURS, ALL_SCORES, OFFICIAL = "ours", "all_scores", "official"
# The arithmetic of the score alone, from residuals: no network.
CLOSED_FORM, OFFICIAL_RESIDUALS = "closed_form", "official_from_residuals"
LARGEST_DIFFERENCE = 1e-3  # relative


def parse() -> argparse.Namespace:
    options = parser(__doc__)
    add = options.add_argument
    add("--clips", type=positive, default=10000, metavar="N",
        help="of all machines together; 10000")  # fmt: skip
    add("--official-clips", type=positive, default=140, metavar="N",
        help="of them that the official form scores; 140")  # fmt: skip
    add("--machines", type=positive, default=7, metavar="N", help="7")
    add("--frames", type=positive, default=313, metavar="N",
        help="a clip; 313 are 10 s")  # fmt: skip
    given = options.parse_args()
    if given.frames < 5:
        options.error(f"--frames {given.frames}: a window has 5")
    return given


def main() -> int:
    options = parse()
    setup = Call(
        "benchmarks.process_setup:as_the_command_line", {"n_models": options.machines}
    )
    found = environment(setup)
    size = {"machines": options.machines, "frames": options.frames}
    with tempfile.TemporaryDirectory() as folder:
        say("training a detector for an epoch")
        detector = f"{folder}/detector"
        making = Call("benchmarks.scoring:make_detector", {"folder": detector, **size})
        once(Member(setup, making))
        size["clips"] = -(-options.clips // options.machines)
        chosen = min(-(-options.official_clips // options.machines), size["clips"])
        sides = contestants(setup, {"folder": detector, **size}, chosen, folder)
        outcomes = hold(sides, options.rounds, options.warm_up, say)
        difference = relative_difference(folder)
    record = result(size, outcomes, difference)
    write(
        options.json,
        {
            "data": "synthetic log-mels, from a random generator",
            "rounds": options.rounds,
            "warm_up": options.warm_up,
            "results": [record],
            "environment": found,
        },
    )
    show_result(record)
    if difference > LARGEST_DIFFERENCE:
        say(f"error: both sides differ by {difference:.2g}, relative")
        return 1
    return 0


def contestants(
    setup: Call, settings: dict[str, Any], chosen: int, folder: str
) -> list[Contestant]:
    """Ours with the process of the command line, the official form with all cores."""

    def ours(scores: list[str]) -> Member:
        out = f"{folder}/{'_'.join(scores)}.npy"
        more = {"scores": scores, "out": out}
        return Member(setup, Call("benchmarks.scoring:prepare_ours", settings | more))

    official = Call(
        "benchmarks.scoring:prepare_official",
        {**settings, "chosen": chosen, "out": f"{folder}/{OFFICIAL}.npy"},
    )
    all_cores = Call("benchmarks.process_setup:all_cores", {})

    def from_residuals(role: str) -> Call:
        size = {"frames": settings["frames"], "clips": chosen * settings["machines"]}
        is_official = role == OFFICIAL_RESIDUALS
        return Call(
            "benchmarks.scoring:prepare_from_residuals",
            {"folder": settings["folder"], "is_official": is_official, **size},
        )

    return [
        Contestant("gammavae_jax", OURS, (ours(["mahalanobis"]),)),
        Contestant(
            "gammavae_jax_all_scores", ALL_SCORES, (ours(list(OFFICIAL_SCORES)),)
        ),
        Contestant("official_form", OFFICIAL, (Member(all_cores, official),)),
        *(
            Contestant(role, role, (Member(all_cores, from_residuals(role)),))
            for role in (CLOSED_FORM, OFFICIAL_RESIDUALS)
        ),
    ]


def relative_difference(folder: str) -> float:
    """The largest of the clips that both have scored."""
    import numpy as np

    ours, theirs = (np.load(f"{folder}/{n}.npy") for n in ("mahalanobis", OFFICIAL))
    ours = ours[:, : theirs.shape[1]]
    return float((np.abs(ours - theirs) / np.abs(theirs)).max())


def result(
    size: dict[str, int], outcomes: dict[str, Outcome], difference: float
) -> dict[str, Any]:
    ours, official = outcomes[OURS], outcomes[OFFICIAL]
    ratio = ours.ratios(official)
    closed, whole = outcomes[CLOSED_FORM], outcomes[OFFICIAL_RESIDUALS]
    alone = closed.ratios(whole)
    clips = size["machines"] * size["clips"]
    return {
        "machines": size["machines"],
        "clips": clips,
        "frames": size["frames"],
        "clips_per_s": ours.rate,
        "clips_per_s_all_scores": outcomes[ALL_SCORES].rate,
        "official_clips_per_s": official.rate,
        "official_clips_timed": official.work,
        "official_seconds_for_all_extrapolated": clips / official.rate,
        "ratio_to": {OFFICIAL: ratio.median, OFFICIAL_RESIDUALS: alone.median},
        "ratio_spread": {
            OFFICIAL: ratio._asdict(),
            OFFICIAL_RESIDUALS: alone._asdict(),
        },
        "from_residuals": {
            "clips_per_s": closed.rate,
            "official_clips_per_s": whole.rate,
        },
        "seconds": spread(ours.seconds)._asdict(),
        "official_seconds": spread(official.seconds)._asdict(),
        "max_relative_difference": difference,
        **ours.facts[0],
    }


def show_result(found: dict[str, Any]) -> None:
    columns = ["clips", "s", "clips/s", "all scores, clips/s", "official s",
               "official clips/s", "ratio", "ratio of the forms alone",
               "largest difference"]  # fmt: skip
    row = [
        str(found["clips"]),
        found["seconds"]["median"],
        found["clips_per_s"],
        found["clips_per_s_all_scores"],
        found["official_seconds_for_all_extrapolated"],
        found["official_clips_per_s"],
        found["ratio_to"][OFFICIAL],
        found["ratio_to"][OFFICIAL_RESIDUALS],
        found["max_relative_difference"],
    ]
    title = "Scoring; the official form's seconds are extrapolated"
    show(title, columns, [row])


if __name__ == "__main__":
    run_script(main)
