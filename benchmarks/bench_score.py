"""Compare our scoring speed with that of the official form of the Mahalanobis score.

Our side scores every clip of 10 s from log-mels in memory, once with the Mahalanobis
score alone and once with all three official scores. The official side scores only some
of the clips, and its time for all clips is extrapolated.
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
from gammavae_jax.config import OFFICIAL_SCORES

OURS, ALL_SCORES, OFFICIAL = "ours", "all_scores", "official"
# These compute the score from residuals, without the model.
CLOSED_FORM, OFFICIAL_RESIDUALS = "closed_form", "official_from_residuals"
LARGEST_DIFFERENCE = 1e-3  # relative


def parse() -> argparse.Namespace:
    options = parser(__doc__)
    add = options.add_argument
    add("--clips", type=positive, default=10000, metavar="N",
        help="clips of all machines together (default: 10000)")  # fmt: skip
    add("--official-clips", type=positive, default=140, metavar="N",
        help="clips that the official form scores (default: 140)")  # fmt: skip
    add("--machines", type=positive, default=7, metavar="N", help="default: 7")
    add("--frames", type=positive, default=313, metavar="N",
        help="frames per clip (default: 313, which is 10 s)")  # fmt: skip
    parsed = options.parse_args()
    if parsed.frames < 5:
        options.error(f"--frames {parsed.frames}: use at least 5 (one window)")
    return parsed


def main() -> int:
    options = parse()
    setup = Call(
        "benchmarks.process_setup:as_the_command_line", {"n_models": options.machines}
    )
    about = environment(setup)
    size = {"machines": options.machines, "frames": options.frames}
    with tempfile.TemporaryDirectory() as folder:
        say("training a detector for one epoch")
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
            "environment": about,
        },
    )
    show_result(record)
    if difference > LARGEST_DIFFERENCE:
        say(f"error: the two sides' scores differ by {difference:.2g} (relative)")
        return 1
    return 0


def contestants(
    setup: Call, settings: dict[str, Any], chosen: int, folder: str
) -> list[Contestant]:
    """Return our side (set up like the command line) and the official form."""

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
    """Return the largest relative difference over the clips scored by both sides."""
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


def show_result(record: dict[str, Any]) -> None:
    columns = ["clips", "s", "clips/s", "all scores, clips/s", "official s",
               "official clips/s", "ratio", "ratio of the forms alone",
               "largest difference"]  # fmt: skip
    row = [
        str(record["clips"]),
        record["seconds"]["median"],
        record["clips_per_s"],
        record["clips_per_s_all_scores"],
        record["official_seconds_for_all_extrapolated"],
        record["official_clips_per_s"],
        record["ratio_to"][OFFICIAL],
        record["ratio_to"][OFFICIAL_RESIDUALS],
        record["max_relative_difference"],
    ]
    title = "Scoring; the official form's seconds are extrapolated"
    show(title, columns, [row])


if __name__ == "__main__":
    run_script(main)
