"""Judges whether a detector detects a fault, using recordings of the faulty machine.

The rules compare limits with 95 % confidence intervals rather than with single values:

- The detector is *good enough* if the AUC is at least `LEAST_AUC`, at least
  `LEAST_DETECTED` of the faulty recordings raise an alarm, and the false alarms are
  compatible with the nominal rate.
- The fault is *not detectable* if the AUC is below `LEAST_AUC`.
- If too few faults are detected, or if there are more false alarms than the rate
  allows, the measured AUC shows why: if it is at least `LEAST_AUC`, the *threshold is
  wrong*; otherwise, the fault is not detectable.
- In all other cases there are *too few recordings*.

`LEAST_DETECTED` is one half: each recording of a fault is then more likely than not to
raise an alarm, and a fault that lasts is recorded many times. With a false-alarm rate
of 10 %, this requires an AUC of 0.82 if the scores of both groups are normally
distributed with equal variance; `LEAST_AUC` is 0.8, which is this value rounded.
"""

import enum
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.intervals import RocArea, Share, roc_area
from gammavae_jax.scoring.sample_size import clips_needed
from gammavae_jax.scoring.verdict import Verdict

LEAST_DETECTED = 0.5
LEAST_AUC = 0.8
# A higher multiple of the nominal rate is never called compatible with it, even if it
# may be due to chance.
MOST_FALSE_ALARMS = 2.0
MOST_RECORDINGS = 1000  # of each kind; few people could record more
_HIGHEST_RATE = 0.5  # higher false-alarm rates are not suggested


class Outcome(enum.StrEnum):
    """The conclusion on whether a detector detects a fault well enough."""

    GOOD_ENOUGH = "good enough"
    TOO_FEW = "too few recordings"
    NOT_DETECTABLE = "not detectable"
    WRONG_THRESHOLD = "wrong threshold"


class Question(enum.Enum):
    """A question that too few recordings may leave open."""

    AUC = enum.auto()  # whether it is at least `LEAST_AUC`
    DETECTED = enum.auto()  # whether at least `LEAST_DETECTED` of faults are detected
    FALSE_ALARMS = enum.auto()  # whether their high number is due to chance
    RATE = enum.auto()  # whether false alarms are as rare as the nominal rate


class Detection(NamedTuple):
    """The numbers by which a detector is judged."""

    detected: Share  # of the faulty recordings
    false_alarms: Share  # of the normal recordings
    area: RocArea
    false_alarm_rate: float  # nominal

    @property
    def has_false_alarms(self) -> bool:
        """Whether the false-alarm rate's whole interval is above the nominal rate."""
        return self.false_alarms.interval[0] > self.false_alarm_rate

    @property
    def misses_faults(self) -> bool:
        """Whether the detected share's whole interval is below `LEAST_DETECTED`."""
        return self.detected.interval[1] < LEAST_DETECTED

    @property
    def outcome(self) -> Outcome:
        """The answer, according to the rules of this module."""
        if self.area.interval[1] < LEAST_AUC:
            return Outcome.NOT_DETECTABLE
        if self.misses_faults or self.has_false_alarms:
            is_separated = self.area.value >= LEAST_AUC
            return Outcome.WRONG_THRESHOLD if is_separated else Outcome.NOT_DETECTABLE
        return Outcome.TOO_FEW if self.open_questions else Outcome.GOOD_ENOUGH

    @property
    def open_questions(self) -> list[Question]:
        """The questions to answer before the detector can be called good enough."""
        rate = self.false_alarm_rate
        is_open = {
            Question.AUC: self.area.interval[0] < LEAST_AUC,
            Question.DETECTED: self.detected.interval[0] < LEAST_DETECTED,
            Question.FALSE_ALARMS: self.false_alarms.rate > MOST_FALSE_ALARMS * rate,
            Question.RATE: self.false_alarms.total < clips_needed(rate),
        }
        return [question for question in Question if is_open[question]]

    @property
    def more_recordings(self) -> tuple[int, int] | None:
        """The numbers of additional normal and faulty recordings that a decision needs.

        The shares and the AUC are assumed to stay the same. None if more than
        `MOST_RECORDINGS` of either kind are needed.
        """
        n_normal, n_faulty = self.false_alarms.total, self.detected.total

        def is_decided(normal: int, faulty: int) -> bool:
            later = self.of_totals(normal, faulty)
            return later.outcome is not Outcome.TOO_FEW

        # First, find the smallest size that both groups need to reach.
        n = _first(
            range(1, MOST_RECORDINGS + 1),
            lambda n: is_decided(max(n, n_normal), max(n, n_faulty)),
        )
        if n > MOST_RECORDINGS:
            return None
        # One group may need fewer; reduce the faulty recordings first.
        normal, faulty = max(n, n_normal), max(n, n_faulty)
        faulty = _first(range(n_faulty, faulty), lambda n: is_decided(normal, n))
        normal = _first(range(n_normal, normal), lambda n: is_decided(n, faulty))
        return normal - n_normal, faulty - n_faulty

    def of_totals(self, n_normal: int, n_faulty: int) -> "Detection":
        """Return the same shares and AUC, but for different numbers of recordings."""
        return self._replace(
            detected=self.detected.of_total(n_faulty),
            false_alarms=self.false_alarms.of_total(n_normal),
            area=self.area.of_totals(n_normal, n_faulty),
        )


def _first(numbers: range, is_enough: Callable[[int], bool]) -> int:
    """Return the first number that is enough, or the range's end if none is."""
    return numbers.start + bisect_left(numbers, True, key=is_enough)


class FaultCheck(NamedTuple):
    """A detector's verdicts on recordings of a machine with and without a fault."""

    normal: tuple[Verdict, ...]
    faulty: tuple[Verdict, ...]
    left_out: tuple[Verdict, ...]  # because their state is not `State.RUNNING`
    detection: Detection

    @property
    def machine(self) -> str:
        """The name of the machine."""
        return self.normal[0].machine

    @property
    def threshold(self) -> float | None:
        """The threshold of all recordings, or None if it depends on their lengths."""
        thresholds = {v.threshold for v in (*self.normal, *self.faulty)}
        return thresholds.pop() if len(thresholds) == 1 else None

    def at_rate(self, false_alarm_rate: float) -> Detection:
        """Return the results that a different false-alarm rate would have given.

        The detector's thresholds must be conformal: a recording then raises an alarm if
        its p-value is at most the rate.
        """
        detected, false_alarms = (
            Share(sum(v.p_value <= false_alarm_rate for v in group), len(group))
            for group in (self.faulty, self.normal)
        )
        area = self.detection.area
        return Detection(detected, false_alarms, area, false_alarm_rate)

    @property
    def lowest_rate(self) -> Detection | None:
        """The results at the lowest false-alarm rate that detects enough faults.

        The rate is rounded up to 0.1 %. The lower limit of the share of detected faults
        is then at least `LEAST_DETECTED`. None if the rate would be above one half, or
        if the thresholds are not conformal.
        """
        known = {v.p_value for v in self.faulty if math.isfinite(v.p_value)}
        for rate in sorted({math.ceil(1000 * p) / 1000 for p in known}):
            found = self.at_rate(rate)
            if rate <= _HIGHEST_RATE and found.detected.interval[0] >= LEAST_DETECTED:
                return found
        return None


def margin(verdict: Verdict) -> float:
    """Return the score minus the threshold.

    The threshold may depend on the recording's length.
    """
    return verdict.score - verdict.threshold


def check_fault(
    normal: Sequence[Verdict], faulty: Sequence[Verdict], false_alarm_rate: float
) -> FaultCheck:
    """Judge a detector by its verdicts on normal and faulty recordings.

    Recordings whose state is not `State.RUNNING` are left out. The others are ranked by
    `margin`.

    Args:
        normal: verdicts on recordings of the healthy machine that were not used for
            training.
        faulty: verdicts on recordings of the same machine with a fault.
        false_alarm_rate: the detector's nominal rate.

    Raises:
        InputError: no normal or no faulty recording is left, or the detector has no
            threshold.
    """
    kept = _counted(normal, "normal"), _counted(faulty, "faulty")
    false_alarms, detected = (
        Share(sum(v.is_anomaly for v in group), len(group)) for group in kept
    )
    normal_scores, faulty_scores = (
        np.array([margin(v) for v in group]) for group in kept
    )
    area = roc_area(normal_scores, faulty_scores)
    return FaultCheck(
        *kept,
        tuple(v for v in (*normal, *faulty) if not _is_counted(v)),
        Detection(detected, false_alarms, area, false_alarm_rate),
    )


def _counted(verdicts: Sequence[Verdict], condition: str) -> tuple[Verdict, ...]:
    """Return the verdicts that count.

    Raise an InputError if none count, or if a threshold is missing.
    """
    kept = tuple(filter(_is_counted, verdicts))
    if not kept:
        raise InputError(
            f"the machine is not running in any of the {condition} recordings: pass "
            "recordings of the running machine"
        )
    if any(math.isnan(v.threshold) for v in kept):
        raise InputError(
            f"the detector has no threshold for {kept[0].machine}, because its "
            "training failed: retrain it"
        )
    return kept


def _is_counted(verdict: Verdict) -> bool:
    return verdict.is_running
