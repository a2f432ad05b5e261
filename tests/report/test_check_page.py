"""The page of a fault check, as text and in Chromium."""

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
from gammavae_jax.report.check_page import check_html, write_check_page
from gammavae_jax.scoring.verdict import Verdict

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
