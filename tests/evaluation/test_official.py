import statistics
from pathlib import Path

import pytest

from gammavae_jax.evaluation.official import (
    REPORT_TABLE_2,
    is_dcase2024_development_set,
)

MACHINES = ("ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve")


@pytest.mark.parametrize(
    ("system", "official_score"),
    [("report's GammaVAE", 54.49), ("report's baseline", 54.97)],
)
def test_the_21_values_of_a_system_make_its_official_score(system, official_score):
    values = [v for machine in REPORT_TABLE_2[system].values() for v in machine]
    assert len(values) == 21
    mean = statistics.harmonic_mean(values)
    assert mean == pytest.approx(official_score, abs=0.005)


@pytest.mark.parametrize("system", REPORT_TABLE_2)
def test_the_machines_are_those_of_2024(system):
    assert tuple(REPORT_TABLE_2[system]) == MACHINES


@pytest.mark.parametrize(
    "folder",
    [
        "/data/dcase2024t2/dev_data/raw",
        "/data/dcase2024t2/dev_data",
        "/data/DCASE2024T2/dev_data",
    ],
)
def test_the_2024_development_set_is_known_by_its_folder(folder):
    assert is_dcase2024_development_set(Path(folder), MACHINES)
    assert is_dcase2024_development_set(Path(folder), ["fan"])


@pytest.mark.parametrize(
    "folder",
    [
        "/data",
        "/data/dev_data/raw",
        "/data/dcase2023t2/dev_data/raw",
        "/data/dcase2025t2/dev_data/raw",
        "/data/dcase2024t2/eval_data/raw",
        "/home/me/dcase2024-challenge/data/dcase2023t2/dev_data/raw",
        "/dev_data/dcase2024t2/mine",
    ],
)
def test_other_sets_with_the_same_names_are_not_taken_for_it(folder):
    assert not is_dcase2024_development_set(Path(folder), MACHINES)


def test_a_machine_that_the_report_does_not_list_rules_the_set_out():
    root = Path("/data/dcase2024t2/dev_data/raw")
    assert not is_dcase2024_development_set(root, [*MACHINES, "pump"])
