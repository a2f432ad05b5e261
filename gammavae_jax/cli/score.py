"""`gammavae score`: scores new recordings with a detector."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gammavae_jax.cli.options import ScoringOptions
from gammavae_jax.cli.shared import (
    new_table,
    table_console,
    write_json,
)

if TYPE_CHECKING:
    from gammavae_jax.scoring.verdict import Verdict


@dataclass(frozen=True)
class Score(ScoringOptions):
    """Score recordings with a detector; higher scores are more anomalous."""

    detector: tyro.conf.Positional[Path]
    """A detector written by `gammavae fit`, or the folder `checkpoint` of a run."""
    recordings: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RECORDINGS ...")
    ]
    """WAV or FLAC files, or folders of them; subfolders are included."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write a page that explains the scores with spectrograms, residuals and sounds."""

    def run(self) -> int:
        """Print a table with the most anomalous recordings first."""
        detector = self.load(self.detector, self.report)
        recordings = list(self.recordings)
        if self.report:
            scored = detector.report(recordings, self.report, machine=self.machine)
        else:
            scored = detector.score_recordings(recordings, machine=self.machine)
        if self.json:
            write_json(self.json, [recording.entry() for recording in scored])
        console = table_console(stderr=self.json == Path("-"))
        console.print(_table(scored))
        judged = [recording for recording in scored if recording.is_running]
        n_alarms = sum(recording.is_anomaly for recording in judged)
        rate = 100 * detector.false_alarm_rate
        alarms = f"alarms: {n_alarms} of {len(judged)}"
        console.print(f"{alarms} (with a false-alarm rate of {rate:g} %)")
        if others := Counter(r.state for r in scored if not r.is_running):
            counts = ", ".join(f"{state} ({n})" for state, n in others.items())
            console.print(f"not judged because of their states: {counts}")
        if self.report:
            console.print(f"written to {self.report}")
        return 0


def _table(scored: "Sequence[Verdict]") -> Any:
    """Return a table of all recordings, without uninformative columns."""
    has_machines = len({verdict.machine for verdict in scored}) > 1
    is_cut = any(verdict.n_clips > 1 for verdict in scored)
    numbers = ("score", "p-value", "alarm above")
    names = ("recording", *["machine"] * has_machines, *numbers)
    table = new_table((*names, *["clips above"] * is_cut, ""), numbers)
    for verdict in sorted(scored, key=lambda v: (not v.is_running, -v.score)):
        has_threshold = verdict.is_running and not math.isnan(verdict.threshold)
        state = "ALARM" if verdict.is_anomaly else ""
        table.add_row(
            verdict.name,
            *[verdict.machine] * has_machines,
            f"{verdict.score:.4g}" if verdict.is_running else "-",
            verdict.p_text if verdict.is_running else "-",
            f"{verdict.threshold:.4g}" if has_threshold else "-",
            *[verdict.clips_text if verdict.is_running else ""] * is_cut,
            state if verdict.is_running else verdict.state,
        )
    return table
