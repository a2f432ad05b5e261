"""Decision thresholds and p-values from the scores of normal sounds."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from gammavae_jax.config import Config


def conformal_threshold(
    held_out_scores: Float[np.ndarray, "clip"], false_alarm_rate: float
) -> float:
    """A threshold that a new normal clip exceeds with at most the given probability.

    Source: split conformal prediction (Vovk et al. 2005): of `n` held-out scores the
    `ceil((n + 1) * (1 - false_alarm_rate))`-th smallest. With fewer clips than
    `clips_needed` that one does not exist, and the largest score is returned.
    """
    scores = np.sort(held_out_scores)
    # 9 * (1 - 0.1) is above 8.1 in floating point: round before the ceiling.
    rank = math.ceil(round((len(scores) + 1) * (1 - false_alarm_rate), 9))
    return float(scores[min(rank, len(scores)) - 1])


def p_values(
    scores: Float[np.ndarray, "*clip"], held_out_scores: Float[np.ndarray, "held_out"]
) -> Float[np.ndarray, "*clip"]:
    """How likely a normal clip scores as high: `(1 + count above) / (n + 1)`.

    Source: split conformal prediction (Vovk et al. 2005). A clip is above the
    conformal threshold of a rate if and only if its p-value is at most that rate,
    where the rate has `clips_needed`. None is smaller than `1 / (n + 1)`.
    """
    ordered = np.sort(held_out_scores)
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1 + at_least) / (len(ordered) + 1)


def gamma_threshold(
    scores: Float[np.ndarray, "item"], false_alarm_rate: float
) -> float:
    """The quantile of a Gamma distribution (shape, location, scale) fitted to scores.

    Source: `fit_anomaly_score_distribution` and `calc_decision_threshold` of the
    official baseline, which gives it the scores of *batches*. Scores that are all
    alike are their own threshold.
    """
    if np.ptp(scores) == 0:
        return float(scores[0])
    scores = np.asarray(scores, np.float64)  # the fit takes powers of them
    law = scipy.stats.gamma(*scipy.stats.gamma.fit(scores))
    return float(law.ppf(1 - false_alarm_rate))


def clips_needed(false_alarm_rate: float) -> int:
    """Held-out clips from which on a threshold can keep the false-alarm rate."""
    return math.ceil(round(1 / false_alarm_rate, 9)) - 1


def too_few_clips(
    is_held_out: Bool[np.ndarray, "member machine clip"],
    names: Sequence[str],
    config: Config,
) -> str:
    """Where held-out clips are too few for the nominal false-alarm rate; "" if nowhere.

    Args:
        is_held_out: see `Split`.
        names: of the machines.
        config: of the run.
    """
    rate = config.scoring.false_alarm_rate
    counts = is_held_out[: config.n_folds].sum((0, -1))
    needed = clips_needed(rate)
    few = [f"{m} ({n})" for m, n in zip(names, counts, strict=True) if n < needed]
    if not few:
        return ""
    remedy = "Add clips"
    if config.train.split == "clip":
        remedy += ", or raise train.held_out_fraction"
    return (
        f"Too few training clips for a false-alarm rate of {rate:g}, which needs "
        f"{needed} held-out ones: expect more false alarms of {', '.join(few)}. "
        f"{remedy}."
    )
