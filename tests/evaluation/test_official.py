"""The bootstrap of the official score, and the published results."""

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from support.labelled_scores import assert_close, four_strata

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import SectionScores, evaluate_section
from gammavae_jax.evaluation.official import (
    REPORT_TABLE_2,
    bootstrap,
    is_dcase2024_development_set,
    official_score,
)

MACHINES = ("ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve")


@pytest.mark.parametrize("year", [2020, 2021, 2022, 2026])
def test_every_resample_of_clips_drawn_once_has_the_official_score(year, monkeypatch):
    class DrawEachClipOnce:
        def multinomial(self, n, pvals, size):
            return np.ones((size, n))

    clips = [four_strata(8, n_each=11), four_strata(9)]
    monkeypatch.setattr(np.random, "default_rng", lambda seed: DrawEachClipOnce())
    sections = [SectionScores(f"m{k}", "00", *c) for k, c in enumerate(clips)]
    expected = official_score([evaluate_section(*c, year=year) for c in clips], year)
    found = bootstrap(sections, year=year, n_resamples=3)
    assert_close(found, (expected, 0, expected, expected))


def test_bootstrap_is_centred_and_reproducible():
    clips = four_strata(10, n_each=50)
    order = np.random.default_rng(0).permutation(200)
    sections = [SectionScores("fan", "00", *clips), SectionScores("pump", "00", *clips)]
    mixed = [array[order] for array in clips]
    shuffled = [SectionScores(name, "00", *mixed) for name in ("pump", "fan")]
    found = bootstrap(sections, seed=3)
    assert_close(found, bootstrap(shuffled, seed=3))
    assert found != bootstrap(sections, seed=4)
    assert found.low < found.mean < found.high
    score = official_score([evaluate_section(*clips)])
    assert abs(found.mean - score) < found.std < 0.05
    assert 3 < (found.high - found.low) / found.std < 5


def test_bootstrap_of_separable_scores_has_no_spread():
    scores, is_anomaly, is_target = four_strata(11)
    section = SectionScores(
        "fan", "00", scores + 100 * is_anomaly, is_anomaly, is_target
    )
    assert_close(bootstrap([section]), (1, 0, 1, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores, is_anomaly, is_target = four_strata(12)
    scores[7] = value
    with pytest.raises(InputError, match=r"fan section 02: the score of clip 7 is"):
        bootstrap([SectionScores("fan", "02", scores, is_anomaly, is_target)])


def test_a_bootstrap_without_sections_is_refused():
    with pytest.raises(InputError, match="at least one section"):
        bootstrap([])


@pytest.mark.parametrize("n_resamples", [-1, 0, 1])
def test_fewer_than_two_resamples_are_refused(n_resamples):
    section = SectionScores("fan", "00", *four_strata(17))
    with pytest.raises(InputError, match="use at least 2"):
        bootstrap([section], n_resamples=n_resamples)


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
