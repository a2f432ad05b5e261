"""Defines the verdict on a recording; `decision` derives it from the clips' scores."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.config_json import with_none
from gammavae_jax.data.states import State


class Stretch(NamedTuple):
    """A stretch of consecutive clips whose scores are all above the threshold."""

    start: float  # s
    end: float  # s
    score: float  # the highest


class Segment(NamedTuple):
    """A segment of a recording: about six clips in which the machine is running."""

    start: float  # s
    end: float  # s
    score: float  # the mean of its clips' scores
    p_value: float  # among held-out segments of this length; NaN if unknown


class Verdict(NamedTuple):
    """The score of a recording, and whether it raises an alarm."""

    name: str
    machine: str
    score: float  # higher is more anomalous
    p_value: float  # see `threshold.p_values`; NaN if unknown
    threshold: float  # for recordings of this length
    seconds: float = 0.0
    n_clips: int = 1
    n_alarms: int = 0  # clips above the threshold of a single clip
    stretches: tuple[Stretch, ...] = ()  # of clips above that threshold
    n_recordings: float = 0.0  # independent recordings behind the p-value
    states: Mapping[str, int] = MappingProxyType({})  # the number of clips per state
    segments: tuple[Segment, ...] = ()  # empty unless the machine is running

    @property
    def state(self) -> State:
        """The machine's state: running if it ever runs, or else the most common one."""
        if not self.states or State.RUNNING in self.states:
            return State.RUNNING
        return State(max(self.states, key=lambda state: self.states[state]))

    @property
    def is_running(self) -> bool:
        """Whether the machine is running; otherwise, the score has no meaning."""
        return self.state == State.RUNNING

    @property
    def clips_text(self) -> str:
        """The number of clips above the single-clip threshold, as text.

        Clips that are not judged are added, as in `2 of 9 (not judged: 1 off)`.
        """
        n_judged = self.states.get(State.RUNNING, 0) if self.states else self.n_clips
        others = [f"{n} {s}" for s, n in self.states.items() if s != State.RUNNING]
        not_judged = f" (not judged: {', '.join(others)})" if others else ""
        return f"{self.n_alarms} of {n_judged}{not_judged}"

    @property
    def is_anomaly(self) -> bool:
        """Whether the machine is running and the score is above the threshold."""
        return self.is_running and self.score > self.threshold

    @property
    def margin(self) -> float:
        """The score minus the threshold; at most 0 if the machine is not running.

        It is positive if and only if the recording raises an alarm.
        """
        margin = self.score - self.threshold
        return margin if self.is_running else min(margin, 0.0)

    @property
    def p_text(self) -> str:
        """The p-value as text, with `<=` if it is the smallest possible one.

        With `n` independent training recordings, no p-value is below `1 / (n + 1)`.
        """
        if math.isnan(self.p_value):
            return "-"
        is_least = self.p_value * (self.n_recordings + 1) < 1 + 1e-6
        return f"{'<= ' if is_least else ''}{self.p_value:.2g}"

    def entry(self) -> dict[str, Any]:
        """Return the verdict as a JSON object, without its segments.

        Numbers that are not finite are None.
        """
        entry = self._asdict()
        del entry["segments"]
        stretches = [stretch._asdict() for stretch in self.stretches]
        made = {"is_anomaly": self.is_anomaly, "state": self.state}
        return with_none({**entry, "stretches": stretches, **made})


def stretches_of(
    scores: Float[np.ndarray, "clip"],
    is_above: Bool[np.ndarray, "clip"],
    seconds: Sequence[float] | Float[np.ndarray, "clip"],
) -> tuple[Stretch, ...]:
    """Return the stretches of consecutive clips that are above the threshold."""
    ends = np.cumsum(seconds)
    found: list[Stretch] = []
    for clip in np.flatnonzero(is_above):
        start = float(ends[clip - 1]) if clip else 0.0
        stretch = Stretch(start, float(ends[clip]), float(scores[clip]))
        if found and found[-1].end == start:
            before = found.pop()
            highest = max(before.score, stretch.score)
            stretch = Stretch(before.start, stretch.end, highest)
        found.append(stretch)
    return tuple(found)
