"""Means over rows of results, and the challenge's one number for a system.

Every value is a fraction; NaN stands for what cannot be computed and is left out.
"""

import math
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import EPS, METRICS, Row, definition_of


def official_score(rows: Iterable[Row], year: int | None = None) -> float:
    """The challenge's one number for the machines and sections of one system.

    Values are floored at the machine epsilon, as the official evaluators do. `year`
    must be the one that the rows were made with; None is the definition of 2022 on.

    Raises:
        InputError: no rows, or nothing in them that the score is made of.
    """
    rows = list(rows)
    if not rows:
        raise InputError("there are no rows to make an official score of")
    columns = {m: np.array([[getattr(row, m)] for row in rows]) for m in METRICS}
    return float(official_scores(columns, year)[0])


def official_scores(
    columns: dict[str, Float[np.ndarray, "row resample"]], year: int | None = None
) -> Float[np.ndarray, "resample"]:
    """`official_score` of each resample, from the columns that come from ranking."""
    definition = definition_of(year)
    auc, pauc = columns["auc"], columns["pauc"]
    per_domain = [columns["auc_source"], columns["auc_target"]]
    if definition == 2020:
        return np.concatenate([auc, pauc]).mean(axis=0)
    if definition == 2021:  # a pAUC per domain: `pauc` twice, where there are both
        per_domain.append(pauc + 0 * sum(per_domain))
    parts = np.concatenate([*per_domain, pauc])
    parts = parts[~np.isnan(parts).any(axis=1)]
    if not len(parts):
        raise InputError("no row has an AUC or pAUC: give normal and anomalous clips")
    return 1 / np.mean(1 / np.maximum(parts, EPS), axis=0)


def arithmetic_means(rows: Iterable[Row]) -> dict[str, float]:
    """The arithmetic mean of each metric over rows."""
    rows = list(rows)
    return {m: arithmetic_mean(getattr(row, m) for row in rows) for m in METRICS}


def harmonic_means(rows: Iterable[Row]) -> dict[str, float]:
    """The harmonic mean of each metric over rows, values floored at epsilon."""
    rows = list(rows)
    return {m: harmonic_mean(getattr(row, m) for row in rows) for m in METRICS}


def arithmetic_mean(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN where there are none."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def harmonic_mean(values: Iterable[float]) -> float:
    """The same for the harmonic mean, values floored at the machine epsilon."""
    return 1 / arithmetic_mean(v if math.isnan(v) else 1 / max(v, EPS) for v in values)


PUBLISHED_SCORE = "mahalanobis"

# Huang (2024), "Unsupervised anomaly sound detection based on GammaVAE", Table 2:
# AUC source, AUC target, pAUC in percent; DCASE 2024 development set, Mahalanobis.
REPORT_TABLE_2: dict[str, dict[str, tuple[float, float, float]]] = {
    "report's GammaVAE": {
        "ToyCar": (58.70, 41.08, 50.57),
        "ToyTrain": (60.68, 39.28, 47.68),
        "bearing": (53.50, 56.14, 59.31),
        "fan": (78.90, 44.28, 52.26),
        "gearbox": (78.28, 68.30, 51.94),
        "slider": (74.76, 65.44, 48.21),
        "valve": (54.82, 50.28, 51.68),
    },
    "report's baseline": {
        "ToyCar": (63.64, 37.36, 51.00),
        "ToyTrain": (64.63, 40.78, 48.05),
        "bearing": (55.26, 52.30, 58.84),
        "fan": (79.46, 42.64, 53.10),
        "gearbox": (80.40, 74.22, 55.36),
        "slider": (74.42, 67.66, 48.68),
        "valve": (54.56, 51.32, 51.36),
    },
}


def is_dcase2024_development_set(data_root: Path, machines: Collection[str]) -> bool:
    """Whether these recordings are the ones of the report's Table 2.

    The 2023 and 2025 sets have the same machine types and file names, so the folder
    must say it: `.../dcase2024t2/dev_data[/raw]`, as the official scripts name it.
    """
    folder = data_root.resolve()
    folder = folder.parent if folder.name == "raw" else folder
    is_named = folder.name == "dev_data" and folder.parent.name.lower() in (
        "dcase2024",
        "dcase2024t2",
    )
    return is_named and set(machines) <= set(REPORT_TABLE_2["report's baseline"])
