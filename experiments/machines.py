"""What the experiments on alarms share: recordings, and a detector of each machine."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gammavae_jax.anomaly_detector import AnomalyDetector
from gammavae_jax.data.loading import Source, find_all
from gammavae_jax.data.machines import MachineFiles, find_machines

LABELS = "normal", "anomaly"


@dataclass(frozen=True)
class Recordings:
    """The options that select machines in the challenge's layout."""

    data_root: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder with machines in the challenge's layout."""
    machines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Machines to use. Default: every machine in --data-root."""

    def find(self) -> list[MachineFiles]:
        """List the recordings of these machines; see `find_all` for errors."""
        names = self.machines or tuple(find_machines(self.data_root))
        return find_all(Source(self.data_root, names))


def command(*arguments: Any) -> dict[str, Any]:
    """Return the arguments of `subprocess.run` that start `gammavae` in any folder."""
    program = [sys.executable, "-m", "gammavae_jax.cli.main", *map(str, arguments)]
    path = os.pathsep.join(filter(None, sys.path))
    return {"args": program, "env": {**os.environ, "PYTHONPATH": path}, "text": True}


def chosen(files: MachineFiles, split: str, domain: str, label: str) -> list[Path]:
    """Return the paths of a machine's clips with this domain and label."""
    clips = getattr(files, split)
    names = {clip.path: clip.name for clip in clips}
    return [p for p, n in names.items() if (n.domain, n.label) == (domain, label)]


def fitted(files: MachineFiles, n_clips: int | None = None) -> AnomalyDetector:
    """Return the default detector, fitted to normal clips of the source domain.

    Its scores use no model, so an epoch and two folds are enough.
    """
    train = chosen(files, "train", "source", "normal")[:n_clips]
    options = {"epochs": 1, "settings": ["train.n_folds=2"], "verbose": False}
    return AnomalyDetector(**options).fit({files.machine: train})
