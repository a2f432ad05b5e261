"""Recordings of any length, heard window by window in constant memory."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from gammavae_jax.errors import InputError
from gammavae_jax.live.scorer import Heard, LiveScorer, Stretch, Verdict

_LONGEST_WHOLE = 1.5  # windows; so do detectors with what they learn from
_LONGEST_WINDOW = 600  # s; it has to be held in memory

Blocks = Iterable[Float32[np.ndarray, "_"]]


class Rolling(NamedTuple):
    """Which windows a long recording is heard by."""

    window: int  # samples
    hop: int  # samples from one window to the next


def rolling(
    scorer: LiveScorer, window_seconds: float | None, hop_seconds: float | None
) -> Rolling:
    """The windows asked for; unless given, a detector's clips, half of them new.

    Raises:
        InputError: windows that are too short, or that leave gaps.
    """
    seconds = scorer.clip_seconds if window_seconds is None else window_seconds
    least = scorer.least_samples / scorer.sample_rate
    if not least <= seconds <= _LONGEST_WINDOW:
        raise InputError(
            f"a window of {seconds:g} s is too short or too long: give {least:.2g} s "
            f"to {_LONGEST_WINDOW} s"
        )
    hop = seconds / 2 if hop_seconds is None else hop_seconds
    if not 0 < hop <= seconds:
        raise InputError(
            f"a hop of {hop:g} s does not suit windows of {seconds:g} s: give more "
            "than 0 and at most the window"
        )
    n_samples = round(seconds * scorer.sample_rate)
    return Rolling(n_samples, max(1, round(hop * scorer.sample_rate)))


def windows(
    blocks: Blocks, rolling: Rolling
) -> Iterator[tuple[int, Float32[np.ndarray, "_"]]]:
    """The first sample of each window, and the window.

    Up to one and a half windows are one clip. Of more, every sample is in a window: the
    last one ends with the recording.
    """
    size, hop = rolling
    held, previous, start = np.zeros(0, np.float32), None, 0
    for block in blocks:
        held = np.concatenate([held, block])
        if previous is None and len(held) <= _LONGEST_WHOLE * size:
            continue
        while len(held) >= size:
            previous = held[:size]
            yield start, previous
            held, start = held[hop:], start + hop
    if previous is None:
        yield 0, held
    elif len(held) > size - hop:
        last = np.concatenate([previous, held[size - hop :]])[-size:]
        yield start + len(held) - size, last


def hear(
    scorer: LiveScorer, machine: str, blocks: Blocks, rolling: Rolling, name: str
) -> Iterator[Stretch | Heard]:
    """Each stretch of alarm of a long recording as it ends; last, the recording.

    Args:
        scorer: the detector.
        machine: whose recording this is.
        blocks: of samples at the detector's rate, one after the other.
        rolling: see `windows`.
        name: of the recording, for messages.

    Raises:
        InputError: the recording is too short, or see `blocks`.
    """
    summary: Heard | None = None
    stretch: Stretch | None = None
    for start, clip in windows(blocks, rolling):
        verdict = scorer.judge(_long_enough(clip, scorer, name), machine)
        seconds = (start / scorer.sample_rate, (start + len(clip)) / scorer.sample_rate)
        summary = _heard(summary, seconds[1], verdict, clip)
        if verdict.is_anomaly:
            stretch = _stretched(stretch, *seconds, verdict)
        elif stretch is not None:
            yield stretch
            stretch = None
    assert summary is not None  # there is always one window
    if stretch is not None and summary.n_windows > 1:
        yield stretch
    yield summary


def _long_enough(
    clip: Float32[np.ndarray, "sample"], scorer: LiveScorer, name: str
) -> Float32[np.ndarray, "sample"]:
    if len(clip) < scorer.least_samples:
        raise InputError(
            f"{name}: {len(clip) / scorer.sample_rate:.2g} s are too short: give "
            f"recordings of {scorer.least_samples / scorer.sample_rate:.2g} s at least"
        )
    return clip


def _heard(
    before: Heard | None, seconds: float, verdict: Verdict, clip: np.ndarray
) -> Heard:
    """What was heard before, and one window more."""
    if before is None:
        return Heard(seconds, verdict, clip, 1, int(verdict.is_anomaly))
    is_worse = _is_worse(verdict, before.worst)
    return Heard(
        seconds,
        verdict if is_worse else before.worst,
        clip if is_worse else before.worst_clip,
        before.n_windows + 1,
        before.n_alarms + verdict.is_anomaly,
    )


def _stretched(
    before: Stretch | None, start: float, end: float, verdict: Verdict
) -> Stretch:
    if before is None:
        return Stretch(start, end, verdict)
    is_worse = _is_worse(verdict, before.worst)
    return Stretch(before.start, end, verdict if is_worse else before.worst)


def _is_worse(verdict: Verdict, than: Verdict) -> bool:
    return _badness(verdict) > _badness(than)


def _badness(verdict: Verdict) -> tuple[bool, float]:
    """What is no number is better than any, or it would hide all that follow."""
    is_number = not math.isnan(verdict.score)
    return verdict.is_anomaly, verdict.score if is_number else -math.inf
