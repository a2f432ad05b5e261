"""The official score, and published results.

Every metric is a fraction. NaN marks a value that cannot be computed and is left out
of every mean.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import EPS, METRICS, Row, definition_of


def official_score(rows: Sequence[Row], year: int | None = None) -> float:
    """Compute a system's official score from the rows of its sections.

    Values are floored at the machine epsilon, as in the official evaluators. `year`
    must be the year for which the rows were computed; None means 2022 or later.

    Raises:
        InputError: there are no rows, or no row has an AUC or a pAUC.
    """
    if not rows:
        raise InputError("an official score needs at least one row")
    columns = {m: np.array([[getattr(row, m)] for row in rows]) for m in METRICS}
    return float(official_scores(columns, year)[0])


def official_scores(
    columns: dict[str, Float[np.ndarray, "row resample"]], year: int | None = None
) -> Float[np.ndarray, "resample"]:
    """Compute the official score of each bootstrap resample from its metrics."""
    definition = definition_of(year)
    auc, pauc = columns["auc"], columns["pauc"]
    per_domain = [columns["auc_source"], columns["auc_target"]]
    if definition == 2020:
        return np.concatenate([auc, pauc]).mean(axis=0)
    if definition == 2021:  # a pAUC per domain, so `pauc` counts twice if both exist
        per_domain.append(pauc + 0 * sum(per_domain))
    parts = np.concatenate([*per_domain, pauc])
    parts = parts[~np.isnan(parts).any(axis=1)]
    if not len(parts):
        raise InputError("no row has an AUC or pAUC: add normal and anomalous clips")
    return 1 / np.mean(1 / np.maximum(parts, EPS), axis=0)


def arithmetic_means(rows: Sequence[Row]) -> dict[str, float]:
    """Return each metric's arithmetic mean over rows."""
    return {m: arithmetic_mean(getattr(row, m) for row in rows) for m in METRICS}


def harmonic_means(rows: Sequence[Row]) -> dict[str, float]:
    """Return each metric's harmonic mean over rows, with values floored at epsilon."""
    return {m: harmonic_mean(getattr(row, m) for row in rows) for m in METRICS}


def arithmetic_mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN, or NaN if there are none."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def harmonic_mean(values: Iterable[float]) -> float:
    """Return the harmonic mean, ignoring NaN and flooring values at epsilon."""
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
    """Return whether a folder contains the DCASE 2024 development set.

    The report's Table 2 has results for this set. The sets of 2023 and 2025 have the
    same machine types and file names, so only the folder's name tells the sets apart.
    It must be `.../dcase2024t2/dev_data[/raw]`, as in the official scripts, or
    `.../dcase2024/dev_data[/raw]`.
    """
    folder = data_root.resolve()
    folder = folder.parent if folder.name == "raw" else folder
    is_set = folder.parent.name.lower() in ("dcase2024", "dcase2024t2")
    is_named = is_set and folder.name == "dev_data"
    return is_named and set(machines) <= set(REPORT_TABLE_2["report's baseline"])
