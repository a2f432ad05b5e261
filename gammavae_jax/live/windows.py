"""Recordings of any length, scored window by window in constant memory."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from gammavae_jax.errors import InputError
from gammavae_jax.live.scorer import LiveScorer, RecordingVerdict, Stretch, Verdict

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
    """Return the windows to use. Default: a detector's clip, with half a clip's hop.

    Raises:
        InputError: the window is too short or too long, or the hop leaves gaps.
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
            "than 0 s and at most the window"
        )
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

    A recording of a single window has no stretches.

    Args:
        scorer: the detector.
        machine: the machine that was recorded.
        blocks: consecutive samples at the detector's sample rate.
        size: the windows.
        name: of the recording, for error messages.

    Raises:
        InputError: the recording is too short, or reading `blocks` raised it.
    """
    rate = scorer.sample_rate
    whole: RecordingVerdict | None = None
    stretch: Stretch | None = None
    for start, clip in split_windows(blocks, size):
        if len(clip) < scorer.least_samples:
            raise InputError(
                f"{name}: {len(clip) / rate:.2g} s are too short: give recordings of "
                f"at least {scorer.least_samples / rate:.2g} s"
            )
        verdict = scorer.judge(clip, machine)
        end = (start + len(clip)) / rate
        whole = _with_window(whole, end, verdict, clip)
        if verdict.is_anomaly:
            first = stretch or Stretch(start / rate, end, verdict)
            stretch = Stretch(first.start, end, _worse(first.worst, verdict))
        elif stretch is not None:
            yield stretch
            stretch = None
    assert whole is not None  # every recording has at least one window
    if stretch is not None and whole.n_windows > 1:
        yield stretch
    yield whole


def _with_window(
    before: RecordingVerdict | None, seconds: float, verdict: Verdict, clip: np.ndarray
) -> RecordingVerdict:
    """Return the verdict on the recording so far, with one more window."""
    if before is None:
        return RecordingVerdict(seconds, verdict, clip, 1, int(verdict.is_anomaly))
    worst = _worse(before.worst, verdict)
    return RecordingVerdict(
        seconds,
        worst,
        clip if worst is verdict else before.worst_clip,
        before.n_windows + 1,
        before.n_alarms + verdict.is_anomaly,
    )


def _worse(first: Verdict, second: Verdict) -> Verdict:
    """Return the worse of two verdicts; the first one if they are equal."""
    return max(first, second, key=_badness)


def _badness(verdict: Verdict) -> tuple[bool, float]:
    """Rank NaN below every score, so that it does not hide the windows after it."""
    is_number = not math.isnan(verdict.score)
    return verdict.is_anomaly, verdict.score if is_number else -math.inf
