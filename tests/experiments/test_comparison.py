"""Runs side by side: the tables hold what the runs found."""

import csv

import pytest
from support.finished_runs import write_run

from experiments.comparison import write_comparison
from gammavae_jax.errors import InputError


def test_the_tables_hold_every_variant_and_number(tmp_path):
    write_run(tmp_path / "one", 0.7123)
    write_run(tmp_path / "two", 0.6543, scores=("fusion_mean", "mse", "kl"))
    text = write_comparison(tmp_path, {"one": "the first", "two": "the second"})
    assert (tmp_path / "ablation.md").read_text() == text
    lines = text.splitlines()
    first = next(line for line in lines if line.startswith("| the first"))
    assert first.split("|")[2].strip() == "71.23 ± 1.00"
    assert "8.00 ± 1.00 | 20.00 ± 1.00 | 12 |" in first
    assert sum(line.startswith("| no model: ") for line in lines) == 2
    assert "| the first | 10 | 25 | 4 | 2 |" in lines
    with (tmp_path / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {(r["variant"], r["score"], r["machine"], r["metric"]): r for r in rows}
    assert len(found) == len(rows)
    assert float(found["two", "fusion_mean", "", "official_score"]["mean"]) == 0.6543
    assert float(found["two", "kl", "fan", "fpr_target"]["mean"]) == 0.6


def test_every_line_of_a_table_has_as_many_cells(tmp_path):
    write_run(tmp_path / "one", 0.7)
    tables = write_comparison(tmp_path, {"one": "the first"}).split("\n\n")
    for table in (t for t in tables if t.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_runs_of_other_machines_are_not_set_beside_each_other(tmp_path):
    write_run(tmp_path / "one", 0.7)
    write_run(tmp_path / "two", 0.7, machine="pump")
    with pytest.raises(InputError, match=r"two' is of other machines than .*one'"):
        write_comparison(tmp_path, {"one": "the first", "two": "the second"})
    assert not (tmp_path / "ablation.md").exists()


def test_what_trained_nothing_has_no_time_of_training(tmp_path):
    write_run(tmp_path / "one", 0.7, train_s=0.01)
    lines = write_comparison(tmp_path, {"one": "the first"}).splitlines()
    assert next(x for x in lines if x.startswith("| the first")).endswith("1.00 |  |")
