"""Means over rows of results, and the challenge's one number for a system.

Every value is a fraction; NaN stands for what cannot be computed and is left out.
"""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from gammavae_jax.errors import InputError
from gammavae_jax.evaluate import EPS, METRICS, Row, definition_of


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
