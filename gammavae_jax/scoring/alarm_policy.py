"""Raises alarms for a machine, based on the sequence of its recordings' segments.

A segment is about six clips of a recording (see `decision`). It *counts* if its p-value
is at most the policy's level. An alarm is raised when at least `k` of the last `n`
segments count and ends when at most `k / 2` count, so that it does not flicker.
During the hold time after an alarm, further alarms are marked as held. If a held alarm
is still active when the hold time ends, it is reported, and a new hold time begins.

All recordings of a machine form one sequence. A gap between two recordings changes
nothing, and a recording in which the machine never runs adds no segment. `watch`,
`serve` and the Python interface all use this module, so their results are identical.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gammavae_jax.errors import InputError
from gammavae_jax.scoring.verdict import Segment, Verdict

MOST_SEGMENTS = 12  # the largest `n` of a policy
_ROUNDING = 1e-9  # tolerance for rounding errors of p-values
_LEAST = 0.001  # the smallest number of false alarms per day that is shown
_UNITS = (86400, "days"), (3600, "hours"), (60, "minutes"), (1, "s")


class Moment(NamedTuple):
    """A time within a recording."""

    recording: str
    seconds: float  # from its beginning


class Alarm(NamedTuple):
    """An alarm for one machine."""

    start: Moment  # the beginning of the first segment that counts
    raised: Moment  # the end of the segment that raised the alarm
    end: Moment | None = None  # the end of the last segment; None while it is active
    is_held: bool = False  # whether an earlier alarm's hold time has not ended

    def entry(self) -> dict[str, Any]:
        """Return the alarm as a JSON object."""
        moments = {"start": self.start, "raised": self.raised, "end": self.end}
        made = {name: at and at._asdict() for name, at in moments.items()}
        return {**made, "is_held": self.is_held}


class Expected(NamedTuple):
    """The expected false alarms and delays of a policy; see `alarm_plan`."""

    false_alarms_per_day: float  # at most
    upper_limit: float  # false alarms per day, with 95 % probability
    segment_seconds: float
    segments_per_day: float
    delay_of_half: float  # s; for a benchmark fault (see `alarm_plan`)
    delay_of_all: float  # s; for a fault in which every segment counts
    n_recordings: float  # independent training recordings
    correlation: float  # of neighbouring segments, plus one standard error


class AlarmState(NamedTuple):
    """A policy's memory of a machine's recordings so far."""

    # Whether each of the last `n` segments counts, and when it began.
    window: tuple[tuple[bool, Moment], ...] = ()
    alarm: Alarm | None = None  # the active alarm
    clock: float = 0.0  # s; the total length of the recordings so far
    hold_ends: float = -math.inf  # s, on the same clock


@dataclass(frozen=True)
class AlarmPolicy:
    """A rule that raises an alarm when `k` of the last `n` segments count.

    Attributes:
        level: the highest p-value with which a segment counts.
        k: the number of segments that must count.
        n: the number of most recent segments that are considered.
        hold_seconds: how long further alarms are held back after an alarm, measured
            along the recordings, not by the wall clock.
        recording_seconds: the time from the start of one recording to the start of the
            next, if recordings are shorter than that.
        most_segments: the largest number of segments in a recording, if the policy was
            planned for a number of recordings per day; None: no limit.
        expected: the expected false alarms and delays, if known.

    Raises:
        InputError: a value is out of range.
    """

    level: float
    k: int
    n: int
    hold_seconds: float = 0.0
    recording_seconds: float = 0.0
    most_segments: int | None = None
    expected: Expected | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n <= MOST_SEGMENTS:
            problem = f"an alarm after {self.k} of {self.n} segments is impossible"
            remedy = f"use whole numbers of at most {MOST_SEGMENTS}, such as 5 of 6"
            raise InputError(f"{problem}: {remedy}")
        if not 0 < self.level < 1:
            raise InputError(f"the level is {self.level:g}: it must be between 0 and 1")
        if not 0 <= self.hold_seconds < math.inf:
            problem = f"the hold time is {self.hold_seconds:g} s"
            raise InputError(f"{problem}: it must be 0 or more")

    def counts(self, segment: Segment) -> bool:
        """Return whether a segment counts."""
        return segment.p_value <= self.level + _ROUNDING

    def step(
        self, state: AlarmState, segment: Segment, recording: str
    ) -> tuple[AlarmState, Alarm | None]:
        """Process the next segment of a recording.

        Returns:
            The new alarm state, and any alarm that the segment raised, ended or
            released from its hold.
        """
        counted = self.counts(segment), Moment(recording, segment.start)
        window = (*state.window, counted)[-self.n :]
        n_counted = sum(counts for counts, _ in window)
        state, here = state._replace(window=window), Moment(recording, segment.end)
        now = state.clock + segment.end
        is_held = now < state.hold_ends
        if state.alarm is not None:
            if n_counted <= self.k // 2:
                return state._replace(alarm=None), state.alarm._replace(end=here)
            if is_held or not state.alarm.is_held:
                return state, None
            alarm = state.alarm._replace(is_held=False)
        elif n_counted >= self.k:
            start = next(moment for counts, moment in window if counts)
            alarm = Alarm(start, here, is_held=is_held)
        else:
            return state, None
        ends = state.hold_ends if is_held else now + self.hold_seconds
        return state._replace(alarm=alarm, hold_ends=ends), alarm

    def follow(
        self, state: AlarmState, verdict: Verdict
    ) -> tuple[AlarmState, list[Alarm]]:
        """Process the next recording.

        Returns:
            The new alarm state and, in order, any alarms that the recording raised,
            ended or released from their hold.
        """
        events = []
        for segment in verdict.segments:
            state, event = self.step(state, segment, verdict.name)
            events += [] if event is None else [event]
        clock = state.clock + max(verdict.seconds, self.recording_seconds)
        return state._replace(clock=clock), events

    def alarms(self, verdicts: Iterable[Verdict]) -> list[Alarm]:
        """Return the alarms of a sequence of recordings, in order.

        Only the last alarm may still be active.
        """
        state, found = AlarmState(), []
        for verdict in verdicts:
            state, events = self.follow(state, verdict)
            found += [event for event in events if event.end is not None]
        return found + ([] if state.alarm is None else [state.alarm])

    @property
    def rule(self) -> str:
        """The rule in words, such as `5 of the last 6 segments have p <= 0.12`."""
        which = f"{self.k} of the last {self.n} segments have"
        if self.n == 1:
            which = "a segment has"
        elif self.k == self.n:
            which = f"{self.n} segments in a row have"
        return f"{which} p <= {self.level:.2g}"

    @property
    def description(self) -> str:
        """The rule, its false alarms and its delays, in a few sentences."""
        text = f"alarm if {self.rule}"
        if self.hold_seconds:
            text += f", then hold for {duration(self.hold_seconds)}"
        if self.expected is None:
            return f"{text}."
        of = self.expected
        most = rounded(max(of.false_alarms_per_day, _LEAST))
        return (
            f"{text} (segments of {duration(of.segment_seconds)}). Expect at most "
            f"{most} false alarms per day; given "
            f"{of.n_recordings:.3g} independent training recordings, the real number "
            f"is at most {_rounded(of.upper_limit)} with 95 % probability. A fault "
            "that raises half of its segments above the 10 % level is reported after "
            f"{duration(of.delay_of_half)} on average; if all its segments count, "
            f"after {duration(of.delay_of_all)}."
        )


def _rounded(rate: float) -> str:
    """Return a rate as text with two digits; below 0.001 it is "0"."""
    return rounded(rate) if rate >= _LEAST else "0"


def rounded(value: float, n_digits: int = 2) -> str:
    """Return a rounded number as text, without an exponent unless it is huge."""
    return f"{float(f'{value:.{n_digits}g}'):g}"


def duration(seconds: float) -> str:
    """Return a duration as text, such as `90 s`, `9 minutes` or `3.5 hours`."""
    size, unit = next(
        (size, unit) for size, unit in _UNITS if size == 1 or seconds >= 2 * size
    )
    return f"{rounded(seconds / size)} {unit}"
