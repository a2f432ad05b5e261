"""Windows of recordings of any length, and what is made of their verdicts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.live_stubs import RATE, LoudnessScorer, tone

from gammavae_jax.errors import InputError
from gammavae_jax.live.scorer import Heard, Stretch
from gammavae_jax.live.windows import Rolling, hear, rolling, windows

WHOLE = Rolling(RATE, RATE // 2)


def blocks_of(samples, size):
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def heard(samples, block=5000, rolling=WHOLE):
    """Stretches, and the recording."""
    said = hear(LoudnessScorer(), "fan", blocks_of(samples, block), rolling, "x.wav")
    *stretches, whole = list[Any](said)
    return stretches, whole


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 400),
    block=st.integers(1, 300),
    size=st.integers(1, 60),
    hop_share=st.floats(0.01, 1),
)
def test_every_sample_is_in_a_window_and_windows_are_what_they_say(
    n, block, size, hop_share
):
    hop = max(1, round(hop_share * size))
    samples = np.arange(n, dtype=np.float32)
    found = list(windows(blocks_of(samples, block), Rolling(size, hop)))
    for start, clip in found:
        np.testing.assert_array_equal(clip, samples[start : start + len(clip)])
    if n <= 1.5 * size:
        assert [(start, len(clip)) for start, clip in found] == [(0, n)]
        return
    starts = [start for start, _ in found]
    assert {len(clip) for _, clip in found} == {size}
    assert starts[0] == 0
    assert starts[-1] == n - size
    assert set(np.diff(starts[:-1])) <= {hop}
    assert 0 < np.diff(starts)[-1] <= hop


def test_a_short_recording_is_one_clip_without_stretches():
    stretches, whole = heard(tone(1.4, 0.9))
    assert stretches == []
    assert whole.worst.is_anomaly
    assert (whole.n_windows, whole.n_alarms) == (1, 1)
    assert whole.seconds == pytest.approx(1.4)


def test_alarms_of_a_long_recording_are_told_as_stretches():
    samples = tone(20)
    samples[4 * RATE : 6 * RATE] *= 8
    samples[-RATE // 4 :] *= 9
    stretches, whole = heard(samples)
    assert [(s.start, s.end) for s in stretches] == [(3.5, 6.5), (19.0, 20.0)]
    assert [round(s.worst.score, 2) for s in stretches] == [0.8, 0.9]
    assert whole.n_alarms == 5 + 1
    assert whole.n_windows == 39
    assert whole.worst.score == pytest.approx(0.9, abs=1e-3)
    assert np.abs(whole.worst_clip).max() == pytest.approx(0.9, abs=1e-3)


def test_a_window_without_a_score_hides_no_other():
    class Deaf(LoudnessScorer):
        def judge(self, clip, machine):
            verdict = super().judge(clip, machine)
            is_silent = verdict.score < 0.15
            return verdict._replace(score=float("nan")) if is_silent else verdict

    samples = tone(10)
    samples[5 * RATE : 6 * RATE] *= 3
    *_, whole = hear(Deaf(), "fan", blocks_of(samples, RATE), WHOLE, "x.wav")
    assert isinstance(whole, Heard)
    assert whole.worst.score == pytest.approx(0.3, abs=1e-3)


def test_a_stretch_is_told_before_the_recording_has_ended():
    samples = tone(20)
    samples[: 2 * RATE] *= 8
    taken = []

    def blocks():
        for block in blocks_of(samples, RATE):
            taken.append(len(block))
            yield block

    said = hear(LoudnessScorer(), "fan", blocks(), WHOLE, "x.wav")
    assert isinstance(next(said), Stretch)
    assert len(taken) < 5
    assert isinstance(list(said)[-1], Heard)


def test_a_recording_that_is_too_short_is_refused_by_name():
    with pytest.raises(InputError, match=r"^x\.wav: 0\.0063 s are too short: give"):
        heard(tone(100 / RATE))


@pytest.mark.parametrize(
    ("window", "hop", "message"),
    [
        (0.001, None, "a window of 0.001 s is too short or too long: give 0.02 s"),
        (2.0, 3.0, "a hop of 3 s does not suit windows of 2 s"),
        (2.0, 0.0, "a hop of 0 s"),
        (float("nan"), None, "a window of nan s"),
        (2.0, float("nan"), "a hop of nan s"),
        (float("inf"), None, "a window of inf s"),
    ],
)
def test_windows_that_cannot_be_are_refused(window, hop, message):
    with pytest.raises(InputError, match=message):
        rolling(LoudnessScorer(), window, hop)


def test_windows_are_the_detectors_clips_unless_said():
    assert rolling(LoudnessScorer(), None, None) == (RATE, RATE // 2)
    assert rolling(LoudnessScorer(), 2.0, None) == (2 * RATE, RATE)
