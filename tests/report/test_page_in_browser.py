"""`report.html` as users see it: opened in Chromium, clicked through, measured."""

import dataclasses
import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_curve
from support.chromium import browser, contrasts, opened, wait
from support.detectors import fitted, small
from support.probes import clips, noise, tone

from gammavae_jax.data.audio.samples import Signal
from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import evaluate_section
from gammavae_jax.report.figures import CodeUse, Curve
from gammavae_jax.report.page import Report, error_bars, report_html
from gammavae_jax.report.pictures import Sound
from gammavae_jax.report.recordings_page import write_recordings_report
from gammavae_jax.report.shown_clips import WantedClip, show_clips, telling_clips_of_all
from gammavae_jax.scoring.detector import clip_p_values
from gammavae_jax.scoring.scored_clips import ScoredClips

RATE, HOP = 16000, 512
HOSTILE = (
    "x\"'><img src=x onerror=alert(1)></script><script>alert(2)</script>\n\u2028.wav"
)
EVIL_MACHINE = "<b onmouseover='alert(3)'>"
THEIRS = (60.0, 50.0, 51.0)
PUBLISHED = {"<i>theirs</i>": {EVIL_MACHINE: THEIRS, "pump": THEIRS}}


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def made():
    """Return a detector for two machines."""
    rng = np.random.default_rng(0)
    names = (EVIL_MACHINE, "pump")
    machines = [(n, clips(noise(rng, 20, 40), n_target=4)) for n in names]
    scores = ["fusion_mean", "mse", "mahalanobis"]
    slowly = "train.learning_rate=0.001"
    config = small("gammavae", f"scores={json.dumps(scores)}", "n_seeds=2", slowly)
    return fitted(config, machines, 20)


@pytest.fixture(scope="module")
def scored(made):
    """Return twelve scored clips per machine; the last six have a tone."""
    rng = np.random.default_rng(1)
    log_mels = [
        [
            *noise(rng, 6, 40),
            *tone(rng, 2 + m, 60 + 20 * m, 0.2, n_frames=40),
            *tone(rng, 4 - m, 60 + 20 * m, 12.0, n_frames=40),
        ]
        for m in range(2)
    ]
    log_mels[0][0][5] = 3000.0  # dB; scales must have room for long numbers
    scores = made.scores(*(clips(of) for of in log_mels))
    machines = []
    for m, (machine, section) in enumerate(made.detector.machines):
        names = [f"clip {i} of {m}.wav" for i in range(12)]
        names[0] = HOSTILE
        names[4] = "it's $HOME.wav"
        of = {name: values[:, m] for name, values in scores.items()}
        of["mahalanobis"] = np.floor(np.log(of["mahalanobis"]))  # many are equal
        machines.append(
            ScoredClips(
                machine,
                section,
                tuple(names),
                ("normal",) * 6 + ("anomaly",) * 6,
                ("source", "source", "target") * 4,
                of,
                {n: made.detector.thresholds[n][:, m] for n in of},
                {
                    n: np.array(
                        [
                            clip_p_values(made.detector, n, s, m, v)
                            for s, v in enumerate(values)
                        ]
                    )
                    for n, values in of.items()
                },
                made.detector.config.seeds,
            )
        )
    return log_mels, machines


@pytest.fixture(scope="module")
def written(made, scored, tmp_path_factory):
    """Write a page with all kinds of content; return its path and the content."""
    log_mels, machines = scored
    config = made.detector.config
    rows = [
        evaluate_section(
            of.scores[score][s].astype(float),
            of.is_anomaly,
            of.is_target,
            threshold=float(of.thresholds[score][s]),
            machine=of.machine,
            section=of.section,
            score=score,
            seed=seed,
        )
        for s, seed in enumerate(config.seeds)
        for score in config.scores
        for of in machines
    ]
    second = np.sin(np.arange(40 * HOP) * 0.3).astype(np.float32) / 8
    sound = Sound(second, RATE)
    wanted = [
        WantedClip(m, c, m, lambda m=m, c=c: (log_mels[m][c].astype("f4"), sound))
        for m in range(2)
        for c in (0, 1, 9, 11)
    ]
    report = Report(
        config,
        machines,
        rows,
        [HOSTILE, "Synthetic data."],
        PUBLISHED,
        curves={EVIL_MACHINE: Curve((3.0, 2.0), (4.0, float("nan")))},
        codes={EVIL_MACHINE: CodeUse(2.5, [0.0, 1.25, 3.0])},
        error_bars=error_bars(machines, config.scores),
        about={"timing": {"train_s": 1.5}, "environment": {"device": HOSTILE}},
        how_to_show="gammavae report RUN --clips {clip}",
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_html(report, show_clips(made.detector, wanted)))
    return SimpleNamespace(path=path, report=report, rows=rows, machines=machines)


@pytest.fixture
def page(chromium, written):
    with opened(chromium, written.path, viewport={"width": 1440, "height": 900}) as p:
        p.wait_for_selector("#clip canvas")
        yield p


def column(page, table, number):
    cells = page.locator(f"{table} tbody tr > :nth-child({number})")
    return cells.all_inner_texts()


def wait_for_clip(page, clip):
    """Wait until a clip of the first machine is shown with pictures."""
    wait(
        page,
        "name => document.querySelector('#clip h3')?.textContent === name "
        "&& document.querySelector('#clip canvas') !== null",
        f"clip {clip} of 0.wav",
    )


def drawn(page, place=0):
    """Return the pixels of one of the selected clip's pictures."""
    return page.evaluate(
        """(i) => {
          const c = document.querySelectorAll(".stage canvas")[i];
          const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
          return Array.from(data);
        }""",
        place,
    )


BY_MACHINE, BY_SCORE = (f"#results .tables > div:nth-child({n}) table" for n in (1, 2))


@pytest.mark.parametrize(
    ("table", "number"),
    [(BY_MACHINE, 1), (BY_MACHINE, 2), (BY_SCORE, 1), (BY_SCORE, 2)],
)
def test_a_click_on_a_header_sorts_by_its_column(page, table, number):
    header = page.locator(f"{table} thead th:nth-child({number})")
    before = column(page, table, number)
    assert len(set(before)) > 1
    orders = []
    for _ in range(2):
        header.locator("button").click()
        cells = column(page, table, number)
        key = str.lower if number == 1 else lambda c: float(c.split("±")[0])
        order = header.get_attribute("aria-sort")
        assert cells == sorted(cells, key=key, reverse=order == "descending")
        assert sorted(cells) == sorted(before)
        orders.append(order)
    assert set(orders) == {"ascending", "descending"}
    others = page.locator(f"{table} thead th:not(:nth-child({number}))[aria-sort]")
    assert {o.get_attribute("aria-sort") for o in others.all()} == {"none"}


def test_the_keyboard_sorts_tables_and_missing_values_stay_last(page):
    table = "table.official"
    page.evaluate(
        """() => { document.querySelector("table.official tbody tr")
            .cells[1].textContent = "-"; }"""
    )
    button = page.locator(f"{table} thead th:nth-child(2) button")
    button.focus()
    for _ in range(2):
        page.keyboard.press("Enter")
        cells = column(page, table, 2)
        assert cells[-1] == "-"
        assert len(cells) == 3


def test_the_list_is_ranked_by_score_and_shows_the_facts_of_each_clip(page, written):
    of = written.machines[0]
    scores = of.scores["fusion_mean"][0]
    options = page.locator("#ranking [role=option]")
    assert options.count() == 12
    order = [int(o.get_attribute("data-clip")) for o in options.all()]
    assert order == np.argsort(-scores, kind="stable").tolist()
    alarms = of.decisions("fusion_mean")[0]
    p_values = of.p_values["fusion_mean"][0]
    for clip, option in zip(order, options.all(), strict=True):
        text = option.inner_text()
        assert f"p = {p_values[clip]:.3f}" in text
        assert of.domains[clip] in text
        label = of.labels[clip]
        assert {"normal": "normal", "anomaly": "anomalous"}[label] in text
        outcome = {
            ("anomaly", True): "found",
            ("anomaly", False): "missed",
            ("normal", True): "false alarm",
            ("normal", False): "no alarm",
        }[label, bool(alarms[clip])]
        assert text.endswith(outcome)


def test_another_clip_has_different_pictures(page):
    seen = []
    for clip in (11, 9, 1):
        page.locator(f"#option-{clip}").click()
        wait_for_clip(page, clip)
        seen.append([drawn(page, place) for place in range(4)])
        option = page.locator(f"#option-{clip}")
        assert option.get_attribute("aria-selected") == "true"
    places = (0, 2, 3)  # a collapsed code gives every clip the same reconstruction
    for place in places:
        assert len({tuple(pictures[place]) for pictures in seen}) == 3
    for pictures in seen:
        assert len({tuple(picture) for picture in pictures}) == 4
        assert all(len(set(pictures[place])) > 20 for place in places)


def test_the_explanation_is_strongest_at_the_tone(page):
    """The tone adds 12 dB to band 60 of 128."""
    page.locator("#option-11").click()
    wait_for_clip(page, 11)
    pixels = np.array(drawn(page, 3)).reshape(128, 40, 4)[::-1]
    darkness = 255.0 * 3 - pixels[:, :, :3].sum(-1)
    assert darkness.sum(1).argmax() == 60
    assert "kHz" in page.locator("#clip .why").inner_text()


def test_a_clip_without_pictures_says_how_to_get_them(page, written):
    page.locator("#option-4").click()
    page.wait_for_selector("#clip code")
    assert page.locator("#clip canvas").count() == 0
    command = shlex.split(page.locator("#clip code").inner_text())
    assert command[:-1] == ["gammavae", "report", "RUN", "--clips"]
    # The command names the machine, because others may have a clip of this name.
    assert command[-1].endswith("_section_00/it's $HOME.wav")


def test_arrow_keys_select_clips_and_move_in_time(page):
    page.locator("#ranking").focus()
    order = [
        int(o.get_attribute("data-clip"))
        for o in page.locator("#ranking [role=option]").all()
    ]

    def selected():
        name = page.locator("#ranking").get_attribute("aria-activedescendant")
        return int(name.removeprefix("option-"))

    page.keyboard.press("Home")
    assert selected() == order[0]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert selected() == order[2]
    page.keyboard.press("ArrowUp")
    assert selected() == order[1]
    page.keyboard.press("End")
    assert selected() == order[-1]
    page.locator("#option-11").click()
    wait(page, "document.querySelector('audio')?.readyState >= 2")
    page.keyboard.press("ArrowRight")
    wait(page, "document.querySelector('audio').currentTime > 0.4")


SLOW_AT_FIRST = """
  const read = Response.prototype.arrayBuffer;
  let turn = 0;
  Response.prototype.arrayBuffer = async function () {
    const isLate = turn++ < 3;
    const bytes = await read.call(this);
    if (isLate) await new Promise((resolve) => setTimeout(resolve, 400));
    return bytes;
  };
"""


def test_a_clip_that_is_slow_to_unpack_does_not_replace_a_later_one(chromium, written):
    with opened(chromium, written.path, before=SLOW_AT_FIRST) as page:
        assert page.locator("#option-1[aria-selected=true]").count() == 0
        page.locator("#option-1").click()
        wait_for_clip(page, 1)
        page.wait_for_timeout(600)
        wait_for_clip(page, 1)
        assert page.locator("#clip canvas").count() == 8


def test_a_click_on_a_picture_moves_the_sound_and_the_cursor(page):
    page.locator("#option-9").click()
    wait(page, "document.querySelector('audio')?.readyState >= 2")
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(
        40 * HOP / RATE, abs=0.15
    )
    stage = page.locator(".stage").nth(2)
    box = stage.bounding_box()
    stage.click(position={"x": box["width"] * 0.75, "y": box["height"] / 2})
    seconds = page.evaluate("document.querySelector('audio').currentTime")
    assert seconds == pytest.approx(0.75 * 40 * HOP / RATE, abs=0.05)
    places = page.evaluate(
        "[...document.querySelectorAll('.cursor')].map((c) => parseFloat(c.style.left))"
    )
    assert places == [pytest.approx(75, abs=3)] * 4


def test_another_machine_score_or_seed_redraws_everything(page, written):
    names = ("histogram", "roc", "ranking")

    def state():
        return [page.locator(f"#{name}").inner_html() for name in names]

    before = state()
    page.locator("#machine").select_option("1")
    machine = state()
    assert all(one != other for one, other in zip(before, machine, strict=True))
    assert page.locator("#clip h3").inner_text().endswith(" of 1.wav")
    page.locator("#score").select_option("1")
    score = state()
    page.locator("#seed").select_option("1")
    for one, other in ((machine, score), (score, state())):
        assert one[0] != other[0]
        assert one[2] != other[2]
    of = written.machines[1].scores["mse"][1]
    first = page.locator("#ranking [role=option]").first
    assert int(first.get_attribute("data-clip")) == int(of.argmax())


@pytest.mark.parametrize(("place", "name"), [(0, "fusion_mean"), (2, "mahalanobis")])
def test_the_roc_curve_is_scikit_learns(page, written, place, name):
    """Some of the clips have equal scores."""
    of = written.machines[0]
    false_alarms, found, _ = roc_curve(
        of.is_anomaly, of.scores[name][0], drop_intermediate=False
    )
    page.locator("#score").select_option(str(place))
    points = page.evaluate(
        """() => {
          const [line, grid] = ["roc all", "chance"].map((n) =>
            document.querySelector(`#roc polyline[class="${n}"]`).getAttribute("points")
              .trim().split(" ").map((p) => p.split(",").map(Number)));
          const [[x0, y0], [x1, y1]] = grid;
          return line.map(([x, y]) => [(x - x0) / (x1 - x0), (y - y0) / (y1 - y0)]);
        }"""
    )
    np.testing.assert_allclose(points, np.stack([false_alarms, found], 1), atol=2e-3)
    if name == "mahalanobis":
        assert len(points) < 12
    title = page.locator("#roc-title").inner_text()
    row = next(r for r in written.rows if r.score == name)
    assert f"pAUC {100 * row.pauc:.1f}" in title


def test_the_histogram_counts_every_clip(page, written):
    """The heights of the bars add up to the number of clips."""
    heights = page.evaluate(
        """() => {
          const bars = [...document.querySelectorAll("#histogram > svg rect")];
          const label = document.querySelector("#histogram text:nth-of-type(2)");
          const most = Number(label.textContent);
          const tall = Math.max(...bars.map((b) => Number(b.getAttribute("height"))));
          const count = (kind) => bars
            .filter((bar) => bar.getAttribute("class") === kind)
            .reduce((sum, bar) => sum + bar.getAttribute("height") * most / tall, 0);
          return { normal: count("normal"), anomaly: count("anomaly") };
        }"""
    )
    assert heights == {"normal": pytest.approx(6), "anomaly": pytest.approx(6)}
    assert page.locator("#histogram .threshold").count() == 1


TEXTS = (
    *(".lead", ".note", "dt", "dd", "td", "thead th", "figcaption", "#ranking .meta"),
    *("#ranking [aria-selected=true] .meta", ".small", ".hint", "summary", "label"),
)


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_has_enough_contrast(chromium, written, width, scheme):
    size = {"width": width, "height": 844}
    with opened(chromium, written.path, viewport=size, color_scheme=scheme) as page:
        page.wait_for_selector("#clip canvas")
        for clip in (11, 4, 0):  # with pictures, without pictures, with a hostile name
            page.locator(f"#option-{clip}").click()
            page.wait_for_timeout(60)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        ratios = contrasts(page, *TEXTS)
        assert min(ratios.values()) >= 4.5, ratios


def test_another_colour_scheme_repaints_the_pictures(chromium, written):
    with opened(chromium, written.path, color_scheme="light") as page:
        page.wait_for_selector("#clip canvas")
        light = drawn(page, 3)
        page.emulate_media(color_scheme="dark")
        page.wait_for_timeout(100)
        assert drawn(page, 3) != light


def test_hostile_names_are_text_and_nothing_else(page, written):
    """A dialog, an error or a request elsewhere also fails the test."""
    page.locator("#option-0").click()
    page.wait_for_selector("#clip canvas")
    assert page.locator("#clip h3").evaluate("e => e.textContent") == HOSTILE
    names = page.locator("#ranking .name").evaluate_all(
        "es => es.map(e => e.textContent)"
    )
    assert names.count(HOSTILE) == 1
    assert EVIL_MACHINE in page.locator("#machine option").first.inner_text()
    assert page.locator("img").count() == 0
    assert page.locator("b[onmouseover]").count() == 0
    assert page.locator("#results i").count() == 0
    assert page.locator("script:not([type])").count() == 1
    notes = page.locator(".note").evaluate_all("es => es.map(e => e.textContent)")
    assert HOSTILE in notes


def test_markup_that_slipped_through_would_still_not_run(chromium, written, tmp_path):
    """The page's policy allows only its own script."""
    spoilt = tmp_path / "spoilt.html"
    text = written.path.read_text()
    extra = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"
    spoilt.write_text(text.replace("<main", extra + "<main", 1))
    context = chromium.new_context()
    page = context.new_page()
    page.goto(spoilt.as_uri())
    page.wait_for_selector("#clip canvas")
    assert page.evaluate("window.ran") is None
    context.close()


def test_without_the_script_the_tables_can_be_read(chromium, written):
    with opened(chromium, written.path, java_script_enabled=False) as page:
        assert page.locator("#results table").first.is_visible()
        assert page.locator("noscript").inner_text()
        assert not page.locator("#clips").is_visible()
        page.locator("#results summary").first.click()
        assert page.locator("#results details table").first.is_visible()
        assert page.locator(".curve svg").count() == 1


def recordings(log_mels, names, n_parts=1):
    """Return loaded recordings with their sounds, each cut into some parts."""
    owners = np.arange(len(log_mels)) // n_parts
    signals = (Signal(0.0, 0.0),) * len(log_mels)
    files = clips(log_mels)._replace(recording=owners, signals=signals)
    sounds = tuple(np.zeros(4000, np.float32) for _ in log_mels)
    return LoadedRecordings(tuple(names), files, sounds)


def test_recordings_without_labels_have_a_page(chromium, made, scored, tmp_path):
    log_mels, machines = scored
    given = [
        (m, recordings(log_mels[m], of.names), np.array(values))
        for m, of in enumerate(machines)
        for values in [of.scores["fusion_mean"][0]]
    ]
    path = tmp_path / "scored.html"
    write_recordings_report(path, made.detector, given)
    with opened(chromium, path) as page:
        page.wait_for_selector("#clip canvas")
        assert page.title() == "Anomalous sound detection"
        assert not page.locator("#roc-figure").is_visible()
        assert not page.locator("#score").is_visible()
        drawing = "document.querySelector('#histogram svg').viewBox.baseVal.width"
        assert page.evaluate(drawing) > 1100  # the whole width is used
        assert page.locator("#histogram rect.unknown").count() > 0
        assert page.locator("#ranking [role=option]").count() == 12
        assert page.locator("#results table").count() == 0
        assert page.locator("#machine").is_visible()
        assert page.inner_text("#clips-title") == "Clips"
        assert EVIL_MACHINE in page.locator("#machine option").first.inner_text()
        assert page.locator(".note").count() == 0


def test_a_recording_that_was_cut_is_shown_part_by_part(made, scored, tmp_path):
    path = tmp_path / "scored.html"
    cut = recordings(scored[0][1][:4], ["a.wav", "b.wav"], n_parts=2)
    write_recordings_report(path, made.detector, [(1, cut, np.arange(4.0))])
    html = path.read_text()
    assert "b.wav part 2 of 2" in html
    assert "This page shows the parts one by one" in html


def test_a_page_without_clips_or_at_an_unwritable_path_is_refused(
    made, scored, tmp_path
):
    some = recordings(scored[0][1][:1], ["a.wav"])
    with pytest.raises(InputError, match="there are no clips to report on"):
        write_recordings_report(tmp_path / "page.html", made.detector, [])
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(InputError, match=r"cannot be written: .*: choose another path"):
        write_recordings_report(tmp_path, made.detector, [(1, some, np.ones(1))])


def test_pictures_stop_at_the_byte_budget(made, scored):
    log_mels, _ = scored

    def load(c):
        return lambda: (log_mels[0][c].astype(np.float32), Sound(None, RATE, "none"))

    wanted = [WantedClip(0, c, 0, load(c)) for c in range(6)]
    all_of_them = show_clips(made.detector, wanted)
    assert [clip for _, clip, _ in all_of_them] == list(range(6))
    room = sum(len(payload) for *_, payload in all_of_them[:3])
    assert show_clips(made.detector, wanted, max_bytes=room) == all_of_them[:3]


N_MACHINES, N_CLIPS, SECONDS = 7, 200, 10


def test_a_page_of_own_recordings_needs_no_knowledge_of_scores(
    chromium, made, scored, tmp_path
):
    """No preset or score is named; the smallest possible p-value is marked."""
    one = {"scores": ("mse",), "score": "mse", "n_seeds": 1}
    config = dataclasses.replace(made.detector.config, **one)
    unknown, p_values = ("",) * 12, np.linspace(0.05, 0.6, 12)[None]
    pump = scored[1][1]._replace(
        section="",
        labels=unknown,
        domains=unknown,
        p_values={"mse": p_values},
        seeds=config.seeds,
    )
    report = Report(config, [pump], least_p={"pump": 0.05}, is_evaluated=False)
    path = tmp_path / "report.html"
    path.write_text(report_html(report))
    with opened(chromium, path) as page:
        text = page.inner_text("body")
        assert page.inner_text("#clips-title") == "Clips of pump"
        assert not page.locator("#machine").is_visible()
        listed = page.locator("#ranking [role=option]").all_inner_texts()
    assert "mse" not in text
    assert "Preset" not in text
    marked = [option for option in listed if "p \u2264 0.050" in option]
    assert len(marked) == 1
    assert "alert(1)" in marked[0]  # the first clip's name
    assert sum("p = 0." in option for option in listed) == 11


@pytest.mark.slow
def test_seven_machines_of_two_hundred_clips_open_quickly(chromium, made, tmp_path):
    """Each clip is ten seconds of noise, which compresses worse than any machine."""
    rng = np.random.default_rng(3)
    n_frames = 1 + SECONDS * RATE // HOP
    log_mel = noise(rng, 1, n_frames)[0].astype(np.float32)
    waveform = (rng.standard_normal(SECONDS * RATE) / 8).astype(np.float32)
    config = made.detector.config

    def machine(m):
        names = tuple(
            f"section_00_source_test_normal_{c:04d}_of_{m}.wav" for c in range(N_CLIPS)
        )
        values = rng.standard_normal((config.n_seeds, N_CLIPS))
        return ScoredClips(
            f"machine {m}",
            "00",
            names,
            ("normal", "anomaly") * (N_CLIPS // 2),
            ("source",) * N_CLIPS,
            dict.fromkeys(config.scores, values),
            dict.fromkeys(config.scores, np.full(config.n_seeds, 1.3)),
            dict.fromkeys(config.scores, rng.random(values.shape)),
            config.seeds,
        )

    machines = [machine(m) for m in range(N_MACHINES)]
    chosen = telling_clips_of_all(machines, config.score, 0)
    assert len(chosen) == N_MACHINES * 12
    wanted = [
        WantedClip(m, c, 0, lambda: (log_mel, Sound(waveform, RATE))) for m, c in chosen
    ]
    path = tmp_path / "report.html"
    shown = show_clips(made.detector, wanted)
    assert len(shown) == len(chosen)
    path.write_text(report_html(Report(config, machines), shown))
    assert path.stat().st_size < 25e6
    with opened(chromium, path) as page:
        page.wait_for_selector("#clip canvas")
        seconds = page.evaluate("performance.now()") / 1000
        assert page.locator("#ranking [role=option]").count() == N_CLIPS
        print(
            f"{path.stat().st_size / 1e6:.1f} MB, {seconds:.2f} s to the first picture"
        )
        assert seconds < 2
