"""Evaluate scored clips by the challenge's metrics."""

from collections.abc import Sequence

import numpy as np

from gammavae_jax.evaluation.metrics import Row, evaluate_section
from gammavae_jax.scoring.scored_clips import ScoredClips


def evaluate_scores(
    tables: Sequence[ScoredClips], year: int | None = None
) -> list[Row]:
    """Evaluate every score of labelled clips.

    Args:
        tables: what `score_clips` returned. A machine with an unlabelled clip is left
            out.
        year: the challenge whose metrics are computed; default: 2022 and later.

    Returns:
        A row for each seed, score and machine.
    """
    labelled = [(t, t.is_anomaly) for t in tables if t.is_anomaly is not None]
    if not labelled:
        return []
    first, _ = labelled[0]
    return [
        evaluate_section(
            clips.scores[score][s].astype(np.float64),
            is_anomaly,
            clips.is_target,
            threshold=float(clips.thresholds[score][s]),
            year=year,
            machine=clips.machine,
            section=clips.section,
            score=score,
            seed=seed,
        )
        for s, seed in enumerate(first.seeds)
        for score in first.scores
        for clips, is_anomaly in labelled
    ]
