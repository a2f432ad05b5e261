"""The published results, and the data set to which they belong."""

import statistics
from pathlib import Path

import pytest

from gammavae_jax.evaluation.official import (
    REPORT_TABLE_2,
    is_dcase2024_development_set,
)

MACHINES = ("ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve")


@pytest.mark.parametrize(
    ("system", "expected"), [("report's GammaVAE", 54.49), ("report's baseline", 54.97)]
)
def test_the_21_published_values_give_the_published_official_score(system, expected):
    values = [v for machine in REPORT_TABLE_2[system].values() for v in machine]
    assert len(values) == 21
    mean = statistics.harmonic_mean(values)
    assert mean == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("system", REPORT_TABLE_2)
def test_the_machines_are_those_of_2024(system):
    assert tuple(REPORT_TABLE_2[system]) == MACHINES


RAW = "/data/dcase2024t2/dev_data/raw"
OTHERS = [
    *("/data", "/data/dev_data/raw", "/dev_data/dcase2024t2/mine"),
    *(f"/data/dcase{year}t2/dev_data/raw" for year in (2023, 2025)),
    "/data/dcase2024t2/eval_data/raw",
    "/home/me/dcase2024-challenge/data/dcase2023t2/dev_data/raw",
]


@pytest.mark.parametrize(
    ("folder", "machines", "expected"),
    [
        *((RAW, names, True) for names in (MACHINES, ["fan"])),
        ("/data/dcase2024t2/dev_data", MACHINES, True),
        ("/data/DCASE2024T2/dev_data", MACHINES, True),
        *((folder, MACHINES, False) for folder in OTHERS),
        (RAW, [*MACHINES, "pump"], False),
    ],
)
def test_the_2024_development_set_is_known_by_its_folder_and_machines(
    folder, machines, expected
):
    assert is_dcase2024_development_set(Path(folder), machines) == expected
