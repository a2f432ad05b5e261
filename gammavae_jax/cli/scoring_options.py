"""The options of the commands that score recordings once."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gammavae_jax.cli.shared import (
    RateOfAlarms,
    models_in_checkpoint,
    prepare,
    set_rate,
)
from gammavae_jax.errors import InputError, printable

if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """Options shared by the commands that score recordings once."""

    machine: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Machine that was recorded; required if the detector has several machines."""
    false_alarm_rate: RateOfAlarms = None
    """Use the thresholds for this false-alarm rate. Default: the detector's rate."""
    skip_bad_files: bool = False
    """Report and skip recordings that cannot be used."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results as JSON. With '-', the JSON goes to standard output, and the
    table to standard error."""

    def load(self, detector: Path, report: Path | None) -> "AnomalyDetector":
        """Load a detector and apply these options to it.

        Raises:
            InputError: the detector cannot be used, or the folder of the page `report`
                does not exist.
        """
        if report is not None and not report.parent.is_dir():
            problem = f"{printable(report.parent)} is not a folder"
            remedy = "create it, or choose another path for --report"
            raise InputError(f"{problem}: {remedy}")
        prepare(models_in_checkpoint(detector))

        from gammavae_jax.anomaly_detector import AnomalyDetector

        loaded = AnomalyDetector.load(detector)
        if self.false_alarm_rate is not None:
            set_rate(loaded, self.false_alarm_rate)
        loaded.skip_bad_files = self.skip_bad_files
        return loaded
