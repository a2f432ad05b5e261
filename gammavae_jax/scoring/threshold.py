"""Computes decision thresholds and p-values from the scores of normal clips."""

from collections.abc import Mapping

import numpy as np
import scipy
from jaxtyping import Float

from gammavae_jax.config import ScoringConfig


def conformal_threshold(
    held_out_scores: Float[np.ndarray, "clip"],
    false_alarm_rate: float,
    weights: Float[np.ndarray, "clip"] | None = None,
) -> float:
    """Return a threshold whose false-alarm rate on new clips is at most the given rate.

    It is the smallest held-out score such that every higher score has a p-value (see
    `p_values`) of at most the rate, or the largest held-out score if there is none.
    With `n` weights of 1 it is the `ceil((n + 1) * (1 - rate))`-th smallest score.
    """
    scores, below = _weight_below(held_out_scores, weights)
    above = below[-1] - below[np.searchsorted(scores, scores, side="right")]
    is_rare = (1 + above) / (1 + below[-1]) <= false_alarm_rate
    return float(scores[is_rare.argmax() if is_rare.any() else -1])


def p_values(
    scores: Float[np.ndarray, "*clip"],
    held_out_scores: Float[np.ndarray, "held_out"],
    weights: Float[np.ndarray, "held_out"] | None = None,
) -> Float[np.ndarray, "*clip"]:
    """Return each score's p-value, given the scores of held-out normal clips.

    It is `(1 + k) / (1 + n)`, where `n` is the total weight of the held-out scores, and
    `k` is the total weight of those that are at least as high as the score. If `n` is
    at least `sample_size.clips_needed`, a clip exceeds the conformal threshold for a
    false-alarm rate if and only if its p-value is at most that rate. No p-value is
    below `1 / (n + 1)`.

    Sources: split conformal prediction (Vovk et al. 2005). Weights of `1 / m` for the
    `m` clips of one recording give the p-value of a clip from a new recording (Lee,
    Barber and Willett 2023, "Distribution-free inference with hierarchical data").

    Args:
        scores: the scores of new clips.
        held_out_scores: the scores of held-out normal clips.
        weights: the weights of the held-out clips, from 0 to 1; default: all 1.
    """
    ordered, below = _weight_below(held_out_scores, weights)
    at = np.searchsorted(ordered, scores, side="left")
    return (1 + below[-1] - below[at]) / (1 + below[-1])


def _weight_below(
    scores: Float[np.ndarray, "clip"], weights: Float[np.ndarray, "clip"] | None
) -> tuple[Float[np.ndarray, "clip"], Float[np.ndarray, "place"]]:
    """Sort scores; return them and, for each, the total weight of those before it.

    Sums are rounded, so that the weights of a recording's clips add up to exactly 1.
    """
    order = np.argsort(scores)
    used = np.ones(len(order)) if weights is None else weights[order]
    return scores[order], np.round(np.concatenate([[0.0], np.cumsum(used)]), 9)


def gamma_threshold(
    scores: Float[np.ndarray, "item"], false_alarm_rate: float
) -> float:
    """Return the upper quantile of a Gamma distribution fitted to the scores.

    Source: `fit_anomaly_score_distribution` and `calc_decision_threshold` of the
    official baseline, which fit shape, location and scale to the scores of *batches*.
    If all scores are equal, the threshold is that score.
    """
    if np.ptp(scores) == 0:
        return float(scores[0])
    scores = np.asarray(scores, np.float64)  # powers of scores overflow float32
    fitted = scipy.stats.gamma(*scipy.stats.gamma.fit(scores))
    return float(fitted.ppf(1 - false_alarm_rate))


def fit_thresholds(
    scores: Mapping[str, Float[np.ndarray, "row machine item"]],
    config: ScoringConfig,
    weights: Float[np.ndarray, "machine clip"],
) -> dict[str, Float[np.ndarray, "row machine"]]:
    """Fit a threshold to the scores of each seed and machine, ignoring NaN.

    `config` selects the kind of threshold and its false-alarm rate. Only conformal
    thresholds use the weights.
    """
    rate, is_conformal = config.false_alarm_rate, config.threshold == "conformal"
    thresholds = {name: np.empty(values.shape[:2]) for name, values in scores.items()}
    for name, values in scores.items():
        for row, machine in np.ndindex(*values.shape[:2]):
            known = ~np.isnan(values[row, machine])
            of_model = values[row, machine, known]
            # A diverged model, which has no scores, must not affect other models.
            if not known.any():
                threshold = np.nan
            elif is_conformal:
                of_clips = weights[machine, known]
                threshold = conformal_threshold(of_model, rate, of_clips)
            else:
                threshold = gamma_threshold(of_model, rate)
            thresholds[name][row, machine] = threshold
    return thresholds
