"""The tables of waves are joined into those that one run would write."""

import itertools
import json

import numpy as np
import pytest

from gammavae_jax.config_json import to_json
from gammavae_jax.evaluation.csv_files import ClipRow, clips_csv, results_csv
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.evaluation.tables import summarise_rows
from gammavae_jax.presets import preset
from gammavae_jax.report.fleet_page import MachineLine, write_fleet_page
from gammavae_jax.runs.fleet.results import join_tables, summarise_results

SEEDS, SCORES = (3, 4), ("mse", "kl")
MACHINES = ("a", "b", "c", "d", "e")


def rows(machines):
    """Return rows that depend only on the seed, score and machine."""
    found = []
    for seed in SEEDS:
        for score, machine in itertools.product(SCORES, machines):
            rng = np.random.default_rng([seed, len(score), ord(machine)])
            found.append(Row(seed, score, machine, "00", *rng.random(13).tolist()))
    return found


def clip_rows(machines):
    found = []
    for score, machine in itertools.product(SCORES, machines):
        for seed, k in itertools.product(SEEDS, range(3)):
            about = (f'clip, "{k}".wav', k / 7, None, k % 2)
            found.append(ClipRow(seed, score, machine, "00", *about))
    return sorted(found, key=lambda row: (SCORES.index(row.score), row.seed))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("make", "text"), [(rows, results_csv), (clip_rows, clips_csv)]
)
def test_joined_tables_of_waves_equal_the_table_of_one_run(tmp_path, make, text, n):
    paths = []
    for first in range(0, len(MACHINES), n):
        paths.append(tmp_path / f"{first}.csv")
        paths[-1].write_text(text(make(MACHINES[first : first + n])), newline="")
    join_tables(paths, tmp_path / "joined.csv")
    assert (tmp_path / "joined.csv").read_text() == text(make(MACHINES))


def test_waves_without_labels_add_nothing_to_the_results(tmp_path):
    paths = [tmp_path / f"{k}.csv" for k in range(3)]
    for path, found in zip(paths, ([], rows("ab"), []), strict=True):
        path.write_text(results_csv(found))
    join_tables(paths, tmp_path / "joined.csv")
    assert (tmp_path / "joined.csv").read_text() == results_csv(rows("ab"))
    join_tables(paths[:1], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == results_csv([])


def test_means_computed_score_by_score_equal_those_of_all_rows(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(results_csv(rows(MACHINES)))
    whole = summarise_rows(rows(MACHINES))
    found = summarise_results(path, (*SCORES, "mahalanobis"), None)
    assert json.loads(to_json(found)) == {
        name: whole[name] for name in json.loads(to_json(whole)) if name != "machines"
    }


def test_a_fleet_page_escapes_names_and_lists_unlabelled_machines_last(tmp_path):
    evil = "<script>alert(1)</script>"
    good, bad = rows("a")[0]._replace(machine="good"), rows("b")[0]
    good = good._replace(auc_source=0.9, auc_target=0.9, pauc=0.9)
    bad = bad._replace(auc_source=0.6, auc_target=0.1, pauc=0.6)
    lines = [
        MachineLine("none", "00", "waves/0000/report.html", 4, 3, []),
        MachineLine("good", "00", "waves/0000/report.html", 4, 0, [good]),
        MachineLine(evil, "00", 'x"><script>', 4, 0, [bad]),
    ]
    means = summarise_rows([good, bad])
    path = tmp_path / "report.html"
    write_fleet_page(path, preset("default"), lines, means, [evil])
    page = path.read_text()
    assert "<script" not in page
    assert page.index("&lt;/script&gt;_section_00") < page.index("good_section_00")
    assert page.index("good_section_00") < page.index("none_section_00")
    assert "3 of 4" in page
