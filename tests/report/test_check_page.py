"""The page of a fault check, and the geometry of its figures."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from support.chromium import browser, contrasts, opened

from gammavae_jax.data.states import State
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.fault_check import check_fault
from gammavae_jax.evaluation.fault_check_text import advice
from gammavae_jax.report.check_page import (
    Mark,
    check_html,
    plot_roc,
    plot_strips,
    write_check_page,
)
from gammavae_jax.scoring.verdict import Verdict


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


EVIL = "x\"'><img src=x onerror=alert(1)></script><script>alert(2)</script>.wav"


Kind = Callable[..., Verdict]


def of_off(*values) -> Verdict:
    """Return a verdict on a recording of a machine that is off."""
    return Verdict(*values, states={State.OFF: 1})


def verdicts(scores, names="{}.wav", machine="pump", kind: Kind = Verdict):
    return [
        kind(names.format(i), machine, float(s), max(0.01, 0.5 - s / 10), 2.5)
        for i, s in enumerate(scores)
    ]


@pytest.fixture(scope="module")
def missed():
    """Return a check whose faults score higher than normal, but below the threshold."""
    normal = verdicts(np.linspace(0, 1, 20), "healthy {}.wav")
    return check_fault(normal, verdicts(np.linspace(1.2, 2.7, 15), "worn {}.wav"), 0.1)


def test_the_page_states_the_answer_the_numbers_and_what_to_do(missed):
    html = check_html(missed)
    text = " ".join(re.sub(r"<[^>]+>", "", html).split())
    assert "pump: is the detector good enough for this fault?" in text
    assert (
        "Detectable, but the threshold is wrong With 95 % confidence, at most" in text
    )
    assert "2 of 15" in text
    assert "0 of 20" in text
    assert "13 %; 95 % interval: 1.6 to 41 %" in text
    assert "ROC curve: AUC 1.000" in text
    assert "10 % false alarms, as requested" in text
    assert "<code>gammavae threshold</code>" in html
    (remedy,) = advice(missed)
    assert remedy.replace("`", "") in text


def test_every_recording_is_a_row_and_a_dot(missed):
    html = check_html(missed)
    rows = re.findall(r'<tr><th scope="row">(.*?)</tr>', html, re.DOTALL)
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in rows]
    assert len(rows) == 35
    assert rows[0] == ["worn", "14.wav", "faulty", "2.7", "0.23", "2.5", "detected"]
    assert [row[-1] for row in rows[:15]] == ["detected"] * 2 + ["missed"] * 13
    assert all(row[-2:] == ["no", "alarm"] for row in rows[15:])
    assert html.count("<title>worn ") == 15
    assert html.count("<title>healthy ") == 20
    assert html.count(", alarm</title>") == 2


def test_recordings_of_a_machine_that_is_off_are_listed_separately():
    normal = [*verdicts([0, 1]), *verdicts([7], "silent.wav", kind=of_off)]
    html = check_html(check_fault(normal, verdicts([3, 4]), 0.1))
    last = html.rsplit("<tr>", 1)[1]
    assert "silent.wav" in last
    assert "left out" in last
    assert "<title>silent" not in html
    assert "0 of 2" in html


def test_recordings_with_different_thresholds_are_drawn_by_their_distance():
    faulty = [Verdict("long.wav", "pump", 0.7, math.nan, 0.4)]
    html = check_html(check_fault(verdicts([0, 1]), faulty, 0.1))
    assert "Scores minus thresholds, which depend on the length" in html
    assert "<title>long.wav: 0.3, alarm</title>" in html
    assert "<title>0.wav: -2.5</title>" in html
    assert ">threshold 0<" in html
    assert "nan" not in html


def test_names_are_text_and_the_page_needs_no_other_file():
    normal, faulty = (verdicts([0, 3], EVIL, EVIL) for _ in range(2))
    html = check_html(check_fault(normal, faulty, 0.1))
    assert "<img" not in html
    assert "<script" not in html
    assert html.count("&lt;img") >= 9
    assert not re.findall(r"https?:", html)


def test_a_page_that_cannot_be_written_is_one_line(missed, tmp_path):
    with pytest.raises(InputError, match=r"cannot be written: .*: choose another"):
        write_check_page(tmp_path / "no" / "page.html", missed)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_legible_and_not_too_wide(missed, tmp_path, scheme, width):
    path = tmp_path / "page.html"
    write_check_page(path, missed)
    with browser() as chromium:
        size = {"width": width, "height": 900}
        with opened(chromium, path, viewport=size, color_scheme=scheme) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = contrasts(
                page, "h1", ".answer h2", ".answer p", ".answer code", "td", "caption"
            )
            assert len(found) == 6
            assert min(found.values()) >= 4.5
            for figure in page.query_selector_all("figure svg.chart"):
                box = figure.bounding_box()
                assert box["width"] > 0.6 * min(width, 390)
                assert box["x"] + box["width"] <= width
