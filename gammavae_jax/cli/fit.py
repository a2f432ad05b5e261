"""Commands that train a detector: `gammavae fit` and `gammavae demo`."""

import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gammavae_jax.cli.options import Settings, flat
from gammavae_jax.cli.shared import built_in_set, prepare
from gammavae_jax.errors import InputError, printable, writing
from gammavae_jax.files import atomic_folder

# The last four are for the steps that follow the demo in docs/own-machines.md.
_DEMO_RECORDINGS = {
    "normal": ("train/*_source_*_00[0-3]*",),
    "today": ("test/*_source_*_000[0-5]*",),
    "healthy": ("test/*_source_*_normal_000[6-9]*", "test/*_source_*_normal_001*"),
    "broken": ("test/*_source_*_anomaly_000[6-9]*", "test/*_source_*_anomaly_001*"),
    "rain": ("train/*_target_*",),
    "rain-later": ("test/*_target_*_normal_*",),
}


@dataclass(frozen=True)
class Fit:
    """Train a detector on recordings of a healthy machine."""

    recordings: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RECORDINGS ...")
    ]
    """WAV or FLAC files, or folders of them; subfolders are included."""
    out: Annotated[Path, tyro.conf.arg(metavar="DETECTOR")]
    """Folder to write the detector to, such as pump.detector."""
    machine: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the machine. Default: the name of --out without .detector."""
    by_folder: bool = False
    """Treat each subfolder of RECORDINGS as a machine. If a machine's folder contains a
    folder named normal or train, in upper or lower case, only the recordings in that
    folder are used."""
    false_alarm_rate: Annotated[float, tyro.conf.arg(metavar="RATE")] = 0.1
    """Largest acceptable share of normal recordings that raise an alarm."""
    clip_seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 10.0
    """Cut longer recordings into clips of about this length, in seconds."""
    preset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "default"
    """Named configuration, such as default or paper."""
    epochs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Passes over the training data. Default: the preset's number, or more if there are
    few recordings."""
    group_by: Annotated[str, tyro.conf.arg(metavar="REGEX")] = ""
    """Regular expression, such as day_[0-9]+. Recordings whose paths contain the same
    match, such as day_7, are not independent: together they are treated as one
    recording."""
    seed: Annotated[int, tyro.conf.arg(metavar="S")] = 13711
    """Seed of all random numbers."""
    set: Settings = ()
    """Change any field of the configuration, such as model.n_latent=16."""
    skip_bad_files: bool = False
    """Report and skip recordings that cannot be used."""
    overwrite: bool = False
    """Replace an existing detector."""

    def run(self) -> int:
        """Train the detector, write it to disk, and print its thresholds."""
        if self.out.exists() and not self.overwrite:
            raise InputError(
                f"{printable(self.out)} exists: add --overwrite, or choose another "
                "path for --out"
            )
        self._check_seed()
        recordings = self.recordings_by_machine()
        prepare(2)  # there are at least two models, one per fold

        from gammavae_jax.runs.detector_folder import require_place

        require_place(self.out)  # fail now instead of after training

        from gammavae_jax.anomaly_detector import AnomalyDetector
        from gammavae_jax.scoring.sample_size import training_summaries

        detector = AnomalyDetector(
            preset=self.preset,
            epochs=self.epochs,
            random_state=self.seed,
            false_alarm_rate=self.false_alarm_rate,
            clip_seconds=self.clip_seconds,
            settings=self.settings(),
            skip_bad_files=self.skip_bad_files,
        ).fit(recordings)
        detector.save(self.out)
        summaries = training_summaries(detector.detector_)
        for machine, threshold in detector.threshold_.items():
            print(f"{machine}: alarm if the score is above {threshold:.4g}")
            if summaries[machine]:
                print(summaries[machine])
        out = shlex.quote(str(self.out))
        print(f"written to {self.out}; next: gammavae score {out} RECORDINGS")
        return 0

    def _check_seed(self) -> None:
        """Raise an InputError that names the options, not the Python parameters."""
        from gammavae_jax.config import LARGEST_SEED

        if not 0 <= self.seed <= LARGEST_SEED:
            problem = f"--seed is {self.seed}"
            raise InputError(f"{problem}: it must be from 0 to {LARGEST_SEED}")
        if any(of.partition("=")[0].strip() == "seed" for of in flat(self.set)):
            raise InputError("the seed cannot be changed with --set: use --seed")

    def settings(self) -> tuple[str, ...]:
        """Return the configuration fields to change, as assignments."""
        if not self.group_by:
            return flat(self.set)
        return *flat(self.set), f"train.group_by={json.dumps(self.group_by)}"

    def recordings_by_machine(self) -> dict[str, list[Path]]:
        """Return the recordings of each machine, by machine name."""
        if not self.by_folder:
            name = self.machine or self.out.name.removesuffix(".detector")
            return {name: list(self.recordings)}
        if self.machine is not None:
            raise InputError(
                "--by-folder names machines after their folders: leave out --machine"
            )
        if len(self.recordings) != 1 or not self.recordings[0].is_dir():
            raise InputError(
                "--by-folder needs exactly one folder, with one subfolder per machine"
            )
        (root,) = self.recordings
        machines = {
            path.name: [_normal_folder(path)]
            for path in _subfolders(root)
            if not (path / "detector.json").exists()
        }
        if not machines:
            raise InputError(
                f"{printable(root)} has no subfolders: leave out --by-folder"
            )
        for name, (folder,) in machines.items():
            print(f"{printable(name)}: {printable(folder)}")
        return machines


@dataclass(frozen=True)
class Demo:
    """Show the whole workflow on a synthetic fan; this takes one to two minutes."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("demo")
    """Folder to create for the recordings, the detector and the report."""

    def run(self) -> int:
        """Make recordings, fit a detector, score new recordings and write a report."""
        from gammavae_jax.cli.score import Score

        if self.out.exists():
            raise InputError(
                f"{printable(self.out)} exists: choose another path for --out"
            )
        print("The fan in this demo is SYNTHETIC: no sound was recorded.", flush=True)
        with writing(self.out):
            self._copy_recordings()
        detector, page = self.out / "fan.detector", self.out / "report.html"
        out = shlex.quote(str(self.out))
        print(f"+ gammavae fit {out}/normal --out {out}/fan.detector", flush=True)
        Fit((self.out / "normal",), detector).run()
        command = f"gammavae score {out}/fan.detector {out}/today"
        print(f"+ {command} --report {out}/report.html", flush=True)
        return Score(detector, (self.out / "today",), report=page).run()

    def _copy_recordings(self) -> None:
        fan = built_in_set() / "fan"
        with atomic_folder(self.out) as folder:
            for name, patterns in _DEMO_RECORDINGS.items():
                (folder / name).mkdir()
                for path in sorted(p for each in patterns for p in fan.glob(each)):
                    shutil.copy(path, folder / name / path.name)


def _subfolders(root: Path) -> list[Path]:
    """Return a folder's visible subfolders and report the files that are left out."""
    from gammavae_jax.data.audio.listing import (
        ELSEWHERE,
        is_hidden,
        left_out_lines,
        require_listing,
    )

    listing = require_listing(root)
    beside = dict.fromkeys(listing.recordings, ELSEWHERE) | listing.left_out
    beside = {name: reason for name, reason in beside.items() if "/" not in name}
    for line in left_out_lines(root, beside):
        print(line, file=sys.stderr)
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    return [path for path in folders if not is_hidden(path.name)]


def _normal_folder(machine: Path) -> Path:
    """Return a folder's subfolder `normal` or `train`, or else the folder itself.

    Raises:
        InputError: there are several such subfolders, for example `normal` and
            `Normal`.
    """
    folders = sorted(path for path in machine.iterdir() if path.is_dir())
    for name in ("normal", "train"):
        named = [path for path in folders if path.name.lower() == name]
        if named[1:]:
            names = " and ".join(path.name for path in named)
            raise InputError(
                f"{printable(machine)} has the folders {names}: merge them"
            )
        if named:
            return named[0]
    return machine
