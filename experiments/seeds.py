"""Check that neither the seed nor the machine's name decides a verdict.

For each machine, the default detector is fitted to 15 training clips of the source
domain, once for each seed and once under another name. Each detector scores the same
seven normal and six faulty test clips.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.machines import Recordings, chosen
from gammavae_jax.anomaly_detector import AnomalyDetector
from gammavae_jax.cli.help import MARKERS, RULES
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.data.machines import MachineFiles
from gammavae_jax.process import limit_blas_threads
from gammavae_jax.scoring.verdict import Verdict

N_TRAIN, N_NORMAL, N_FAULTY = 15, 7, 6


@dataclass(frozen=True)
class Seeds(Recordings):
    """Compare the verdicts of detectors that differ in their seed or name."""

    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 10
    """Number of seeds: 0, 1, 2 and so on."""
    epochs: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Training epochs of the models, which the default's scores do not use."""


def parse(arguments: Sequence[str] | None = None) -> Seeds:
    """Parse a command line and return its options."""
    return tyro.cli(Seeds, args=arguments, config=MARKERS, registry=RULES)


def verdicts(
    options: Seeds, files: MachineFiles, name: str, seed: int
) -> list[Verdict]:
    """Fit a detector with this name and seed; judge the test clips with it."""
    train = chosen(files, "train", "source", "normal")[:N_TRAIN]
    normal = chosen(files, "test", "source", "normal")[:N_NORMAL]
    faulty = chosen(files, "test", "source", "anomaly")[:N_FAULTY]
    detector = AnomalyDetector(
        random_state=seed, epochs=options.epochs, verbose=False
    ).fit({name: train})
    return detector.score_recordings([*normal, *faulty])


def compared(options: Seeds, files: MachineFiles) -> list[str]:
    """Return a machine's row: how many clips any seed, or the name, changes."""
    first, *others = (
        verdicts(options, files, files.machine, seed) for seed in range(options.seeds)
    )
    renamed = verdicts(options, files, f"another {files.machine}", 0)
    alarms = sum(verdict.is_anomaly for verdict in first)
    return [
        files.machine,
        f"{alarms} of {len(first)}",
        f"{_n_changed(first, others, 'is_anomaly')}",
        f"{_n_changed(first, others, 'score')}",
        f"{_n_changed(first, others, 'p_value')}",
        f"{_n_changed(first, [renamed], 'score')}",
    ]


def _n_changed(
    first: Sequence[Verdict], others: Sequence[Sequence[Verdict]], field: str
) -> int:
    """Count the clips for which any of the others has a different value."""
    return sum(
        any(getattr(other, field) != getattr(verdict, field) for other in of_clip)
        for verdict, *of_clip in zip(first, *others, strict=True)
    )


def main() -> None:
    """Print a row for each machine."""
    limit_blas_threads()
    options = parse()
    with readable_errors():
        print("Clips whose verdict, score or p-value depends on the seed,")
        print("and clips whose score depends on the machine's name:")
        print("machine | alarms | verdict | score | p-value | name")
        for files in options.find():
            print(" | ".join(compared(options, files)), flush=True)


if __name__ == "__main__":
    main()
