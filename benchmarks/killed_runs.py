"""Kills and resumes runs of the main job and compares their results."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from gammavae_jax.runs.checkpoint import load_detector, restore_training

_RUN = Path(__file__).resolve().parent.parent / "experiments" / "run.py"
# A small model whose training state is saved more often than by default.
SETTINGS = (
    *("--epochs", "12", "--scores", "fusion_mean", "mse", "mahalanobis"),
    *("--set", "model.hidden=[16]", "model.n_latent=4", "train.batch_size=64"),
    *("train.checkpoint_every=3", "train.n_folds=2"),
)
# The other files contain times and versions.
_SAME_BYTES = ("metrics.jsonl", "config.json", "results.csv", "clips.csv")
_ENDED = {-signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT}
# While Python starts, its signal handlers are not installed yet.
_ENDED |= {-signal.SIGTERM, -signal.SIGINT}


class LostRunError(AssertionError):
    """The error for a run that cannot be resumed; the message contains its output."""


@dataclass
class Killing:
    """The counts of killed and finished runs."""

    killed_when: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    n_starts: int = 0
    n_ends: int = 0  # runs that finished
    differences: list[str] = field(default_factory=list)

    @property
    def n_killed(self) -> int:
        """Number of processes ended by a signal."""
        return sum(self.statuses.values())


def start(data: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start the main job on all machines of a folder, in its own process."""
    return subprocess.Popen(
        [
            *(sys.executable, str(_RUN), "--all-machines", "--data-root", str(data)),
            *("--out", str(out), *SETTINGS, *options),
        ],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(data: Path, out: Path, *options: str) -> str:
    """Run the main job to its end and return its messages.

    Raises:
        LostRunError: the run failed.
    """
    run = start(data, out, *options)
    messages = run.communicate()[1]
    if run.returncode != 0:
        raise LostRunError(f"status {run.returncode}: {messages}")
    return messages


def kill_and_resume(
    data: Path,
    out: Path,
    unbroken: Path,
    draw: random.Random,
    seconds: float,
    n_kills: int,
    killing: Killing,
    signals: Sequence[signal.Signals] = (signal.SIGKILL,),
) -> None:
    """Kill a run at random times and resume it each time, then let it finish.

    Args:
        data: folder of the recordings.
        out: the run's folder; must not exist yet.
        unbroken: folder of an identical run that was never killed.
        draw: chooses times and signals.
        seconds: duration of a complete run.
        n_kills: number of kills before the run may finish; fewer if it finishes early.
        killing: receives the counts.
        signals: one of these is chosen each time.

    Raises:
        LostRunError: the run could not be resumed.
    """
    for _ in range(n_kills):
        run = start(data, out, *_options(out))
        killing.n_starts += 1
        how = draw.choice(signals)
        try:
            messages = run.communicate(timeout=draw.uniform(0, seconds))[1]
        except subprocess.TimeoutExpired:
            run.send_signal(how)
            messages = run.communicate()[1]
        if run.returncode == 0:
            break
        if run.returncode not in _ENDED:
            raise LostRunError(
                f"a run to be killed by {how.name} ended with status "
                f"{run.returncode}: {messages}"
            )
        killing.killed_when[_stage(out)] += 1
        killing.statuses[run.returncode] += 1
    killing.n_starts += 1
    finish(data, out, *_options(out))
    killing.n_ends += 1
    killing.differences += differences(out, unbroken)


def differences(out: Path, other: Path) -> list[str]:
    """Return the names of the files and arrays in which two runs differ."""
    ours, theirs = _bytes_of(out), _bytes_of(other)
    names = sorted(ours.keys() | theirs.keys())
    different = [name for name in names if ours.get(name) != theirs.get(name)]
    for name, arrays in _arrays_of(out).items():
        expected = _arrays_of(other)[name]
        leaves = jax.tree.leaves(jax.tree.map(_same, arrays, expected))
        different += [] if all(leaves) else [name]
    inside = {path.name for path in out.iterdir()} ^ {p.name for p in other.iterdir()}
    return different + sorted(inside)


def seconds_of(data: Path, out: Path) -> float:
    """Return the duration of a complete run into the folder `out`."""
    start_time = time.monotonic()
    finish(data, out)
    return time.monotonic() - start_time


def _options(out: Path) -> list[str]:
    """Return `--resume` if there is anything to resume."""
    return ["--resume"] if out.is_dir() and any(out.iterdir()) else []


def _bytes_of(out: Path) -> dict[str, bytes]:
    files = [*sorted((out / "scores").rglob("*.csv")), *(out / n for n in _SAME_BYTES)]
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files}


def _arrays_of(out: Path) -> dict[str, object]:
    training = restore_training(out / "checkpoint")
    detector = load_detector(out / "checkpoint")
    return {
        "the training state": training and (training.epoch, training.state),
        "the models": tuple(detector.scorer),
        "the thresholds": dict(detector.thresholds),
    }


def _same(one: object, other: object) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)


def _stage(out: Path) -> str:
    """Return how far a run got, judging by the files that it left."""
    if not (out / "config.json").exists():
        return "before its first file"
    if any((out / name).exists() for name in (".results-new", ".results")):
        return "writing results"
    if (out / "summary.json").exists():
        return "replacing its results"
    marks = (out / "checkpoint" / "train").glob("*.json")
    epochs = [int(mark.stem) for mark in marks if mark.stem.isdecimal()]
    if not epochs:
        return "before its first state"
    n_epochs = json.loads((out / "config.json").read_text())["train"]["epochs"]
    return "training" if max(epochs) < n_epochs else "fitting and scoring"
