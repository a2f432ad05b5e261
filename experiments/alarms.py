"""Measure false alarms per day, and the delay until a fault raises an alarm.

For each machine, the default detector is fitted to the training clips of the source
domain. Days are simulated by drawing normal test clips of this domain at random, with
replacement. The clips either arrive one by one or form recordings of an hour. Real
neighbours resemble each other more than such clips.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.machines import LABELS, Recordings, chosen, fitted
from gammavae_jax.anomaly_detector import AnomalyDetector
from gammavae_jax.cli.help import MARKERS, RULES
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.data.machines import MachineFiles
from gammavae_jax.errors import InputError
from gammavae_jax.process import limit_blas_threads
from gammavae_jax.scoring.alarm_policy import AlarmPolicy, AlarmState
from gammavae_jax.scoring.decision import DecisionRule
from gammavae_jax.scoring.verdict import Verdict

HOUR, DAY = 3600, 86400  # s


@dataclass(frozen=True)
class Alarms(Recordings):
    """Simulate days of healthy machines, and faults of an hour."""

    rates: Annotated[tuple[float, ...], tyro.conf.arg(metavar="R ...")] = (0.2, 1, 5)
    """Requested numbers of false alarms per day."""
    days: Annotated[int, tyro.conf.arg(metavar="N")] = 100
    """Simulated days."""
    faults: Annotated[int, tyro.conf.arg(metavar="N")] = 200
    """Simulated faults; each lasts an hour, and a healthy hour precedes it."""


def parse(arguments: Sequence[str] | None = None) -> Alarms:
    """Parse a command line and return its options."""
    return tyro.cli(Alarms, args=arguments, config=MARKERS, registry=RULES)


class Days(NamedTuple):
    """A machine's rule, and the verdicts on its normal and faulty test clips."""

    rule: DecisionRule
    clips: dict[str, list[Verdict]]  # by label
    seconds: float  # the length of a clip
    is_hour: bool  # whether a recording is an hour of clips instead of one clip

    def hour(self, label: str, start: float, rng: np.random.Generator) -> list[Verdict]:
        """Draw clips for an hour; each recording's name says when it starts."""
        known, n_clips = self.clips[label], round(HOUR / self.seconds)
        drawn = [known[index] for index in rng.integers(len(known), size=n_clips)]
        if self.is_hour:
            scores = [verdict.score for verdict in drawn]
            return [self.rule.judge(f"{start}", scores, [self.seconds] * n_clips)]
        times = start + self.seconds * np.arange(n_clips)
        pairs = zip(drawn, times.tolist(), strict=True)
        return [verdict._replace(name=f"{at}") for verdict, at in pairs]

    def false_alarms(self, policy: AlarmPolicy, n_days: int) -> float:
        """Return the number of alarms per day of a healthy machine."""
        rng, state, n_alarms = np.random.default_rng(0), AlarmState(), 0
        for _ in range(n_days * DAY // HOUR):
            for verdict in self.hour("normal", 0, rng):
                state, events = policy.follow(state, verdict)
                n_alarms += sum(event.end is None for event in events)
        return n_alarms / n_days

    def delays(self, policy: AlarmPolicy, n_faults: int) -> Iterator[float]:
        """Yield the delay, in s, from the start of each fault to its first alarm.

        A fault lasts an hour. If it raises no alarm, nothing is yielded for it.
        """
        rng = np.random.default_rng(1)
        for _ in range(n_faults):
            sequence = self.hour("normal", 0, rng) + self.hour("anomaly", HOUR, rng)
            raised = (alarm.raised for alarm in policy.alarms(sequence))
            times = [float(at.recording) + at.seconds - HOUR for at in raised]
            yield from [seconds for seconds in times if seconds > 0][:1]


def simulated(
    options: Alarms, detector: AnomalyDetector, files: MachineFiles
) -> Iterator[list[str]]:
    """Yield a row for single clips and for hours, and for each requested rate."""
    verdicts = {
        label: detector.score_recordings(chosen(files, "test", "source", label))
        for label in LABELS
    }
    rule = DecisionRule.of(detector.detector_, 0)
    seconds = verdicts["normal"][0].seconds
    for is_hour, layout in enumerate(("single clips", "hours")):
        days = Days(rule, verdicts, seconds, bool(is_hour))
        for rate in options.rates:
            row = [files.machine, layout, f"{rate:g}"]
            try:
                policy = detector.alarm_policy(rate)
            except InputError as error:
                yield [*row, f"refused: {error}"]
                continue
            assert policy.expected is not None
            limit = f"{policy.expected.upper_limit:.2g}"
            n_false = days.false_alarms(policy, options.days)
            delays = list(days.delays(policy, options.faults))
            found = f"{len(delays) / options.faults:.0%}"
            if delays:
                found += f" after {np.median(delays) / 60:.0f} min"
            yield [*row, policy.rule, limit, f"{n_false:.2g}", found]


def main() -> None:
    """Fit a detector to each machine and print the tables."""
    limit_blas_threads()
    options = parse()
    with readable_errors():
        print("machine | recordings | requested | rule | at most | simulated | found")
        for files in options.find():
            for row in simulated(options, fitted(files), files):
                print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
