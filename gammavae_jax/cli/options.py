"""Options that several commands share; this module imports neither NumPy nor JAX."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gammavae_jax.cli.shared import models_in_checkpoint, prepare, set_rate
from gammavae_jax.errors import InputError, printable

if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector
    from gammavae_jax.data.loading import Source
    from gammavae_jax.live.alarms import LiveAlarms
    from gammavae_jax.live.scorer import LiveScorer

RateOfAlarms = Annotated[float | None, tyro.conf.arg(metavar="RATE")]
_Number = Annotated[float | None, tyro.conf.arg(metavar="N")]
# Both `--set a=1 b=2` and `--set a=1 --set b=2` are accepted.
Settings = Annotated[
    tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]],
    tyro.conf.arg(metavar="FIELD=VALUE ..."),
]


def flat(settings: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Return the values of all `--set` options, in order."""
    return tuple(value for values in settings for value in values)


def require_between_0_and(
    most: str, options: Any, *fields: str, unit: str = ""
) -> None:
    """Raise an InputError unless an option is above 0 and below `most`."""
    for field in fields:
        value = getattr(options, field)
        if value is not None and not 0 < value < float(most):
            limits = f"above 0{unit} and below {most}{unit}"
            name = field.replace("_", "-")
            raise InputError(f"--{name} is {value:g}{unit}: it must be {limits}")


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of the commands that read recordings and write a run folder."""

    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that contains machine folders (fan/train, fan/test) or their zip archives,
    directly or in raw/. Default: a small synthetic set, generated on first use."""
    year: Annotated[int | None, tyro.conf.arg(metavar="YYYY")] = None
    """Challenge year whose metrics are used. Default: 2020 or 2021 if folders and files
    are named as in that year, otherwise the metrics used since 2022."""
    feature_cache: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder in which log-mels are cached for later runs. Several runs may share it. If
    recordings or settings have changed, the log-mels are recomputed."""
    overwrite: bool = False
    """Replace the contents of --out."""
    skip_bad_files: bool = False
    """Report and skip recordings that cannot be used."""

    def source(self, data_root: Path, machines: tuple[str, ...]) -> "Source":
        """Return the source of these machines' recordings."""
        from gammavae_jax.data.loading import Source

        cache, skip = self.feature_cache, self.skip_bad_files
        return Source(data_root, machines, skip_bad_files=skip, cache=cache)


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """Options of the commands that score given recordings."""

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
            raise InputError(
                f"{printable(report.parent)} is not a folder: create it, or choose "
                "another path for --report"
            )
        prepare(models_in_checkpoint(detector))

        from gammavae_jax.anomaly_detector import AnomalyDetector

        loaded = AnomalyDetector.load(detector)
        if self.false_alarm_rate is not None:
            set_rate(loaded, self.false_alarm_rate)
        loaded.skip_bad_files = self.skip_bad_files
        return loaded


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """Options of the commands that score recordings as they arrive."""

    detector: Path
    """A detector written by `gammavae fit`, or the folder `checkpoint` of a run."""
    false_alarm_rate: RateOfAlarms = None
    """Use the thresholds for this false-alarm rate. Default: the detector's rate."""
    false_alarms_per_day: _Number = None
    """Raise alarms by a rule over several segments that causes at most this many false
    alarms per machine and day. It is chosen from the training recordings and printed.
    Default: each recording above its threshold is an alarm."""
    recordings_per_day: _Number = None
    """Number of recordings that arrive per machine and day. Default: as many as can be
    recorded without a pause."""
    alarm_after: Annotated[str | None, tyro.conf.arg(metavar="K/N")] = None
    """Raise an alarm if K of the last N segments are above the threshold, such as 5/6.
    """
    hold: Annotated[float | None, tyro.conf.arg(metavar="MINUTES")] = None
    """After an alarm, hold back further alarms for this time. One that is still active
    when this time ends is reported then."""

    @property
    def has_policy(self) -> bool:
        """Whether alarms are raised by a rule over several segments."""
        return self.false_alarms_per_day is not None or self.alarm_after is not None

    def check_alarm_options(self) -> None:
        """Raise an InputError if an alarm option is wrong or contradicts another."""
        if self.false_alarms_per_day is not None and self.alarm_after is not None:
            raise InputError(
                "--false-alarms-per-day and --alarm-after both set the rule: use only "
                "one of them"
            )
        for option in ("recordings_per_day", "hold"):
            if getattr(self, option) is not None and not self.has_policy:
                name = option.replace("_", "-")
                remedy = "add --false-alarms-per-day or --alarm-after"
                raise InputError(f"--{name} has no effect without a rule: {remedy}")
        numbers = ("false_alarms_per_day", "recordings_per_day", "hold")
        require_between_0_and("1e9", self, *numbers)
        self._after()

    def _after(self) -> tuple[int, int] | None:
        """Return the two numbers of --alarm-after."""
        if self.alarm_after is None:
            return None
        from gammavae_jax.scoring.alarm_policy import MOST_SEGMENTS

        found = re.fullmatch(r"([0-9]{1,2})/([0-9]{1,2})", self.alarm_after)
        if found and 1 <= int(found[1]) <= int(found[2]) <= MOST_SEGMENTS:
            return int(found[1]), int(found[2])
        raise InputError(
            f"--alarm-after is {printable(self.alarm_after)}: use two numbers up to "
            f"{MOST_SEGMENTS} such as 5/6, for 5 of 6 segments"
        )

    def alarms(
        self,
        scorer: "LiveScorer",
        say: Callable[[str], None],
        path: Path | None = None,
    ) -> "LiveAlarms | None":
        """Return the alarms of all machines and describe each machine's rule.

        `say` receives the descriptions. If `path` is given, this file keeps the alarms'
        state until the next start. Return None if each recording above its threshold is
        an alarm.
        """
        if not self.has_policy:
            return None
        from gammavae_jax.live.alarms import LiveAlarms
        from gammavae_jax.live.watch_state import AlarmMemory
        from gammavae_jax.scoring.alarm_plan import AlarmRequest

        rates = self.false_alarms_per_day, self.recordings_per_day
        request = AlarmRequest(*rates, self._after(), 60 * (self.hold or 0.0))
        policies = scorer.alarm_policies(request)
        for machine, policy in policies.items():
            say(f"{printable(machine)}: {policy.description}")
        memory = path and AlarmMemory(path, policies)
        for note in memory.notes if memory else ():
            say(note)
        return LiveAlarms(policies, memory)
