"""`gammavae threshold`: shows what each false-alarm rate means and sets the rate."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gammavae_jax.cli.options import RateOfAlarms
from gammavae_jax.cli.shared import (
    models_in_checkpoint,
    new_table,
    prepare,
    set_rate,
    table_console,
    write_json,
)
from gammavae_jax.errors import InputError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from gammavae_jax.scoring.sample_size import Sensitivity

_RATES = (0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Threshold:
    """Show what each false-alarm rate means for a detector, or change its rate.

    Nothing is retrained: the thresholds come from the scores of the training clips,
    which the detector keeps.
    """

    detector: tyro.conf.Positional[Path]
    """A detector written by `gammavae fit`, or the folder `checkpoint` of a run."""
    false_alarm_rate: RateOfAlarms = None
    """Set this rate in the detector: the largest acceptable share of normal recordings
    that raise an alarm."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the table as JSON. With '-', the JSON goes to standard output, and the
    table to standard error."""

    def run(self) -> int:
        """Print a table for each machine; with --false-alarm-rate, save the detector.

        Raises:
            InputError: the detector is unreadable or its thresholds are not conformal,
                the rate is out of range, a run's detector would be changed, or --json
                names a file in a detector that is replaced.
        """
        self._check()
        prepare(models_in_checkpoint(self.detector))

        from gammavae_jax.anomaly_detector import AnomalyDetector
        from gammavae_jax.runs.detector_folder import is_estimator
        from gammavae_jax.scoring.sample_size import sensitivities

        rate = self.false_alarm_rate
        is_changed = rate is not None
        estimator = AnomalyDetector.load(self.detector)
        if is_changed and not is_estimator(self.detector):
            raise InputError(
                f"{printable(self.detector)} belongs to a run, and runs are never "
                "changed: pass --false-alarm-rate to score, watch, serve or export"
            )
        if rate is not None:
            set_rate(estimator, rate)
        detector = estimator.detector_
        current = detector.config.scoring.false_alarm_rate
        rates = sorted({*_RATES, current}, reverse=True)
        found = sensitivities(detector, rates)
        if is_changed:
            estimator.save(self.detector)
        if self.json:
            write_json(self.json, _records(found, current))
        console = table_console(stderr=self.json == Path("-"))
        for name, of_machine in found.items():
            console.print(_table(name, of_machine, current))
        path = shlex.quote(str(self.detector))
        if is_changed:
            console.print(f"written to {path}, which now uses {100 * current:g} %")
        elif is_estimator(self.detector):
            console.print(
                f"to change it: gammavae threshold {path} --false-alarm-rate RATE"
            )
        return 0

    def _check(self) -> None:
        """Raise an InputError if saving the detector would remove the JSON file."""
        written = self.json if self.json != Path("-") else None
        if written is None or self.false_alarm_rate is None:
            return
        if self.detector.resolve() in written.resolve().parents:
            raise InputError(
                f"{printable(written)} is inside the detector's folder, which is "
                "replaced: choose another path for --json"
            )


def _records(
    found: "dict[str, list[Sensitivity]]", current: float
) -> list[dict[str, Any]]:
    """Convert each machine's sensitivities to JSON types, one object for each rate."""
    from gammavae_jax.config_json import finite

    return [
        {
            "machine": name,
            "false_alarm_rate": of_rate.rate,
            "is_current": of_rate.rate == current,
            "threshold": finite(of_rate.threshold),
            "held_out_alarms": of_rate.n_alarms,
            "held_out_clips": of_rate.n_clips,
            "independent_recordings": of_rate.n_recordings,
            "is_supported": of_rate.is_supported,
            "probable_rate": list(of_rate.probable_rate),
        }
        for name, of_machine in found.items()
        for of_rate in of_machine
    ]


def _table(name: str, found: "Sequence[Sensitivity]", current: float) -> "Table":
    """Build the table of one machine, with a row for each rate."""
    from gammavae_jax.scoring.sample_size import clips_needed

    n_clips, n_recordings = found[0].n_clips, found[0].n_recordings
    title = f"{name}: {n_clips} held-out clips"
    if n_recordings < n_clips:
        title += f", {n_recordings:.3g} independent recordings"
    numbers = ("rate", "alarm above", "held-out alarms", "real rate (95 %)")
    table = new_table((*numbers, ""), numbers, title)
    for of_rate in found:
        low, high = (100 * limit for limit in of_rate.probable_rate)
        probable = f"{low:.1f} to {high:.0f} %"
        if not of_rate.is_supported:
            needed = clips_needed(of_rate.rate)
            probable = f"needs {needed} recordings (has {n_recordings:.3g})"
        table.add_row(
            f"{100 * of_rate.rate:g} %",
            f"{of_rate.threshold:.4g}",
            f"{of_rate.n_alarms} of {n_clips}",
            probable,
            "current" if of_rate.rate == current else "",
        )
    return table
