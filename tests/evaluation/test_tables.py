"""Summaries of result rows, and their tables."""

import io
import json
import math
import statistics

import pytest
from rich.console import Console

from gammavae_jax.config_json import to_json
from gammavae_jax.evaluation.metrics import METRICS, Row
from gammavae_jax.evaluation.official import harmonic_mean, official_score
from gammavae_jax.evaluation.tables import (
    percent,
    results_table,
    summarise_rows,
    table_cells,
)

PUBLISHED = {"theirs": {"fan": (60.0, 50.0, 51.0), "pump": (70.0, 40.0, 53.0)}}


def row(machine="fan", seed=1, score="mse", section="00", **values) -> Row:
    """Return a row whose values are 0.5, except for the given ones."""
    return Row(seed, score, machine, section, *[0.5] * 13)._replace(**values)


def two_seeds():
    """Return two rows of one machine, with an AUC (source) of 0.6 and of 0.8."""
    return [row(seed=1, auc_source=0.6), row(seed=2, auc_source=0.8)]


def test_the_official_score_is_summarised_over_seeds():
    rows = two_seeds()
    per_seed = [official_score([r]) for r in rows]
    assert summarise_rows(rows)["official_score"] == {
        "mse": {
            "mean": pytest.approx(sum(per_seed) / 2),
            "std": pytest.approx(statistics.stdev(per_seed)),
            "per_seed": per_seed,
        }
    }


def test_the_deviation_is_that_of_a_sample_and_0_for_one_seed():
    machine = summarise_rows(two_seeds())["machines"]["fan"]["mse"]
    assert machine["auc_source"]["std"] == pytest.approx(0.2 / math.sqrt(2))
    alone = summarise_rows([row()])
    assert alone["machines"]["fan"]["mse"]["auc"]["std"] == 0
    assert alone["official_score"]["mse"]["std"] == 0


def test_every_metric_of_every_machine_and_score_is_summarised():
    rows = [row(machine=m, score=s) for m in ("fan", "pump") for s in ("mse", "x")]
    summary = summarise_rows(rows)
    assert set(summary["official_score"]) == {"mse", "x"}
    assert set(summary["machines"]) == {"fan", "pump"}
    for scores in summary["machines"].values():
        assert set(scores) == {"mse", "x"}
        assert set(scores["x"]) == set(METRICS)


def test_sections_of_a_machine_are_averaged_arithmetically():
    rows = [row(section="00", auc=0.4), row(section="01", auc=0.8)]
    summary = summarise_rows(rows)
    assert summary["machines"]["fan"]["mse"]["auc"]["mean"] == pytest.approx(0.6)
    assert summary["official_score"]["mse"]["mean"] == official_score(rows)
    mean = summary["harmonic_means"]["mse"]["auc"]["mean"]
    assert mean == pytest.approx(harmonic_mean([0.4, 0.8]))


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_without_target_clips_their_metrics_are_null(seeds):
    rows = [row(seed=s, auc_target=math.nan) for s in seeds]
    read = json.loads(to_json(summarise_rows(rows)))
    target = read["machines"]["fan"]["mse"]["auc_target"]
    assert target["mean"] is None
    assert target["per_seed"] == [None] * len(seeds)
    assert read["official_score"]["mse"]["mean"] == pytest.approx(0.5)


def test_without_rows_the_summary_is_empty():
    assert summarise_rows([])["official_score"] == {}


def test_json_has_null_for_numbers_that_are_not_finite():
    tree = {"a": [math.nan, -math.inf, 1.5], "b": (None, True, "text", 3)}
    text = to_json(tree)
    assert json.loads(text) == {"a": [None, None, 1.5], "b": [None, True, "text", 3]}
    assert text.endswith("}\n")


def test_percent_shows_a_deviation_only_for_several_seeds():
    assert percent({"mean": 0.62643, "std": 0.0066, "per_seed": [1, 2]}) == (
        "62.64 ± 0.66"
    )
    assert percent({"mean": 0.62643, "std": 0.0, "per_seed": [1]}) == "62.64"
    assert percent({"mean": math.nan, "std": 0.0, "per_seed": [1]}) == "-"


def test_the_table_has_a_header_a_line_per_machine_and_the_harmonic_means():
    rows = [row("fan", auc_source=0.6), row("pump", auc_source=0.9, fpr_target=0.1)]
    assert table_cells(rows, "mse", {}) == [
        [
            *("machine", "AUC source", "AUC target", "pAUC"),
            *("FPR source", "FPR target"),
        ],
        ["fan", "60.00", "50.00", "50.00", "50.00", "50.00"],
        ["pump", "90.00", "50.00", "50.00", "50.00", "10.00"],
        ["harmonic mean", "72.00", "50.00", "50.00", "", ""],
    ]


def test_the_table_shows_the_requested_score():
    rows = [row(score="mse", pauc=0.6), row(score="x", pauc=0.7)]
    assert table_cells(rows, "x", {})[1][3] == "70.00"


def test_published_results_are_shown_beside_ours():
    header, fan, pump, mean = table_cells([row("fan"), row("pump")], "mse", PUBLISHED)
    assert [line[-1] for line in (header, fan, pump)] == [
        "theirs",
        "60.00 / 50.00 / 51.00",
        "70.00 / 40.00 / 53.00",
    ]
    assert mean[-1] == "64.62 / 44.44 / 51.98"


def test_published_means_cover_only_the_machines_of_the_run():
    *_, mean = table_cells([row("fan")], "mse", PUBLISHED)
    assert mean[-1] == "60.00 / 50.00 / 51.00"


def printed(rows, title="title", width=200, published=PUBLISHED):
    file = io.StringIO()
    table = results_table(rows, "mse", title, published)
    Console(file=file, width=width).print(table)
    return file.getvalue()


def test_the_terminal_shows_the_same_cells():
    text = printed([row("fan"), row("pump")], title="what it is")
    assert text.startswith("what it is")
    for line in table_cells([row("fan"), row("pump")], "mse", PUBLISHED):
        assert all(cell in text for cell in line)


def test_brackets_in_names_are_not_markup_on_the_terminal():
    text = printed([row("[red]fan")], title="preset [bold]", published={})
    assert "[red]fan" in text
    assert "preset [bold]" in text


def test_eighty_columns_show_every_number():
    """Output to a pipe is treated as 80 columns wide."""
    rows = [row(machine, seed=s) for machine in ("fan", "pump") for s in (1, 2)]
    text = printed(rows, width=80, published={})
    assert "…" not in text
    assert text.count("50.00") == 13
