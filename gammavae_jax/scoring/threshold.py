"""Decision thresholds and p-values from the scores of normal clips."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from gammavae_jax.config import Config, ScoringConfig


def conformal_threshold(
    held_out_scores: Float[np.ndarray, "clip"], false_alarm_rate: float
) -> float:
    """Return a threshold with at most the given false-alarm rate on new normal clips.

    Source: split conformal prediction (Vovk et al. 2005). The threshold is the
    `ceil((n + 1) * (1 - false_alarm_rate))`-th smallest of `n` held-out scores, or the
    largest one if `n` is less than `clips_needed`.
    """
    scores = np.sort(held_out_scores)
    # Round before the ceiling: 9 * (1 - 1 / 3) is above 6 in floating point.
    rank = math.ceil(round((len(scores) + 1) * (1 - false_alarm_rate), 9))
    return float(scores[min(rank, len(scores)) - 1])


def p_values(
    scores: Float[np.ndarray, "*clip"], held_out_scores: Float[np.ndarray, "held_out"]
) -> Float[np.ndarray, "*clip"]:
    """Return each score's p-value, `(k + 1) / (n + 1)`.

    Of the `n` held-out scores, `k` are at least as high as the score. Source: split
    conformal prediction (Vovk et al. 2005). If `n` is at least `clips_needed`, a clip
    exceeds the conformal threshold for a false-alarm rate if and only if its p-value is
    at most that rate. No p-value is below `1 / (n + 1)`.
    """
    ordered = np.sort(held_out_scores)
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1 + at_least) / (len(ordered) + 1)


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
    scores: Mapping[str, Float[np.ndarray, "row machine item"]], config: ScoringConfig
) -> dict[str, Float[np.ndarray, "row machine"]]:
    """Fit a threshold to the scores of each seed and machine, ignoring NaN.

    `config` gives the kind of threshold and the false-alarm rate.
    """
    is_conformal = config.threshold == "conformal"
    threshold = conformal_threshold if is_conformal else gamma_threshold
    thresholds = {name: np.empty(values.shape[:2]) for name, values in scores.items()}
    for name, values in scores.items():
        for at in np.ndindex(*values.shape[:2]):
            known = values[at][~np.isnan(values[at])]
            # A diverged model, which has no scores, must not affect the other models.
            rate = config.false_alarm_rate
            thresholds[name][at] = threshold(known, rate) if len(known) else np.nan
    return thresholds


def clips_needed(false_alarm_rate: float) -> int:
    """Return the number of held-out clips that are needed for a false-alarm rate."""
    return math.ceil(round(1 / false_alarm_rate, 9)) - 1


def too_few_clips(
    is_held_out: Bool[np.ndarray, "member machine clip"],
    recordings: Sequence[Int[np.ndarray, "_"] | None],
    names: Sequence[str],
    config: Config,
) -> str:
    """Return a warning that names machines with too few held-out clips, or "".

    Fewer clips than `clips_needed` cannot guarantee the nominal false-alarm rate. Clips
    cut from one recording count once, because they are not independent.

    Args:
        is_held_out: see `Split`.
        recordings: for each machine, the number of each clip's recording, or None if
            each clip is a recording.
        names: the machines' names.
        config: the threshold settings.
    """
    rate = config.scoring.false_alarm_rate
    counts = []
    for machine, of in enumerate(recordings):
        held_out = np.flatnonzero(is_held_out[: config.n_folds, machine].any(0))
        counts.append(len(held_out if of is None else np.unique(of[held_out])))
    is_cut = any(of is not None and len(np.unique(of)) < len(of) for of in recordings)
    kind = "recordings" if is_cut else "clips"
    needed = clips_needed(rate)
    few = [f"{m} ({n})" for m, n in zip(names, counts, strict=True) if n < needed]
    if not few:
        return ""
    remedy = f"Add {kind}"
    if config.train.split == "clip":
        remedy += ", or raise train.held_out_fraction"
    return (
        f"Too few training {kind} for a false-alarm rate of {rate:g}, which needs "
        f"{needed} held-out {kind}: expect more false alarms for {', '.join(few)}. "
        f"{remedy}."
    )
