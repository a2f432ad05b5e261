"""`gammavae check`: says whether a detector is good enough for a known fault."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gammavae_jax.cli.options import ScoringOptions
from gammavae_jax.cli.shared import new_table, table_console, write_json
from gammavae_jax.errors import InputError, names_text

if TYPE_CHECKING:
    from rich.table import Table

    from gammavae_jax.anomaly_detector import AnomalyDetector
    from gammavae_jax.data.audio.channels import Channels
    from gammavae_jax.evaluation.fault_check import FaultCheck
    from gammavae_jax.evaluation.intervals import Share
    from gammavae_jax.scoring.verdict import Verdict

_MOST_NAMES = 5


@dataclass(frozen=True)
class Check(ScoringOptions):
    """Check whether a detector detects a fault well enough, using recordings of it.

    The answer is one of four: the detector is good enough; there are too few recordings
    to decide (the answer says how many more are needed); the fault cannot be detected;
    or the fault can be detected, but the threshold is wrong.
    """

    detector: tyro.conf.Positional[Path]
    """A detector written by `gammavae fit`, or the folder `checkpoint` of a run."""
    normal: tyro.conf.Positional[Path]
    """Recordings of the healthy machine that were not used for training: a WAV or FLAC
    file, or a folder of them; subfolders are included."""
    faulty: tyro.conf.Positional[Path]
    """Recordings of the same machine with the fault: a file or a folder."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write a page with the answer, the ROC curve and the scores of all recordings."""

    def run(self) -> int:
        """Print the numbers, the answer, and what to do.

        Raises:
            InputError: a recording cannot be used, is in both folders or was used for
                training; a normal recording has the name of an anomaly; or the detector
                or an output is unusable.
        """
        from gammavae_jax.evaluation.fault_check import check_fault
        from gammavae_jax.evaluation.fault_check_text import advice, conclusion
        from gammavae_jax.report.check_page import write_check_page

        detector = self.load(self.detector, self.report)
        self._check_recordings(detector.detector_.config.features.channels)
        self._require_new(detector)
        normal, faulty = (
            detector.score_recordings(group, machine=self.machine)
            for group in (self.normal, self.faulty)
        )
        check = check_fault(normal, faulty, detector.false_alarm_rate)
        if self.json:
            write_json(self.json, _record(check))
        if self.report:
            write_check_page(self.report, check)
        console = table_console(stderr=self.json == Path("-"))
        console.print(_table(check))
        console.print(conclusion(check))
        for line in (*(f"- {text}" for text in advice(check)), *_named(check)):
            console.print(line)
        if self.report:
            console.print(f"written to {self.report}")
        return 0

    def _require_new(self, detector: "AnomalyDetector") -> None:
        """Raise an InputError if the detector was trained on a normal recording."""
        verbose, detector.verbose = detector.verbose, False  # messages come later
        known = detector.was_trained_on(self.normal, machine=self.machine)
        detector.verbose = verbose
        if known:
            names = names_text(known, _MOST_NAMES)
            raise InputError(
                f"the detector was trained on some of the normal recordings ({names}): "
                "pass other recordings, because these look more normal than new ones"
            )

    def _check_recordings(self, channels: "Channels") -> None:
        """Raise an InputError if a recording does not belong in its folder."""
        from gammavae_jax.data.names import require_normal_names
        from gammavae_jax.data.recordings.sources import (
            find_duplicates,
            find_recordings,
        )

        normal, faulty = map(find_recordings, (self.normal, self.faulty))
        require_normal_names(
            [(source.name, source.parts) for source in normal],
            "pass it with the faulty recordings, or rename it if it is normal",
            "recording",
            "it was passed as a recording of the healthy machine",
        )
        same = find_duplicates(normal, faulty, channels)
        if same:
            more = f" ({len(same)} recordings are in both)" if same[1:] else ""
            raise InputError(
                f"{same[0][0]} (normal) and {same[0][1]} (faulty) contain the same "
                f"sound: remove one of them{more}"
            )


def _table(check: "FaultCheck") -> "Table":
    """Build the table of the three numbers, with their intervals and limits."""
    from gammavae_jax.evaluation.fault_check import LEAST_AUC, LEAST_DETECTED
    from gammavae_jax.evaluation.fault_check_text import (
        auc_limits,
        counted,
        percent_limits,
    )

    detection, threshold = check.detection, check.threshold
    above = f"{threshold:.4g}" if threshold is not None else "a threshold by length"
    title = (
        f"{check.machine}: {len(check.normal)} normal and {len(check.faulty)} faulty "
        f"recordings, alarm above {above}"
    )
    table = new_table(("", "found", "share", "95 % interval", "needed"), (), title)
    for name, share, needed in (
        ("faults detected", detection.detected, f"at least {100 * LEAST_DETECTED:g} %"),
        (
            "false alarms",
            detection.false_alarms,
            f"at most {100 * detection.false_alarm_rate:g} %",
        ),
    ):
        limits = " to ".join(percent_limits(share))
        rate = f"{100 * share.rate:.0f} %"
        table.add_row(name, counted(share), rate, f"{limits} %", needed)
    area = detection.area
    limits = " to ".join(auc_limits(area))
    table.add_row("AUC", f"{area.value:.3f}", "", limits, f"at least {LEAST_AUC}")
    return table


def _named(check: "FaultCheck") -> list[str]:
    """Return lines that name the recordings that the detector gets wrong."""
    lines = []
    for what, wrong in (
        ("missed", [v for v in check.faulty if not v.is_anomaly]),
        ("false alarms", [v for v in check.normal if v.is_anomaly]),
        ("left out because of their states", check.left_out),
    ):
        if wrong:
            lines.append(f"{what}: {names_text([v.name for v in wrong], _MOST_NAMES)}")
    return lines


def _record(check: "FaultCheck") -> dict[str, Any]:
    """Convert the results to JSON types, with null for numbers that are not finite."""
    from gammavae_jax.config_json import with_none
    from gammavae_jax.evaluation.fault_check_text import advice, conclusion

    detection, more = check.detection, check.detection.more_recordings
    return with_none(
        {
            "machine": check.machine,
            "outcome": detection.outcome.value,
            "conclusion": conclusion(check),
            "advice": advice(check),
            "false_alarm_rate": detection.false_alarm_rate,
            "detected": _share_record(detection.detected),
            "false_alarms": _share_record(detection.false_alarms),
            "auc": {"value": detection.area.value, "interval": detection.area.interval},
            "more_recordings": more and {"normal": more[0], "faulty": more[1]},
            "left_out": [v.name for v in check.left_out],
            "recordings": [
                *(_verdict_record(v, "normal") for v in check.normal),
                *(_verdict_record(v, "faulty") for v in check.faulty),
            ],
        }
    )


def _share_record(share: "Share") -> dict[str, Any]:
    counts = {"count": share.count, "total": share.total}
    return {**counts, "rate": share.rate, "interval": share.interval}


def _verdict_record(verdict: "Verdict", condition: str) -> dict[str, Any]:
    names = ("name", "score", "p_value", "threshold")
    values = {name: getattr(verdict, name) for name in names}
    return {**values, "condition": condition, "is_anomaly": verdict.is_anomaly}
