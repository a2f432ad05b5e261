"""The coordinates in a fault check's figures."""

import numpy as np
import pytest

from gammavae_jax.report.check_figures import Mark, plot_roc, plot_strips


def marks(scores, threshold=1.0):
    return [Mark(f"{s}.wav", float(s), s > threshold) for s in scores]


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ([0.0, 0.5, 0.99, 1.0, 1.001, 1.5, 4.0], 1.0),
        (np.linspace(-3, 3, 400), 1.0),  # many recordings share a column
        ([1.0, 1.0, 1.0], 1.0),  # all scores are equal
        ([5.0], 1.0),
        ([0.0, 0.1], 1.0),
        ([0.0, 1e9], 1.0),
    ],
)
def test_every_recording_is_a_dot_on_its_side_of_the_threshold(scores, threshold):
    plot = plot_strips([marks(scores, threshold), marks([0.5])], threshold)
    dots = plot["rows"][0]["dots"]
    assert sorted(mark.score for mark, _, _ in dots) == sorted(map(float, scores))
    row = plot["rows"][0]
    for mark, x, y in dots:
        assert (x > plot["threshold"]) == mark.is_alarm
        assert -plot["radius"] <= x <= plot["width"] + plot["radius"]
        assert row["top"] - 1 <= y < row["base"]


def test_dots_are_stacked_and_never_hide_another_if_there_is_room():
    plot = plot_strips([marks([0.5] * 5 + [0.9, 3.0]), marks([2.0])], 1.0)
    places = {(round(x, 3), round(y, 3)) for _, x, y in plot["rows"][0]["dots"]}
    assert len(places) == 7


def test_an_axis_that_ends_before_the_highest_score_says_so():
    labels = [tick[0] for tick in plot_strips([marks([0.0, 100.0])], 1.0)["ticks"]]
    assert labels == ["0", "1.25", "2.5", "3.75", "≥ 5"]
    labels = [tick[0] for tick in plot_strips([marks([0.0, 4.0])], 1.0)["ticks"]]
    assert labels == ["0", "1", "2", "3", "4"]


def test_the_roc_curve_and_its_marks_share_one_scale():
    rates = np.array([0.0, 0.0, 0.1, 1.0]), np.array([0.0, 0.5, 0.5, 1.0])
    plot = plot_roc(rates, (0.1, 0.5), ((0.0, 0.3), (0.2, 0.8)), 0.1)
    assert plot["curve"][0] == (plot["left"], plot["bottom"])
    assert plot["curve"][-1] == (plot["right"], plot["top"])
    assert plot["at"] == plot["curve"][2]
    assert plot["nominal"] == plot["at"][0]
    across, upright = plot["cross"]
    assert across[0] == plot["left"]
    assert across[1] == across[3] == plot["at"][1]
    assert upright[0] == upright[2] == plot["at"][0]
    assert upright[1] > plot["at"][1] > upright[3]  # y grows downwards
