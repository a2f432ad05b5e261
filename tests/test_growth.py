"""Commands are timed stage by stage, and growth is measured, at tiny sizes."""

import json
import sys

import pytest
from support.benchmarks import assert_positive, figures, script
from support.processes import ROOT

from benchmarks.growth import in_turns
from benchmarks.growth_page import BEGIN, END, expected, growth_page, slope
from benchmarks.scaling_page import put_into
from benchmarks.stopwatch import FUNCTIONS, REST, STAGES, Moment, Stopwatch, exclusive
from benchmarks.timed_command import SHOWN_STAGES, longest_silence, run_in_terminal
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.errors import InputError


def assert_is_timed(result, *stages):
    assert result["stages"].keys() == set(SHOWN_STAGES)
    wall = [of_stage["wall_s"] for of_stage in result["stages"].values()]
    assert sum(wall) == pytest.approx(result["wall_s"], abs=0.5)
    cpu = [of_stage["cpu_s"] for of_stage in result["stages"].values()]
    assert sum(cpu) == pytest.approx(result["cpu_s"], abs=0.5)
    assert_positive(result["stages"][stage]["wall_s"] for stage in stages)
    assert_positive([result["wall_s"], result["cpu_s"], result["peak_memory_bytes"]])


BOTH = "import", "compile", "features", "rest", "exit"
TRAINED = *BOTH, "load", "links", "split", "training", "fits", "page"


def measured(tmp_path, *commands):
    """Time commands at a tiny size; return the results by command and cache."""
    sizes = {name: SyntheticSize(6, 2, 2, (0.4, 0.4)) for name in ("fan", "valve")}
    data = make_synthetic(tmp_path / "data", sizes)
    record = figures(
        "bench_end_to_end", tmp_path, "--rounds", 1, "--epochs", 1, "--data-root", data,
        "--clips", 6, "--seconds", 0.5, "--commands", *commands,
    )  # fmt: skip
    found = {(of["command"], of["cache"]): of for of in record["results"]}
    assert list(found) == [(n, cache) for n in commands for cache in ("cold", "warm")]
    for result in found.values():
        assert 0 < result["silent_s"] <= result["wall_s"]
        assert isinstance(result["silent_after"], str)
    return found


def test_the_main_job_is_timed_with_a_cold_and_a_warm_cache(tmp_path):
    for result in measured(tmp_path, "run").values():
        assert_is_timed(result, *TRAINED, "scores")
        timing = ("features_s", "compile_s", "train_s", "score_s", "windows_per_s")
        assert_positive(result["timing"][name] for name in timing)
        assert_positive(result["official_score"].values())


@pytest.mark.slow
def test_fit_and_score_are_timed_with_a_cold_and_a_warm_cache(tmp_path):
    for (name, _), result in measured(tmp_path, "fit", "score").items():
        stages = TRAINED if name == "fit" else (*BOTH, "load", "scores")
        assert_is_timed(result, *stages)
        assert "timing" not in result


@pytest.mark.slow
def test_the_demo_is_timed_with_the_recordings_that_it_makes(tmp_path):
    record = figures("bench_end_to_end", tmp_path, "--rounds", 1, "--commands", "demo")
    cold, warm = record["results"]
    for result in (cold, warm):
        assert result["command"] == "demo"
        assert_is_timed(result, "import", "compile", "training", "scores", "page")
    # Only the first demo makes the built-in set.
    assert cold["stages"]["load"]["cpu_s"] > warm["stages"]["load"]["cpu_s"]


def test_each_moment_belongs_to_one_stage():
    spans = [("training", 1.0, 5.0), ("compile", 2.0, 3.0), ("compile", 2.5, 3.5)]
    assert list(exclusive(spans, 0.0, 6.0)) == [
        (REST, 0.0, 1.0), ("training", 1.0, 2.0), ("compile", 2.0, 2.5),
        ("compile", 2.5, 3.0), ("compile", 3.0, 3.5), ("training", 3.5, 5.0),
        (REST, 5.0, 6.0),
    ]  # fmt: skip


def test_the_cpu_seconds_between_two_moments_are_distributed_evenly():
    watch = Stopwatch()
    watch.moments = [Moment(0.0, 0.0), Moment(4.0, 8.0)]
    watch.spans = [("compile", 1.0, 2.0)]
    stages = watch.stages(Moment(6.0, 8.0))
    assert stages["compile"] == {"wall_s": 1.0, "cpu_s": 2.0}
    assert stages[REST] == {"wall_s": 5.0, "cpu_s": 6.0}


@pytest.mark.parametrize(("module", "name", "stage"), FUNCTIONS)
def test_the_functions_that_begin_a_stage_exist(module, name, stage):
    assert stage in STAGES
    __import__(module)
    assert callable(getattr(sys.modules[module], name))


def test_the_longest_silence_is_found_in_a_terminal():
    code = (
        "import sys, time\n"
        "print('\\x1b[1mloading\\x1b[0m', sys.stdout.isatty(), flush=True)\n"
        "time.sleep(1)\n"
        "print('done', file=sys.stderr)"
    )
    printed, end, _ = run_in_terminal([sys.executable, "-c", code], {})
    silence = longest_silence(printed[0][0], printed, end)
    assert silence.after == "loading True"
    assert 0.9 < silence.seconds <= end - printed[0][0]
    assert "done" in printed[-1][1]


def test_the_output_of_a_failing_command_is_shown(capfd):
    code = "import sys; print('broken'); sys.exit(3)"
    with pytest.raises(SystemExit, match="3"):
        run_in_terminal([sys.executable, "-c", code], {})
    assert "broken" in capfd.readouterr().err


@pytest.mark.slow
def test_growth_is_measured_in_fresh_processes(tmp_path):
    record = figures(
        "growth", tmp_path, "--machines", 1, 2, "--clips", 10, "--seconds", 1,
        "--scored", 1, 3, "--minutes", 60,
    )  # fmt: skip
    sizes = {axis: [of["size"] for of in found] for axis, found in
             record["results"].items()}  # fmt: skip
    assert sizes == {
        "machines": [1, 2],
        "clips": [10],
        "seconds": [1],
        "scored": [1, 3],
    }
    assert not any(record["left_out"].values())
    for found in record["results"].values():
        for result in found:
            assert_is_timed(result["fit"], "import", "training", "fits", "links")
            assert_is_timed(result["score"], "import", "load", "scores")
            assert 0 < result["fit"]["work_cpu_s"] < result["fit"]["cpu_s"]
    assert "### Clips to score" in growth_page(record)


def test_a_case_that_would_take_too_long_is_left_out(tmp_path):
    record = figures(
        "growth", tmp_path, "--machines", 1, 100_000, "--clips", 10, "--seconds", 1,
        "--scored", 1, "--minutes", 1,
    )  # fmt: skip
    assert record["left_out"]["machines"] == [100_000]
    assert "too much memory: 100,000." in growth_page(record)


def test_small_sizes_are_measured_first():
    sizes = {"machines": [1, 10, 100], "clips": [10], "seconds": [1, 60]}
    assert list(in_turns(sizes)) == [
        ("machines", 1), ("clips", 10), ("seconds", 1),
        ("machines", 10), ("seconds", 60), ("machines", 100),
    ]  # fmt: skip


def test_the_slope_is_the_exponent_of_growth():
    assert slope(10, 3.0, 100, 300.0) == pytest.approx(2.0)
    assert slope(10, 3.0, 20, 6.0) == pytest.approx(1.0)
    assert expected([10], [2.0], 100) == pytest.approx(20.0)
    assert expected([10, 100], [2.0, 3.0], 1000) == pytest.approx(30.0)
    assert expected([10, 100], [1.0, 100.0], 1000) == pytest.approx(10_000.0)
    assert expected([10, 100], [0.0, 1.0], 1000) == pytest.approx(100.0)


def costs(work, megabytes=300, **stages):
    seconds = dict.fromkeys(SHOWN_STAGES, 0.0) | stages
    return {
        "wall_s": work + 2, "cpu_s": work + 3, "work_cpu_s": work,
        "peak_memory_bytes": megabytes * 1e6,
        "stages": {name: {"wall_s": s, "cpu_s": s} for name, s in seconds.items()},
    }  # fmt: skip


@pytest.fixture
def growth_figures():
    """Return figures in which links grow with the square of the clips."""
    about = {"cores": 2, "processor": "a", "device": "cpu", "python": "3"}
    about |= {"packages": {"jax": "0"}, "load_average_before": 0.0}
    clips = [
        {
            "size": n,
            "fit": costs(n / 100 + n * n / 1e6, 300 + n**2 // 10**4,
                         training=n / 100, links=n * n / 1e6),
            "score": costs(0.5),
        }
        for n in (10, 1000, 10_000)
    ]  # fmt: skip
    return {
        "folds": 2,
        "usual": {"machines": 1, "clips": 10, "seconds": 1, "scored": 1},
        "results": {"clips": clips},
        "left_out": {"clips": [100_000]},
        "environment": about,
    }


def test_the_page_names_what_grows_faster_than_linearly(growth_figures):
    page = growth_page(growth_figures)
    assert (
        "**The work of `gammavae fit` grows faster than linearly** (slope 1.26). "
        "Cause: finding linked clips (100 CPU s, slope 2.00), because every pair of "
        "training clips is compared"
    ) in page
    assert "The memory of `gammavae fit` grows" in page
    assert "gammavae score` grows" not in page
    assert "training (" not in page
    assert "| 10,000 | 202 | 203 | 200 | 10,300 | 2.5 | 3.5 | 0.50 | 300 |" in page
    assert "| *last slope* | 1.19 |" in page
    assert "too much memory: 100,000." in page


def test_growth_replaces_only_its_own_section_of_a_page(growth_figures, tmp_path):
    page = tmp_path / "page.md"
    fleets = "<!-- figures: begin -->\nfleets\n<!-- figures: end -->"
    page.write_text(f"{fleets}\n{BEGIN}\nformer\n{END}\nafter\n")
    (tmp_path / "figures.json").write_text(json.dumps(growth_figures))
    script("growth", "--page", tmp_path / "figures.json", "--into", page)
    text = page.read_text()
    assert text.startswith(f"{fleets}\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert growth_page(growth_figures) in text
    assert "former" not in text


def test_the_page_has_the_measured_growth():
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    figures = ROOT / "benchmarks" / "results" / "growth.json"
    between = page.partition(BEGIN)[2].partition(END)[0]
    if figures.exists():
        assert between.strip() == growth_page(json.loads(figures.read_text())).strip()
    else:
        assert between.strip() == "Not measured yet."


def test_a_page_without_markers_is_refused_with_the_markers_of_this_section(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text", encoding="utf-8")
    with pytest.raises(InputError, match=BEGIN):
        put_into(page, "figures", BEGIN, END)
    assert page.read_text(encoding="utf-8") == "text"
