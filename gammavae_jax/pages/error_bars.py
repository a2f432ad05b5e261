"""How far each official score moves with the choice of test clips."""

from collections.abc import Sequence

import numpy as np

from gammavae_jax.evaluation.bootstrap import Bootstrap, bootstrap
from gammavae_jax.evaluation.metrics import SectionScores
from gammavae_jax.evaluation.scored_clips import ScoredClips

N_RESAMPLES = 1000


def error_bars(
    machines: Sequence[ScoredClips],
    scores: Sequence[str],
    year: int | None = None,
    seed: int = 0,
) -> dict[str, Bootstrap]:
    """By score, of one seed and all labelled machines; none where none is labelled."""
    labelled = [clips for clips in machines if clips.is_anomaly is not None]
    if not labelled:
        return {}
    return {
        score: bootstrap(
            [_section(clips, score, seed) for clips in labelled],
            year=year,
            n_resamples=N_RESAMPLES,
        )
        for score in scores
    }


def _section(clips: ScoredClips, score: str, seed: int) -> SectionScores:
    is_anomaly = clips.is_anomaly
    assert is_anomaly is not None
    return SectionScores(
        clips.machine,
        clips.section,
        clips.scores[score][seed].astype(np.float64),
        is_anomaly,
        clips.is_target,
    )
