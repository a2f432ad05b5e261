"""`gammavae fit`: a detector from a folder of normal recordings."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Fit:
    """Learn what a machine sounds like in health, from normal recordings."""

    recordings: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RECORDINGS ...")
    ]
    """WAV or FLAC files, and folders of them with their subfolders."""
    out: Annotated[Path, tyro.conf.arg(metavar="DETECTOR")]
    """Folder that the detector is written to, such as pump.detector."""
    machine: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """What the machine is called; unless given, the name of --out without .detector."""
    by_folder: bool = False
    """Each subfolder of the one folder given is a machine of its own; where it has a
    folder normal or train, that alone is learnt from."""
    false_alarm_rate: Annotated[float, tyro.conf.arg(metavar="RATE")] = 0.1
    """Share of normal recordings that may be alarms."""
    clip_seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 10.0
    """Longer recordings are cut into clips of about this length."""
    preset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "default"
    """A named configuration."""
    epochs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """As the preset has them unless given, and more for few recordings."""
    seed: Annotated[int, tyro.conf.arg(metavar="S")] = 13711
    """Of everything random."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE ...")] = ()
    """Any field of the configuration, such as model.n_latent=16."""
    skip_bad_files: bool = False
    """Name and leave out recordings that cannot be used."""
    overwrite: bool = False
    """Replace the detector that is there."""

    def run(self) -> int:
        """Train and write the detector; say its thresholds and what is next.

        Raises:
            InputError: recordings, settings or a folder that cannot be used.
        """
        from gammavae_jax.errors import InputError, printable
        from gammavae_jax.process import prepare

        if self.out.exists() and not self.overwrite:
            raise InputError(
                f"{printable(self.out)} exists: say --overwrite, or give another --out"
            )
        given = self.given()
        prepare(2)  # folds, at least

        from gammavae_jax.runs.detector_folder import require_place

        require_place(self.out)  # before the training, not after it

        from gammavae_jax.anomaly_detector import AnomalyDetector

        detector = AnomalyDetector(
            preset=self.preset,
            epochs=self.epochs,
            seed=self.seed,
            false_alarm_rate=self.false_alarm_rate,
            clip_seconds=self.clip_seconds,
            settings=self.set,
            skip_bad_files=self.skip_bad_files,
        ).fit(given)
        detector.save(self.out)
        for machine, threshold in detector.threshold_.items():
            print(f"{machine}: alarm above {threshold:.4g}")
        out = shlex.quote(str(self.out))
        print(f"written to {self.out}; next: gammavae score {out} RECORDINGS")
        return 0

    def given(self) -> dict[str, list[Path]]:
        """The recordings, by machine.

        Raises:
            InputError: options that do not go together, or no folders.
        """
        from gammavae_jax.errors import InputError, printable

        if not self.by_folder:
            name = self.machine or self.out.name.removesuffix(".detector")
            return {name: list(self.recordings)}
        if self.machine is not None:
            raise InputError("--by-folder names machines itself: leave out --machine")
        if len(self.recordings) != 1 or not self.recordings[0].is_dir():
            raise InputError("--by-folder takes one folder of folders: give that alone")
        (root,) = self.recordings
        machines = {
            path.name: [_normal_ones(path)]
            for path in sorted(root.iterdir())
            if path.is_dir()
            and not path.name.startswith(".")
            and not (path / "detector.json").exists()
        }
        if not machines:
            raise InputError(
                f"{printable(root)} holds no folders: leave out --by-folder"
            )
        for name, (folder,) in machines.items():
            print(f"{printable(name)}: {printable(folder)}")
        return machines


def _normal_ones(machine: Path) -> Path:
    """Where a machine's folder keeps what may be learnt from."""
    found = [
        machine / name for name in ("normal", "train") if (machine / name).is_dir()
    ]
    return found[0] if found else machine
