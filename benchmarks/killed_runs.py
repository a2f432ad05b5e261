"""Runs of the main job that are killed again and again, and what they end in."""

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
# A small network; states are saved between the epochs that are saved anyway.
SETTINGS = (
    *("--epochs", "12", "--scores", "fusion_mean", "mse", "mahalanobis"),
    *("--set", "model.hidden=[16]", "model.n_latent=4", "train.batch_size=64"),
    *("train.checkpoint_every=3", "train.n_folds=2"),
)
# By what a run leaves; times and versions are in the others.
_SAME_BYTES = ("metrics.jsonl", "config.json", "results.csv", "clips.csv")
_ENDED = {-signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT}
# While Python itself starts, before anything is heeded.
_ENDED |= {-signal.SIGTERM, -signal.SIGINT}


class LostRunError(AssertionError):
    """A run that could not be gone on with; the message is what it said."""


@dataclass
class Killing:
    """What came of it."""

    killed_when: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    n_starts: int = 0
    n_ends: int = 0  # runs that came to their end
    differences: list[str] = field(default_factory=list)

    @property
    def n_killed(self) -> int:
        """Processes that a signal has ended."""
        return sum(self.statuses.values())


def start(data: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """The main job on all machines of a folder, in a process of its own."""
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
    """Run to the end; what was said on the way.

    Raises:
        LostRunError: it could not.
    """
    run = start(data, out, *options)
    said = run.communicate()[1]
    if run.returncode != 0:
        raise LostRunError(f"status {run.returncode}: {said}")
    return said


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
    """Start a run, kill it at a random time, resume it, and so on; then let it end.

    Args:
        data: of the recordings.
        out: the run's folder, not there yet.
        unbroken: that of the same run, which was never killed.
        draw: of times and signals.
        seconds: that a whole run takes.
        n_kills: before it is let go to its end; fewer where it ends before.
        killing: what comes of it is added here.
        signals: of which one is drawn each time.

    Raises:
        LostRunError: it could not be gone on with.
    """
    for _ in range(n_kills):
        run = start(data, out, *_options(out))
        killing.n_starts += 1
        how = draw.choice(signals)
        try:
            said = run.communicate(timeout=draw.uniform(0, seconds))[1]
        except subprocess.TimeoutExpired:
            run.send_signal(how)
            said = run.communicate()[1]
        if run.returncode == 0:
            break
        if run.returncode not in _ENDED:
            raise LostRunError(f"status {run.returncode} after {how.name}: {said}")
        killing.killed_when[_stage(out)] += 1
        killing.statuses[run.returncode] += 1
    killing.n_starts += 1
    finish(data, out, *_options(out))
    killing.n_ends += 1
    killing.differences += differences(out, unbroken)


def differences(out: Path, other: Path) -> list[str]:
    """In what two runs differ: files and arrays by name; nothing if they are alike."""
    ours, theirs = _bytes_of(out), _bytes_of(other)
    names = sorted(ours.keys() | theirs.keys())
    found = [name for name in names if ours.get(name) != theirs.get(name)]
    for name, arrays in _arrays_of(out).items():
        expected = _arrays_of(other)[name]
        leaves = jax.tree.leaves(jax.tree.map(_same, arrays, expected))
        found += [] if all(leaves) else [name]
    inside = {path.name for path in out.iterdir()} ^ {p.name for p in other.iterdir()}
    return found + sorted(inside)


def seconds_of(data: Path, out: Path) -> float:
    """How long a whole run takes; it ends in a folder of its own."""
    start_time = time.monotonic()
    finish(data, out)
    return time.monotonic() - start_time


def _options(out: Path) -> list[str]:
    """To go on where there is anything to go on with."""
    return ["--resume"] if out.is_dir() and any(out.iterdir()) else []


def _bytes_of(out: Path) -> dict[str, bytes]:
    files = [*sorted((out / "scores").rglob("*.csv")), *(out / n for n in _SAME_BYTES)]
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files}


def _arrays_of(out: Path) -> dict[str, object]:
    training = restore_training(out / "checkpoint")
    detector = load_detector(out / "checkpoint")
    return {
        "the state of the training": training and (training.epoch, training.state),
        "the models": tuple(detector.scorer),
        "the thresholds": dict(detector.thresholds),
    }


def _same(one: object, other: object) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)


def _stage(out: Path) -> str:
    """How far a run had come, by what it has left."""
    if not (out / "config.json").exists():
        return "before its first file"
    if any((out / name).exists() for name in (".results-new", ".results")):
        return "writing results"
    if (out / "summary.json").exists():
        return "with results, making them anew"
    marks = (out / "checkpoint" / "train").glob("*.json")
    epochs = [int(mark.stem) for mark in marks if mark.stem.isdecimal()]
    if not epochs:
        return "before its first state"
    wanted = json.loads((out / "config.json").read_text())["train"]["epochs"]
    return "training" if max(epochs) < wanted else "fitting and scoring"
