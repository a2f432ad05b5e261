"""The choice of clips that get pictures."""

import numpy as np
import pytest

from gammavae_jax.report.shown_clips import telling_clips

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
