"""Windows of recordings of any length, and the verdict on a whole recording."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.live_stubs import RATE, LoudnessScorer, tone

from gammavae_jax.errors import InputError
from gammavae_jax.live.scorer import (
    RecordingVerdict,
    Stretch,
    WindowSize,
    score_windows,
    split_windows,
    window_size,
)

SECOND = WindowSize(RATE, RATE // 2)


def blocks_of(samples, size):
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def score(samples, block=5000, scorer=None):
    """Return the stretches, and the verdict on the recording."""
    *stretches, whole = list[Any](
        score_windows(
            scorer or LoudnessScorer(),
            "fan",
            blocks_of(samples, block),
            SECOND,
            "x.wav",
        )
    )
    return stretches, whole


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 400),
    block=st.integers(1, 300),
    length=st.integers(1, 60),
    hop_share=st.floats(0.01, 1),
)
def test_windows_cover_every_sample_and_have_the_stated_length_and_hop(
    n, block, length, hop_share
):
    hop = max(1, round(hop_share * length))
    samples = np.arange(n, dtype=np.float32)
    windows = list(split_windows(blocks_of(samples, block), WindowSize(length, hop)))
    pairs = np.stack([samples, -samples], 1)
    of_pairs = split_windows(blocks_of(pairs, block), WindowSize(length, hop))
    for (start, clip), (start_of_pair, both) in zip(windows, of_pairs, strict=True):
        assert start_of_pair == start
        np.testing.assert_array_equal(both, np.stack([clip, -clip], 1))
    for start, clip in windows:
        np.testing.assert_array_equal(clip, samples[start : start + len(clip)])
    if n <= 1.5 * length:
        assert [(start, len(clip)) for start, clip in windows] == [(0, n)]
        return
    starts = [start for start, _ in windows]
    assert {len(clip) for _, clip in windows} == {length}
    assert starts[0] == 0
    assert starts[-1] == n - length
    assert set(np.diff(starts[:-1])) <= {hop}
    assert 0 < np.diff(starts)[-1] <= hop


def test_a_short_recording_is_one_clip_without_stretches():
    stretches, whole = score(tone(1.4, 0.9))
    assert stretches == []
    assert whole.worst.is_anomaly
    assert (whole.n_windows, whole.n_alarms) == (1, 1)
    assert whole.seconds == pytest.approx(1.4)


def test_consecutive_alarms_of_a_long_recording_are_one_stretch():
    samples = tone(20)
    samples[4 * RATE : 6 * RATE] *= 8
    samples[-RATE // 4 :] *= 9
    stretches, whole = score(samples)
    assert [(s.start, s.end) for s in stretches] == [(3.5, 6.5), (19.0, 20.0)]
    assert [round(s.worst.score, 2) for s in stretches] == [0.8, 0.9]
    assert whole.n_alarms == 5 + 1
    assert whole.n_windows == 39
    assert whole.worst.score == pytest.approx(0.9, abs=1e-3)
    assert np.abs(whole.worst_clip).max() == pytest.approx(0.9, abs=1e-3)


def test_a_window_whose_score_is_nan_does_not_hide_the_others():
    class SometimesNan(LoudnessScorer):
        def judge(self, clip, machine):
            verdict = super().judge(clip, machine)
            is_quiet = verdict.score < 0.15
            return verdict._replace(score=float("nan")) if is_quiet else verdict

    samples = tone(10)
    samples[5 * RATE : 6 * RATE] *= 3
    _, whole = score(samples, scorer=SometimesNan())
    assert whole.worst.score == pytest.approx(0.3, abs=1e-3)


def test_a_stretch_is_reported_before_the_recording_ends():
    samples = tone(20)
    samples[: 2 * RATE] *= 8
    n_read = 0

    def blocks():
        nonlocal n_read
        for block in blocks_of(samples, RATE):
            n_read += 1
            yield block

    verdicts = score_windows(LoudnessScorer(), "fan", blocks(), SECOND, "x.wav")
    assert isinstance(next(verdicts), Stretch)
    assert n_read < 5
    assert isinstance(list(verdicts)[-1], RecordingVerdict)


def test_a_recording_that_is_too_short_is_refused_by_name():
    with pytest.raises(InputError, match=r"^x\.wav is too short \(0\.0063 s\): use"):
        score(tone(100 / RATE))


@pytest.mark.parametrize(
    ("window", "hop", "message"),
    [
        (0.001, None, "a window of 0.001 s is too short or too long: use 0.02 to"),
        (2.0, 3.0, "a hop of 3 s does not suit windows of 2 s"),
        (2.0, 0.0, "a hop of 0 s"),
        (float("nan"), None, "a window of nan s"),
        (2.0, float("nan"), "a hop of nan s"),
        (float("inf"), None, "a window of inf s"),
    ],
)
def test_an_impossible_window_or_hop_is_refused(window, hop, message):
    with pytest.raises(InputError, match=message):
        window_size(LoudnessScorer(), window, hop)


def test_the_default_window_is_a_training_clip():
    assert window_size(LoudnessScorer(), None, None) == (RATE, RATE // 2)
    assert window_size(LoudnessScorer(), 2.0, None) == (2 * RATE, RATE)
