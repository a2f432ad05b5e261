"""`gammavae learn`: adds normal recordings to a detector, as a new version."""

import copy
import itertools
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from gammavae_jax.cli.shared import (
    machines_in_checkpoint,
    models_in_checkpoint,
    new_table,
    prepare,
    table_console,
)
from gammavae_jax.errors import InputError, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gammavae_jax.anomaly_detector import AnomalyDetector
    from gammavae_jax.scoring.verdict import Verdict

_SUFFIX = ".detector"


@dataclass(frozen=True)
class Learn:
    """Write a new version of a detector that has learnt from more normal recordings.

    Normal recordings, such as those that raised false alarms, are added to those that
    scores are compared with, and the thresholds are recomputed. Nothing is retrained,
    so this takes seconds. The old version is not changed.
    """

    detector: tyro.conf.Positional[Path]
    """A detector written by `gammavae fit`."""
    recordings: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RECORDINGS ...")
    ]
    """Recordings of the healthy machine: WAV or FLAC files, or folders of them;
    subfolders are included."""
    machine: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Machine that was recorded; required if the detector has several machines."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DETECTOR")] = None
    """Folder to write the new version to. Default: beside the old one, with the next
    free number: pump.detector, pump-2.detector, pump-3.detector."""
    compare: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RECORDINGS ...")] = ()
    """Score these recordings with both versions and list the verdicts that changed."""
    skip_bad_files: bool = False
    """Report and skip recordings that cannot be used."""
    overwrite: bool = False
    """Replace an existing detector at --out."""

    def run(self) -> int:
        """Write the new version and print what changed.

        Raises:
            InputError: the detector or a recording cannot be used, there is nothing to
                learn, or the new version cannot be written.
        """
        if self.out is not None:
            self._require_new(self.out)
        prepare(models_in_checkpoint(self.detector))

        from gammavae_jax.anomaly_detector import AnomalyDetector
        from gammavae_jax.data.recordings.sources import of_known_machines
        from gammavae_jax.runs.detector_folder import require_place

        new = AnomalyDetector.load(self.detector)
        out = self.out or next_version(self.detector, new.machines_)
        _warn_of_newer_versions(self.detector, out, new.machines_)
        require_place(out)  # fail now instead of after learning
        old, skips = copy.copy(new), new.skip_bad_files
        old.verbose = False  # messages on recordings are shown once
        old.skip_bad_files = new.skip_bad_files = self.skip_bad_files
        recordings, compared = (
            of_known_machines(list(paths), self.machine, new.machines_)
            for paths in (self.recordings, self.compare)
        )
        new.partial_fit(recordings)
        (machine,), learnt = recordings, new.learnt_
        known = {verdict.name for verdict in learnt}
        # Recordings that are given twice are learnt once.
        verdicts = {v.name: v for v in old.score_recordings(recordings)}
        before = [verdict for name, verdict in verdicts.items() if name in known]
        changes = None
        if self.compare:
            pair = (detector.score_recordings(compared) for detector in (old, new))
            changes = list(zip(*pair, strict=True))
        new.skip_bad_files = skips
        out = self._save(new, out)

        console = table_console()
        rows = _rows(old, machine, before), _rows(new, machine, learnt)
        console.print(
            _summary(f"{machine}: {_count(len(new.learnt_names_))} learnt", *rows)
        )
        if sum(v.n_clips for v in before) != sum(v.n_clips for v in learnt):
            console.print(
                "alarms: before, on whole recordings; after, only on the clips learnt"
            )
        if changes is not None:
            _print_changes(console, changes)
        path = shlex.quote(str(out))
        console.print(f"written to {out}; next: gammavae score {path} RECORDINGS")
        return 0

    def _save(self, new: "AnomalyDetector", out: Path) -> Path:
        """Save the new version and return its path.

        If another process has written to `out` meanwhile, the path has the next free
        version number.
        """
        while True:
            try:
                new.save(out, overwrite=self.overwrite and self.out is not None)
                return out
            except InputError:
                if self.out is not None or not out.exists():
                    raise
                out = next_version(self.detector, new.machines_)

    def _require_new(self, out: Path) -> None:
        """Reject the old version as `out`, or an existing path without --overwrite."""
        if out.exists() and self.detector.exists() and out.samefile(self.detector):
            raise InputError(
                f"{printable(out)} is the old version, which is never changed: choose "
                "another path for --out"
            )
        if out.exists() and not self.overwrite:
            raise InputError(
                f"{printable(out)} exists: add --overwrite, or choose another path for "
                "--out"
            )


def next_version(detector: Path, machines: Sequence[str]) -> Path:
    """Return a path beside a detector, with the next free version number.

    A number that belongs to a machine's name, as in line-7.detector, is not a version.
    """
    version = _Version.of(detector, machines)
    paths = map(version.path_of, itertools.count(version.number + 1))
    return next(path for path in paths if not path.exists() and not path.is_symlink())


class _Version(NamedTuple):
    """The parts of a version's path, such as those of pump-2.detector."""

    folder: Path
    base: str
    number: int
    suffix: str

    @classmethod
    def of(cls, detector: Path, machines: Sequence[str]) -> "_Version":
        path = detector if detector.name else Path(os.path.abspath(detector))
        name = path.name.removesuffix(_SUFFIX)
        suffix = path.name[len(name) :]
        numbered = None if name in machines else re.fullmatch(r"(.+)-([1-9]\d*)", name)
        base, number = (numbered[1], int(numbered[2])) if numbered else (name, 1)
        return cls(path.parent, base, number, suffix)

    def path_of(self, number: int) -> Path:
        return self.folder / f"{self.base}-{number}{self.suffix}"

    def newer(self) -> list[int]:
        """Return the numbers of all newer paths in the folder, in increasing order."""
        form = re.escape(self.base) + r"-([1-9]\d*)" + re.escape(self.suffix)
        names = (re.fullmatch(form, path.name) for path in self.folder.iterdir())
        numbers = (int(name[1]) for name in names if name)
        return sorted(number for number in numbers if number > self.number)


def _warn_of_newer_versions(detector: Path, out: Path, machines: Sequence[str]) -> None:
    """Warn if a detector has newer versions, unless `out` replaces one of them."""
    version, known = _Version.of(detector, machines), machines_in_checkpoint(detector)
    paths = map(version.path_of, version.newer())
    newer = [path for path in paths if machines_in_checkpoint(path) == known]
    if newer and out not in newer:
        print(
            f"{printable(detector)} is not the newest version "
            f"({printable(newer[-1])} is). The new version will contain only what "
            f"{printable(detector)} has learnt, plus these recordings",
            file=sys.stderr,
        )


def _rows(
    detector: "AnomalyDetector", machine: str, learnt: "Sequence[Verdict]"
) -> dict[str, str]:
    """Describe one version: what its threshold is based on, and its alarms."""
    from gammavae_jax.scoring.sample_size import sensitivities

    fitted = detector.detector_
    rate = fitted.config.scoring.false_alarm_rate
    (of_rate,) = sensitivities(fitted, [rate])[machine]
    n_alarms = sum(verdict.is_anomaly for verdict in learnt)
    return {
        "alarm above": f"{of_rate.threshold:.4g}",
        "clips": f"{of_rate.n_clips}",
        "independent recordings": f"{of_rate.n_recordings:.3g}",
        "alarms among the recordings learnt": f"{n_alarms} of {len(learnt)}",
    }


def _summary(title: str, before: dict[str, str], after: dict[str, str]) -> "Table":
    """Build the table that describes both versions."""
    table = new_table(("", "before", "after"), ("before", "after"), title)
    for name, value in before.items():
        table.add_row(name, value, after[name])
    return table


def _print_changes(
    console: "Console", pairs: "Sequence[tuple[Verdict, Verdict]]"
) -> None:
    """Print the verdicts that changed, and how many did not change."""
    texts = [(old.name, _verdict(old), _verdict(new)) for old, new in pairs]
    changed = [text for text in texts if text[1] != text[2]]
    if changed:
        table = new_table(("recording", "before", "after"), ())
        for text in changed:
            table.add_row(*text)
        console.print(table)
    n_same = len(texts) - len(changed)
    console.print(f"compared: {len(changed)} verdicts changed, {n_same} did not")


def _verdict(verdict: "Verdict") -> str:
    if not verdict.is_running:
        return verdict.state
    return "ALARM" if verdict.is_anomaly else "no alarm"


def _count(n: int) -> str:
    return "1 recording" if n == 1 else f"{n} recordings"
