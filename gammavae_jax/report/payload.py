"""The data that a page plots: every clip's scores, by machine."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.data.features import band_corners
from gammavae_jax.data.machines import unit_name
from gammavae_jax.evaluation.metrics import MAX_FPR, Row
from gammavae_jax.evaluation.official import Bootstrap, bootstrap
from gammavae_jax.evaluation.tables import section_scores
from gammavae_jax.scoring.json_numbers import finite
from gammavae_jax.scoring.scored_clips import ScoredClips


def error_bars(
    machines: Sequence[ScoredClips], scores: Sequence[str], year: int | None = None
) -> dict[str, Bootstrap]:
    """Bootstrap the first seed's official score for each anomaly score.

    Return an empty dict if no machine is labelled.
    """
    labelled = [clips for clips in machines if clips.is_anomaly is not None]
    return {
        score: bootstrap(
            [section_scores(clips, score, 0) for clips in labelled], year=year
        )
        for score in scores
        if labelled
    }


def scores_payload(
    config: Config,
    machines: Sequence[ScoredClips],
    rows: Sequence[Row],
    scores: Sequence[str],
    least_p: Mapping[str, float],
) -> dict[str, Any]:
    """Return the data for `report.js`.

    Numbers are rounded, and those that are not finite are replaced by None. `least_p`
    gives the smallest possible p-value of some machines.
    """
    metrics = {(r.machine, r.section, r.score, r.seed): r for r in rows}
    return {
        "preset": config.preset,
        "falseAlarmRate": config.scoring.false_alarm_rate,
        "maxFpr": MAX_FPR,
        "scores": list(scores),
        "seeds": list(config.seeds),
        "corners": _short(band_corners(config.features), 6),
        "machines": [
            {
                "name": unit_name(clips.machine, clips.section),
                "clips": list(clips.names),
                "labels": list(clips.labels),
                "domains": list(clips.domains),
                "leastP": finite(least_p.get(clips.machine, math.nan)),
                "scores": {
                    score: [
                        _scores_of_seed(clips, score, s, metrics, seed)
                        for s, seed in enumerate(config.seeds)
                    ]
                    for score in scores
                },
            }
            for clips in machines
        ],
    }


def _scores_of_seed(
    clips: ScoredClips, score: str, s: int, metrics: dict, seed: int
) -> dict[str, Any]:
    row = metrics.get((clips.machine, clips.section, score, seed))
    decisions = clips.decisions(score)[s]
    names = ("auc_source", "auc_target", "pauc", "auc")
    return {
        "values": _short(clips.scores[score][s], 8),
        "p": _short(clips.p_values[score][s], 8) if score in clips.p_values else None,
        "alarms": "".join("1" if alarm else "0" for alarm in decisions),
        "threshold": _rounded(float(clips.thresholds[score][s]), 8),
        "metrics": row and {name: _rounded(getattr(row, name), 5) for name in names},
    }


def _short(values: Iterable[float] | np.ndarray, digits: int) -> list[float | None]:
    return [_rounded(float(value), digits) for value in values]


def _rounded(value: float, digits: int) -> float | None:
    return finite(float(f"{value:.{digits}g}"))
