"""The page's text: it is complete, and untrusted text does not become markup."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from gammavae_jax.config import Config
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.intervals import Bootstrap
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.report.figures import CodeUse, Curve
from gammavae_jax.report.page import Report, report_html
from gammavae_jax.report.templates import resource
from gammavae_jax.runs.finished import find_clip
from gammavae_jax.scoring.scored_clips import ScoredClips

EVIL = "<script>alert(1)</script>"
CONFIG = Config(score="mahalanobis")


class Elements(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


def row(machine="fan", score="mse", seed=13711):
    return Row(seed, score, machine, "00", *[0.5] * 13)


def machine(name="fan", labels=("normal", "anomaly")):
    n = len(labels)
    return ScoredClips(
        name,
        "00",
        tuple(f"{name} {i}.wav" for i in range(n)),
        labels,
        ("source",) * n,
        {score: np.arange(n, dtype=float)[None] for score in CONFIG.scores},
        {score: np.array([0.5]) for score in CONFIG.scores},
        {},
        CONFIG.seeds,
    )


def page(name="fan", **changes):
    rows = [row(name, score) for score in CONFIG.scores]
    return report_html(Report(CONFIG, [machine(name)], rows)._replace(**changes))


def test_every_name_and_note_is_escaped():
    html = page(
        EVIL,
        notes=[EVIL],
        published={EVIL: {EVIL: (1.0, 2.0, 3.0)}},
        curves={EVIL: Curve((3.0, 1.0), (2.0, 2.0))},
        codes={EVIL: CodeUse(2.5, [0.0, 1.25, 3.0])},
        about={EVIL: {EVIL: EVIL}},
        title=EVIL,
        how_to_show=EVIL,
    )
    assert EVIL not in html
    elements = Elements(html)
    assert elements.tags.count("script") == 2  # the page's own, and the data
    text = "".join(elements.text)
    assert text.count(EVIL) > len(CONFIG.scores)
    assert EVIL in text.split("Loss by epoch")[1]


def test_the_page_needs_no_other_file():
    html = page()
    outside = re.findall(r"https?:[^\s\"']+", html)
    assert outside == ["http://www.w3.org/2000/svg"]  # a namespace, not an address
    elements = Elements(html)
    assert not {"link", "img", "iframe", "object"} & set(elements.tags)
    assert "src" not in elements.attributes
    assert "url(" not in html


def test_the_headline_score_comes_first_and_published_results_beside_their_score():
    html = page(published={"theirs": {"fan": (60.0, 50.0, 51.0)}})
    captions = re.findall(r"<caption>(\w+), in percent", html)
    assert captions[0] == CONFIG.score == "mahalanobis"
    assert sorted(captions) == sorted(CONFIG.scores)
    assert html.count("60.00 / 50.00 / 51.00") == 2  # the machine's, and the mean
    assert html.index("theirs") < html.index("Other scores by machine")


def test_official_scores_have_their_interval():
    bars = {score: Bootstrap(0.5, 0.01, 0.4321, 0.5678) for score in CONFIG.scores}
    html = page(error_bars=bars)
    assert html.count(">43.2 to 56.8<") == len(CONFIG.scores)
    assert "95 % interval over test clips: 43.2 to 56.8" in html
    assert 'x="43.21" y="4" width="13.57"' in html


def test_a_page_without_rows_has_notes_and_says_that_nothing_was_evaluated():
    unlabelled = machine(labels=("", ""))
    html = report_html(Report(CONFIG, [unlabelled], notes=["nothing is labelled"]))
    assert "nothing is labelled" in html
    assert "this page shows scores but no evaluation" in html
    assert "<table" not in html


def test_template_syntax_in_a_note_is_text():
    html = page(notes=["{{ script }} </body> {% include 'report.js' %}"])
    assert Elements(html).tags.count("body") == 1
    assert "{{ script }}" in html
    assert "{% include" in html


def test_the_nominal_false_alarm_rate_and_the_unit_are_stated():
    html = page()
    assert "false-alarm rate of at most 10 %" in html
    assert "Results are in percent." in html
    assert "Preset <b>default</b>" in html


@pytest.mark.parametrize(
    ("loss", "scale"),
    [
        ([1.0], "log"),
        ([0.0, -1.0], "linear"),
        ([2.0, 2.0], "log"),
        ([math.nan, 2.0], "log"),
    ],
)
def test_a_curve_of_any_numbers_is_drawn(loss, scale):
    curve = Curve(tuple(loss), (math.nan,) * len(loss))
    html = page(curves={"fan": curve})
    figure = re.search(r"<figure class=\"curve\">.*?</figure>", html, re.DOTALL)
    assert figure is not None
    assert "nan" not in figure[0]
    assert f"{scale} scale" in figure[0]
    n_known = sum(map(math.isfinite, loss))
    assert figure[0].count("<polyline") == (n_known > 1)
    assert figure[0].count("<circle") == (n_known == 1)


def test_the_page_shows_how_much_of_the_code_is_used():
    curve = Curve((2.0, 1.0), (2.0, 1.0))
    html = page(curves={"fan": curve}, codes={"fan": CodeUse(2.5, [0.0, 1.25, 3.0])})
    assert "2.5 of 3" in html
    assert "0.00, 1.25, 3.00" in html


def test_a_clip_is_found_by_name_or_by_machine_and_name():
    machines = [machine("fan"), machine("pump")]
    assert find_clip("pump 1.wav", machines) == (1, 1)
    assert find_clip("pump 1", machines) == (1, 1)
    twins = [machine("fan"), machine("fan")._replace(section="01")]
    assert find_clip("fan_section_01/fan 0.wav", twins) == (1, 0)
    with pytest.raises(InputError, match="exists in fan_section_00 and fan_section_01"):
        find_clip("fan 0.wav", twins)
    with pytest.raises(InputError, match="unknown clip 'fan 7': use one of"):
        find_clip("fan 7", [machine("fan")])


def test_a_whole_name_is_preferred_to_a_longer_name_with_the_same_beginning():
    names = ("fan 10.wav", "fan 1.wav")
    assert find_clip("fan 1", [machine("fan")._replace(names=names)]) == (0, 1)


def test_data_cannot_end_its_script():
    payload = {"a": "</script><!--\u2028\u2029&"}
    written = json.dumps(payload, ensure_ascii=False)
    html = report_html(Report(CONFIG, [machine()]), [(0, 1, written)])
    block = html.split('id="clip-0-1">')[1].split("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(block)
    assert json.loads(block) == payload


def test_only_our_own_files_and_data_skip_autoescape():
    templates = ("base.html", "report.html", "fleet.html", "check.html", "macros.html")
    texts = "".join(map(resource, templates))
    assert sorted(re.findall(r"\{\{ ([\w| ]+) \| safe \}\}", texts)) == [
        *("json | script_json", "script", "style"),
    ]
    assert texts.count("safe") == 3
    assert "autoescape" not in texts
