"""The options of the commands that score recordings as they arrive."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gammavae_jax.cli.shared import RateOfAlarms
from gammavae_jax.errors import InputError, printable

if TYPE_CHECKING:
    from gammavae_jax.live.alarms import LiveAlarms
    from gammavae_jax.live.scorer import LiveScorer

_Number = Annotated[float | None, tyro.conf.arg(metavar="N")]


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """Options shared by the commands that score recordings as they arrive."""

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
    """After an alarm, hold back further ones for this time. One that is still active
    when it ends is reported then."""

    @property
    def has_policy(self) -> bool:
        """Whether alarms are raised by a rule over several segments."""
        return self.false_alarms_per_day is not None or self.alarm_after is not None

    def check_alarm_options(self) -> None:
        """Raise an InputError if the options of alarms are wrong or contradict."""
        if self.false_alarms_per_day is not None and self.alarm_after is not None:
            problem = "--false-alarms-per-day and --alarm-after both set the rule"
            raise InputError(f"{problem}: use only one of them")
        for option in ("recordings_per_day", "hold"):
            if getattr(self, option) is not None and not self.has_policy:
                name = option.replace("_", "-")
                remedy = "add --false-alarms-per-day or --alarm-after"
                raise InputError(f"--{name} has no effect without a rule: {remedy}")
        for option in ("false_alarms_per_day", "recordings_per_day", "hold"):
            value = getattr(self, option)
            if value is not None and not 0 < value < 1e9:
                name = option.replace("_", "-")
                problem = f"--{name} is {value:g}"
                raise InputError(f"{problem}: it must be above 0 and below 1e9")
        self._after()

    def _after(self) -> tuple[int, int] | None:
        """Return the two numbers of --alarm-after."""
        if self.alarm_after is None:
            return None
        from gammavae_jax.scoring.alarm_policy import MOST_SEGMENTS

        found = re.fullmatch(r"([0-9]{1,2})/([0-9]{1,2})", self.alarm_after)
        if found and 1 <= int(found[1]) <= int(found[2]) <= MOST_SEGMENTS:
            return int(found[1]), int(found[2])
        problem = f"--alarm-after is {printable(self.alarm_after)}"
        numbers = f"two numbers up to {MOST_SEGMENTS} such as 5/6"
        example = f"use {numbers}, for 5 of 6 segments"
        raise InputError(f"{problem}: {example}")

    def alarms(
        self,
        scorer: "LiveScorer",
        say: Callable[[str], None],
        path: Path | None = None,
    ) -> "LiveAlarms | None":
        """Return the alarms of all machines, and describe each rule in a line.

        Args:
            scorer: knows the machines.
            say: prints a line.
            path: the file that keeps the alarms for the next start; None: no file.

        Returns:
            None if each recording above its threshold is an alarm.
        """
        if not self.has_policy:
            return None
        from gammavae_jax.live.alarm_memory import AlarmMemory
        from gammavae_jax.live.alarms import LiveAlarms
        from gammavae_jax.scoring.alarm_plan import AlarmRequest

        policies = scorer.alarm_policies(
            AlarmRequest(
                self.false_alarms_per_day,
                self.recordings_per_day,
                self._after(),
                60 * (self.hold or 0.0),
            )
        )
        for machine, policy in policies.items():
            say(f"{printable(machine)}: {policy.description}")
        memory = path and AlarmMemory(path, policies)
        for note in memory.notes if memory else ():
            say(note)
        return LiveAlarms(policies, memory)
