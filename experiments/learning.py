"""Measure what `gammavae learn` changes after it has learnt clips of a new load.

The detector knows the source domain; the new load is the target domain. Some of its
normal test clips are learnt. Others, which share no audio with them, show the false
alarms before and after.
"""

import itertools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import scipy.sparse.csgraph
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.machines import LABELS, Recordings, chosen, command, fitted
from gammavae_jax.anomaly_detector import AnomalyDetector
from gammavae_jax.cli.help import MARKERS, RULES
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.data.clips import load_clips
from gammavae_jax.data.machines import MachineFiles, clip_file
from gammavae_jax.evaluation.intervals import roc_area
from gammavae_jax.process import limit_blas_threads
from gammavae_jax.training.links import find_shared_audio

_OF_LOAD = "false alarms, % | faults found, % | AUC | verdicts that changed"
_MOST_SEEDS = 10  # for each draw
COLUMNS = f"machine | s (CPU) | clips | new load: {_OF_LOAD} | old load: {_OF_LOAD}"


@dataclass(frozen=True)
class Learning(Recordings):
    """Learn clips of a new load and compare both versions of the detector."""

    train_clips: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Clips that the detector is fitted to. Default: all of the source domain."""
    clips: Annotated[int, tyro.conf.arg(metavar="N")] = 10
    """Clips of the new load to learn."""
    draws: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """How often other clips are learnt."""


def parse(arguments: Sequence[str] | None = None) -> Learning:
    """Parse a command line and return its options."""
    return tyro.cli(Learning, args=arguments, config=MARKERS, registry=RULES)


class Learnt(NamedTuple):
    """A new version of a detector, and the time that `gammavae learn` took."""

    detector: AnomalyDetector
    wall: float  # s
    cpu: float  # s


def learn(detector: Path, recordings: list[Path]) -> Learnt:
    """Run `gammavae learn`; raise a RuntimeError if the old version changes."""
    before = content(detector)
    out = detector.with_name("new.detector")
    given = command("learn", detector, *recordings, "--out", out, "--overwrite")
    began, cpu = time.perf_counter(), -children_cpu()
    subprocess.run(**given, check=True, stdout=subprocess.DEVNULL)
    wall, cpu = time.perf_counter() - began, cpu + children_cpu()
    if content(detector) != before:
        raise RuntimeError("the old version changed")
    return Learnt(AnomalyDetector.load(out, verbose=False), wall, cpu)


def content(folder: Path) -> dict[Path, bytes]:
    """Return the content of each file."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def children_cpu() -> float:
    """Return the CPU time of the processes that have ended, in s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shared_audio_groups(paths: list[Path], detector: AnomalyDetector) -> np.ndarray:
    """Return each clip's group; clips that share audio are in the same group."""
    files, of = [clip_file(path) for path in paths], detector.detector_
    log_mels = load_clips(files, of.filterbank, of.config.features).log_mels
    n_frames = np.array([len(log_mel) for log_mel in log_mels])
    is_shared = find_shared_audio(np.stack(log_mels), n_frames)
    return scipy.sparse.csgraph.connected_components(is_shared)[1]


def drawn(
    group: np.ndarray, n_clips: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the indices of clips to learn and return those of the other groups.

    The clips are drawn from half of the groups, or from more if these are too few.
    """
    place = rng.permutation(group.max() + 1)[group]
    n_half = np.count_nonzero(place < (group.max() + 1) // 2)
    last = np.sort(place)[max(n_half, min(n_clips, len(group))) - 1]
    known = rng.permutation(np.flatnonzero(place <= last))
    return known[:n_clips], np.flatnonzero(place > last)


def draws_of(
    group: np.ndarray, n_clips: int, n_draws: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what `drawn` returns for different seeds, if other groups have clips left.

    There are fewer draws if this rarely happens.
    """
    seeds = range(_MOST_SEEDS * n_draws)
    pairs = (drawn(group, n_clips, np.random.default_rng(seed)) for seed in seeds)
    yield from itertools.islice((pair for pair in pairs if len(pair[1])), n_draws)


def compared(options: Learning, files: MachineFiles) -> Iterator[list[str]]:
    """Yield a row for each draw of clips that are learnt."""
    old = fitted(files, options.train_clips)
    normal, faulty = (chosen(files, "test", "target", label) for label in LABELS)
    old_load = [chosen(files, "test", "source", label) for label in LABELS]
    group = shared_audio_groups(normal, old)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "old.detector"
        old.save(path)
        for first, rest in draws_of(group, options.clips, options.draws):
            new = learn(path, [normal[i] for i in first])
            versions = [old, new.detector]
            yield [
                files.machine,
                f"{new.wall:.1f} ({new.cpu:.1f})",
                f"{len(rest)}",
                *changes(versions, [normal[i] for i in rest], faulty),
                *changes(versions, *old_load),
            ]


def changes(
    versions: Sequence[AnomalyDetector], normal: list[Path], faulty: list[Path]
) -> list[str]:
    """Describe how the results of two versions differ.

    Returns:
        The false alarms, the detected faults, the AUC, and how many verdicts changed.
    """
    found = [[of.score_recordings(p) for p in (normal, faulty)] for of in versions]
    alarms = [[np.array([v.is_anomaly for v in part]) for part in of] for of in found]
    scores = [[np.array([v.score for v in part]) for part in of] for of in found]
    before, after = map(np.concatenate, alarms)
    return [
        " to ".join(f"{100 * of[0].mean():.0f}" for of in alarms),
        " to ".join(f"{100 * of[1].mean():.0f}" for of in alarms),
        " to ".join(f"{roc_area(*of).value:.2f}" for of in scores),
        f"{(before != after).sum()} of {len(before)}",
    ]


def main() -> None:
    """Print a row for each machine and draw."""
    limit_blas_threads()
    options = parse()
    with readable_errors():
        print(COLUMNS)
        for files in options.find():
            for row in compared(options, files):
                print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
