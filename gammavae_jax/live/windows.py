"""Recordings of any length, scored window by window in constant memory."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from gammavae_jax.errors import InputError
from gammavae_jax.live.scorer import LiveScorer, RecordingVerdict, Stretch
from gammavae_jax.scoring.verdict import Verdict

_LONGEST_WHOLE = 1.5  # windows; longer recordings are split, as in training
_LONGEST_WINDOW = 600  # s; a window is held in memory

Blocks = Iterable[Float32[np.ndarray, "_"]]


class WindowSize(NamedTuple):
    """The windows of a long recording."""

    length: int  # samples
    hop: int  # samples from one window to the next


def window_size(
    scorer: LiveScorer, window_seconds: float | None, hop_seconds: float | None
) -> WindowSize:
    """Return the windows to use. Default: a training clip, and a hop of half a window.

    Raises:
        InputError: the window is too short or too long, or the hop leaves gaps.
    """
    seconds = scorer.clip_seconds if window_seconds is None else window_seconds
    least = scorer.min_samples / scorer.sample_rate
    if not least <= seconds <= _LONGEST_WINDOW:
        problem = f"a window of {seconds:g} s is too short or too long"
        raise InputError(f"{problem}: give {least:.2g} s to {_LONGEST_WINDOW} s")
    hop = seconds / 2 if hop_seconds is None else hop_seconds
    if not 0 < hop <= seconds:
        problem = f"a hop of {hop:g} s does not suit windows of {seconds:g} s"
        raise InputError(f"{problem}: give more than 0 s and at most the window")
    length = round(seconds * scorer.sample_rate)
    return WindowSize(length, max(1, round(hop * scorer.sample_rate)))


def split_windows(
    blocks: Blocks, size: WindowSize
) -> Iterator[tuple[int, Float32[np.ndarray, "_"]]]:
    """Yield each window with the index of its first sample.

    A recording of up to one and a half windows is one clip. A longer one is covered
    completely: its last window ends with the recording.
    """
    length, hop = size
    buffer, previous, start = np.zeros(0, np.float32), None, 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        if previous is None and len(buffer) <= _LONGEST_WHOLE * length:
            continue
        while len(buffer) >= length:
            previous = buffer[:length]
            yield start, previous
            buffer, start = buffer[hop:], start + hop
    if previous is None:
        yield 0, buffer
    elif len(buffer) > length - hop:
        last = np.concatenate([previous, buffer[length - hop :]])[-length:]
        yield start + len(buffer) - length, last


def score_windows(
    scorer: LiveScorer, machine: str, blocks: Blocks, size: WindowSize, name: str
) -> Iterator[Stretch | RecordingVerdict]:
    """Yield each stretch of alarms as it ends and, last, the whole recording's verdict.

    A recording of a single window has no stretches; one that is too short raises an
    `InputError` with its name. The blocks have the detector's sample rate.
    """
    rate = scorer.sample_rate
    n_windows = n_alarms = 0
    worst: tuple[Verdict, np.ndarray] | None = None
    stretch: Stretch | None = None
    end = 0.0
    for start, clip in split_windows(blocks, size):
        if len(clip) < scorer.min_samples:
            least = f"give recordings of at least {scorer.min_samples / rate:.2g} s"
            raise InputError(f"{name}: {len(clip) / rate:.2g} s are too short: {least}")
        verdict, end = scorer.judge(clip, machine), (start + len(clip)) / rate
        n_windows += 1
        n_alarms += verdict.is_anomaly
        if worst is None or _badness(verdict) > _badness(worst[0]):
            worst = verdict, clip
        if verdict.is_anomaly:
            before = stretch or Stretch(start / rate, end, verdict)
            worse = max(before.worst, verdict, key=_badness)
            stretch = Stretch(before.start, end, worse)
        elif stretch is not None:
            yield stretch
            stretch = None
    assert worst is not None  # every recording has at least one window
    if stretch is not None and n_windows > 1:
        yield stretch
    yield RecordingVerdict(end, *worst, n_windows, n_alarms)


def _badness(verdict: Verdict) -> tuple[bool, float]:
    """Rank NaN below every score, so that it does not hide the windows after it."""
    is_number = not math.isnan(verdict.score)
    return verdict.is_anomaly, verdict.score if is_number else -math.inf
