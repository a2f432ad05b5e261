"""`gammavae fit`: a detector from a folder of normal recordings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Fit:
    """Learn what a machine sounds like in health, from normal recordings."""

    recordings: tyro.conf.Positional[tuple[Path, ...]]
    """WAV or FLAC files, and folders of them with their subfolders."""
    out: Annotated[Path, tyro.conf.arg(metavar="DETECTOR")]
    """Folder that the detector is written to, such as pump.detector."""
    by_folder: bool = False
    """Each subfolder of the one folder given is a machine of its own."""
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
    overwrite: bool = False
    """Replace the detector that is there."""

    def run(self) -> int:
        """Train and write the detector; say its thresholds and what is next.

        Raises:
            InputError: recordings, settings or a folder that cannot be used.
        """
        from gammavae_jax.errors import InputError, printable
        from gammavae_jax.runtime import (
            give_cores_to_runs,
            keep_compiled_programs,
            limit_blas_threads,
        )

        if self.out.exists() and not self.overwrite:
            raise InputError(
                f"{printable(self.out)} exists: say --overwrite, or give another --out"
            )
        limit_blas_threads()
        given = self._given()
        give_cores_to_runs(2)  # folds, at least
        keep_compiled_programs()

        from gammavae_jax.anomaly_detector import AnomalyDetector

        detector = AnomalyDetector(
            preset=self.preset,
            epochs=self.epochs,
            seed=self.seed,
            false_alarm_rate=self.false_alarm_rate,
            clip_seconds=self.clip_seconds,
            settings=self.set,
        ).fit(given)
        detector.save(self.out)
        for machine, threshold in detector.threshold_.items():
            print(f"{machine}: alarm above {threshold:.4g}")
        print(f"written to {self.out}; next: gammavae score {self.out} RECORDINGS")
        return 0

    def _given(self) -> list[Path] | dict[str, Path]:
        """The recordings, by machine if asked for."""
        from gammavae_jax.errors import InputError, printable

        if not self.by_folder:
            return list(self.recordings)
        if len(self.recordings) != 1 or not self.recordings[0].is_dir():
            raise InputError("--by-folder takes one folder of folders: give that alone")
        (root,) = self.recordings
        machines = {p.name: p for p in sorted(root.iterdir()) if p.is_dir()}
        if not machines:
            raise InputError(
                f"{printable(root)} holds no folders: leave out --by-folder"
            )
        return machines
