"""The choice of clips that get pictures."""

from unittest.mock import Mock

import numpy as np
import pytest

from gammavae_jax.report import shown_clips
from gammavae_jax.report.pictures import Sound
from gammavae_jax.report.shown_clips import (
    WantedClip,
    show_clips,
    telling_clips,
    telling_clips_of_all,
)
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.scored_clips import ScoredClips

SCORES = np.arange(100)[::-1] / 10.0  # clip 0 is the highest


def test_high_scores_errors_and_borderline_clips_are_shown():
    is_anomaly = np.arange(100) < 30
    is_anomaly[5] = False  # the highest false alarm
    is_anomaly[99] = True  # the missed anomaly with the lowest score
    chosen = telling_clips(SCORES, 7.95, is_anomaly, 12)
    assert len(chosen) == len(set(chosen)) == 12
    assert chosen[0] == 0
    assert {5, 99} <= set(chosen[:3])
    assert {18, 19, 20} <= set(chosen)  # next to the threshold
    assert 50 in chosen  # from the middle


def test_without_labels_high_scores_and_borderline_clips_are_shown():
    chosen = telling_clips(SCORES, 7.95, None, 8)
    assert chosen == [0, 19, 20, 50, 1, 18, 21, 51]


@pytest.mark.parametrize("threshold", [-1.0, 100.0, float("nan")])
def test_a_few_clips_are_all_shown_once(threshold):
    for labels in (None, np.array([True, False, False])):
        chosen = telling_clips(np.array([1.0, 3.0, 2.0]), threshold, labels, 12)
        assert sorted(chosen) == [0, 1, 2]


def test_each_of_very_many_machines_has_a_clip():
    names, values, threshold = ("a", "b"), np.array([[1.0, 2.0]]), np.zeros(1)
    unknown = ("", "")
    fan = ScoredClips(
        *("fan", "00", names, unknown, unknown),
        *({"mse": values}, {"mse": threshold}, {}, (1,)),
    )
    shown = telling_clips_of_all([fan] * 100, "mse", 0)
    assert shown == [(machine, 1) for machine in range(100)]


@pytest.mark.parametrize(("max_bytes", "n_shown"), [(1, 1), (250, 2), (1000, 3)])
def test_the_first_clip_is_shown_even_if_it_is_over_the_budget(
    monkeypatch, max_bytes, n_shown
):
    """Each picture takes 100 bytes."""
    monkeypatch.setattr(shown_clips, "explain_clip", lambda *_: None)
    monkeypatch.setattr(shown_clips, "picture_payload", lambda *_: "x" * 98)
    detector = Mock(spec=Detector, config=None)
    wanted = [
        WantedClip(0, clip, 0, lambda: (np.zeros((1, 1)), Sound(None, 16000)))
        for clip in range(3)
    ]
    assert len(show_clips(detector, wanted, max_bytes=max_bytes)) == n_shown
