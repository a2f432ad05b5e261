"""Counts the independent recordings behind a threshold; warns if there are too few.

Clips that are cut from one recording, contain the same audio or belong to one group are
not independent of each other: see `training.links`.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy
from jaxtyping import Float, Int

from gammavae_jax.config import Config
from gammavae_jax.training.links import independence, link_groups
from gammavae_jax.training.split import Split

_CONFIDENCE = 0.95
_FEWEST = 0.9  # above this share of independent clips, links hardly matter


def clips_needed(false_alarm_rate: float) -> int:
    """Return how many held-out clips a threshold for this false-alarm rate needs."""
    return math.ceil(round(1 / false_alarm_rate, 9)) - 1


def false_alarm_range(
    n_recordings: float, false_alarm_rate: float
) -> tuple[float, float]:
    """Return the range of the actual false-alarm rate for 95 % of training sets.

    A conformal threshold is one of the largest held-out scores. The share of new
    normal recordings above the `k`-th largest of `n` scores has the distribution
    Beta(k, n + 1 - k), whatever the distribution of the scores (Vovk 2012).

    Args:
        n_recordings: the number `n` of independent held-out recordings.
        false_alarm_rate: the nominal rate, which determines `k`.
    """
    n = max(n_recordings, 1.0)
    k = max(1.0, math.floor(round((n + 1) * false_alarm_rate, 9)))
    low, high = scipy.stats.beta.interval(_CONFIDENCE, k, n + 1 - k)
    return float(low), float(high)


def independent_recordings(
    split: Split, recordings: Sequence[Int[np.ndarray, "_"]], config: Config
) -> Float[np.ndarray, "machine"]:
    """Return how many independent recordings of each machine were held out."""
    is_used = np.any(split.is_held_out[: config.n_folds], axis=0)
    linked = link_groups(split.is_linked, recordings)
    return np.round(independence(linked, is_used).sum(-1), 6)


def sample_size_notes(
    split: Split,
    recordings: Sequence[Int[np.ndarray, "_"]],
    names: Sequence[str],
    config: Config,
) -> list[str]:
    """Return notes that name machines whose thresholds are uncertain.

    With fewer recordings than `clips_needed`, the nominal false-alarm rate cannot be
    guaranteed. If there are enough recordings, but far fewer than clips, a note states
    the range in which the actual rate probably lies.

    Args:
        split: the held-out clips, and the links between clips.
        recordings: for each machine, each clip's recording number or group number.
        names: the machines' names.
        config: the threshold settings.
    """
    rate = config.scoring.false_alarm_rate
    needed = clips_needed(rate)
    counts = independent_recordings(split, recordings, config)
    n_clips = split.is_held_out[: config.n_folds].any(0).sum(-1)
    is_joined = counts < _FEWEST * n_clips
    kind = "recordings" if is_joined.any() else "clips"
    counted = list(zip(names, counts.tolist(), is_joined.tolist(), strict=True))
    few = [f"{name} (has {n:.3g})" for name, n, _ in counted if n < needed]
    notes = []
    if few:
        remedy = f"Add {kind}"
        if config.train.split == "clip":
            remedy += ", or raise train.held_out_fraction"
        notes.append(
            f"Too few training {kind} for a false-alarm rate of {rate:g}, which needs "
            f"{needed} held-out {kind}: expect more false alarms for "
            f"{', '.join(few)}. {remedy}."
        )
    ranges = [
        f"{name} {_percent_range(n, rate)} ({n:.3g} independent recordings)"
        for name, n, joined in counted
        if joined and n >= needed
    ]
    if ranges:
        notes.append(
            "Some training clips share a recording or audio, so they are not "
            f"independent. With a nominal false-alarm rate of {100 * rate:g} %, the "
            f"real rate will probably be: {', '.join(ranges)}."
        )
    return notes


def _percent_range(n_recordings: float, false_alarm_rate: float) -> str:
    low, high = false_alarm_range(n_recordings, false_alarm_rate)
    return f"{100 * low:.1f} to {100 * high:.0f} %"
