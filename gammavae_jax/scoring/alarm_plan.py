"""Chooses an alarm policy that stays within a given number of false alarms per day.

A policy raises an alarm when at least `k` of the last `n` segments have low p-values,
or *count* (see `alarm_policy`). The number of false alarms per day is at most the
number of segments per day times the probability that at least `k` of `n` healthy
segments count (see `alarm_rate`). Of the policies that stay within the given number,
the module chooses the one that reports a benchmark fault first. This fault raises half
of its segments above the level that 10 % of healthy segments exceed.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from gammavae_jax.errors import InputError, printable
from gammavae_jax.scoring.alarm_policy import (
    MOST_SEGMENTS,
    AlarmPolicy,
    Expected,
    rounded,
)
from gammavae_jax.scoring.alarm_rate import (
    cautious_correlation,
    chance_given_share,
    chance_of_alarm,
    expected_segments,
)
from gammavae_jax.scoring.decision import CLIPS_IN_SEGMENT, DecisionRule
from gammavae_jax.scoring.detector import Detector, machine_names
from gammavae_jax.scoring.sample_size import clips_needed

_DAY = 86400.0  # s
_LEVEL = 0.1  # half of the benchmark fault's segments have p-values up to this
_CONFIDENCE = 0.95  # of the upper limit of false alarms
_MOST_RECORDINGS = 100_000  # the largest number that an error message suggests


class AlarmRequest(NamedTuple):
    """A user's request for a policy: a false-alarm rate, or `k` of `n` segments."""

    false_alarms_per_day: float | None = None
    recordings_per_day: float | None = None  # None: recording never pauses
    after: tuple[int, int] | None = None  # k and n; the level is the false-alarm rate
    hold_seconds: float = 0.0


def plan_policy(
    rule: DecisionRule, clip_seconds: float, request: AlarmRequest
) -> AlarmPolicy:
    """Return the alarm policy that meets a user's request.

    Args:
        rule: the machine's rule.
        clip_seconds: the mean length of a clip.
        request: the request, with either a false-alarm rate or `after`.

    Raises:
        InputError: there are too few training recordings, the request has neither or
            both of the rate and `after`, or a value is out of range.
    """
    rate, after = request.false_alarms_per_day, request.after
    if (rate is None) == (after is None):
        problem = "an alarm policy needs either false alarms per day or k of n segments"
        raise InputError(f"{problem}: give exactly one of them")
    stream = stream_of(rule, clip_seconds, request.recordings_per_day)
    if after is not None:
        by_hand = AlarmPolicy(rule.false_alarm_rate, *after)
        policy = with_expectations(by_hand, stream)
    else:
        assert rate is not None
        policy = choose_policy(stream, rate)
    per_day = request.recordings_per_day
    return replace(
        policy,
        hold_seconds=request.hold_seconds,
        recording_seconds=_DAY / per_day if per_day else 0.0,
        most_segments=max(_segments_of_each(rule)) if per_day else None,
    )


def mean_clip_seconds(detector: Detector, machine: str) -> float:
    """Return the mean length of a machine's training clips, in seconds.

    Raises:
        InputError: the length is unknown.
    """
    conditions = detector.conditions.get(machine)
    if conditions is None:
        problem = (
            f"{printable(machine)}: the detector does not store the length of its clips"
        )
        raise InputError(f"{problem}: refit it with this version")
    number = machine_names(detector).index(machine)
    n_clips = int(np.count_nonzero(detector.weights[number]))  # without padding
    return conditions.total_seconds / n_clips


class Stream(NamedTuple):
    """A healthy machine's held-out segments, and the rate at which segments arrive."""

    machine: str
    n_recordings: float  # independent held-out recordings
    sequences: tuple[Float[np.ndarray, "_"], ...]  # held-out scores, in time order
    segment_seconds: float
    segments_per_day: float

    def correlation(self, n: int) -> float:
        """Return the `cautious_correlation` of any two of `n` consecutive segments."""
        return cautious_correlation(self.sequences, self.n_recordings, n)


def stream_of(
    rule: DecisionRule, clip_seconds: float, recordings_per_day: float | None = None
) -> Stream:
    """Describe the segments of a healthy machine, based on held-out recordings.

    Args:
        rule: the machine's rule.
        clip_seconds: the mean length of a clip.
        recordings_per_day: how many recordings arrive. Each is assumed to have as many
            segments as the average training recording. Default: recording never pauses.

    Raises:
        InputError: the thresholds are not conformal, or `recordings_per_day` is not a
            positive number.
    """
    scores, weights, recordings = rule.held_out_segments(CLIPS_IN_SEGMENT)
    machine = printable(rule.machine)
    if not rule.is_conformal or not len(scores):
        problem = f"{machine}: the detector has no conformal thresholds"
        remedy = "fit it with train.split=folds and scoring.threshold=conformal"
        raise InputError(f"{problem}, so no alarm policy can be based on it: {remedy}")
    seconds = clip_seconds * min(rule.usual_size, CLIPS_IN_SEGMENT)
    per_day = _DAY / seconds
    if recordings_per_day is not None:
        if not 0 < recordings_per_day < math.inf:
            problem = f"the number of recordings per day is {recordings_per_day:g}"
            raise InputError(f"{problem}: use a number above 0")
        per_day = recordings_per_day * float(np.mean(_segments_of_each(rule)))
    parts = np.split(scores, np.flatnonzero(np.diff(recordings)) + 1)
    if sum(len(part) > 1 for part in parts) < len(parts) / 2:
        parts = [scores]  # treat recordings of one segment as one sequence
    n_recordings = float(weights.sum())
    return Stream(rule.machine, n_recordings, tuple(parts), seconds, per_day)


def _segments_of_each(rule: DecisionRule) -> list[int]:
    """Return the number of segments in each training recording."""
    sizes = rule.recording_sizes or (1,)
    return [max(1, round(size / CLIPS_IN_SEGMENT)) for size in sizes]


def choose_policy(stream: Stream, false_alarms_per_day: float) -> AlarmPolicy:
    """Return the policy that meets the rate and reports the benchmark fault first.

    Raises:
        InputError: the rate is out of range, or no policy meets it. The message then
            says what would help.
    """
    rate = false_alarms_per_day
    if not 0 < rate < math.inf:
        problem = f"the number of false alarms per day is {rate:g}"
        raise InputError(f"{problem}: use a number above 0, such as 0.2")
    best, shortest = None, math.inf
    for k, n, rank in _candidates(stream, rate / stream.segments_per_day):
        level = rank / (stream.n_recordings + 1)
        chance = _share_of_fault(level)
        if k / chance >= shortest:
            continue  # on average, it takes at least k / chance segments
        wait = expected_segments(k, n, chance)
        if wait < shortest:
            best, shortest = AlarmPolicy(level, k, n), wait
    if best is None:
        raise InputError(_refusal(stream, rate))
    return with_expectations(best, stream)


def _candidates(stream: Stream, most: float) -> Iterator[tuple[int, int, int]]:
    """Yield each `k` and `n`, with the highest rank that meets a false-alarm rate.

    `most` is the rate, in false alarms per segment.
    """
    n_recordings, highest = stream.n_recordings, int((stream.n_recordings + 1) / 2)
    for n in range(1, MOST_SEGMENTS + 1):
        correlation = stream.correlation(n)
        low = 0  # the highest rank increases with k
        for k in range(1, n + 1):
            high = highest
            while low < high:
                rank = (low + high + 1) // 2
                if chance_of_alarm(rank, n_recordings, correlation, k, n) <= most:
                    low = rank
                else:
                    high = rank - 1
            if low:
                yield k, n, low


def _share_of_fault(level: float) -> float:
    """Return the share of the benchmark fault's segments with p-values up to a level.

    The fault adds a constant to the Gaussian quantiles of healthy segments.
    """
    return float(ndtr(ndtri(level) - ndtri(_LEVEL)))


def with_expectations(policy: AlarmPolicy, stream: Stream) -> AlarmPolicy:
    """Return the policy with its expected false alarms and delays.

    Raises:
        InputError: there are so few recordings that no segment can count.
    """
    n_recordings, k, n = stream.n_recordings, policy.k, policy.n
    rank = math.floor(round(policy.level * (n_recordings + 1), 6))
    if rank < 1:
        needed = clips_needed(policy.level)
        problem = (
            f"{printable(stream.machine)}: {n_recordings:.3g} independent training "
            f"recordings are too few for a false-alarm rate of {policy.level:g}"
        )
        raise InputError(f"{problem}: record {needed}, or raise the rate")
    correlation = stream.correlation(n)
    share = scipy.stats.beta(rank, n_recordings + 1 - rank)
    # There is no lower limit: new clips often score lower than held-out clips, which
    # are compared with fewer recordings.
    largest_share = share.ppf([_CONFIDENCE])
    most = float(chance_given_share(largest_share, correlation, k, n)[0])
    wait = expected_segments(k, n, _share_of_fault(policy.level))
    per_day = stream.segments_per_day
    seconds = _DAY / per_day
    expected = Expected(
        per_day * chance_of_alarm(rank, n_recordings, correlation, k, n),
        per_day * most,
        stream.segment_seconds,
        per_day,
        wait * seconds,
        k * seconds,
        n_recordings,
        correlation,
    )
    return replace(policy, expected=expected)


def _refusal(stream: Stream, rate: float) -> str:
    """Return a message that says why no policy meets a rate, and what would help."""
    lowest = _lowest_rate(stream)
    problem = (
        f"{printable(stream.machine)}: with {stream.n_recordings:.3g} independent "
        f"training recordings and {rounded(stream.segments_per_day, 4)} segments per "
        f"day, {rate:g} false alarms per day cannot be guaranteed"
    )
    remedies = [f"ask for {_rounded_up(lowest)} or more"]
    fewer = stream.segments_per_day * rate / lowest
    if fewer >= 1:
        remedies.append(f"score at most {math.floor(fewer)} segments per day")
    needed = _recordings_needed(stream, rate)
    if needed is not None:
        remedies.append(f"train with {needed} independent recordings")
    return f"{problem}: {', or '.join(remedies)}"


def _rounded_up(value: float) -> str:
    """Return a number as text, rounded up to two digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return rounded(math.ceil(value / step) * step)


def _recordings_needed(stream: Stream, rate: float) -> int | None:
    """Return how many independent recordings are needed, or None if over 100,000."""

    def is_enough(n_recordings: int) -> bool:
        return _lowest_rate(stream._replace(n_recordings=float(n_recordings))) <= rate

    low, high = math.floor(stream.n_recordings), _MOST_RECORDINGS
    if not is_enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _lowest_rate(stream: Stream) -> float:
    """Return the strictest policy's number of false alarms per day."""
    n = MOST_SEGMENTS
    correlation = stream.correlation(n)
    chance = chance_of_alarm(1, stream.n_recordings, correlation, n, n)
    return chance * stream.segments_per_day
