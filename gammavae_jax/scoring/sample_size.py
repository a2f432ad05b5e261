"""Counts the independent recordings behind a threshold, and what rates they support.

Clips that are cut from one recording, contain the same audio or belong to one group are
not independent of each other: see `training.links`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import betaincinv

from gammavae_jax.config import Config
from gammavae_jax.errors import InputError
from gammavae_jax.scoring.detector import Detector, machine_names, with_false_alarm_rate
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
    # `scipy.stats.beta` gives the same limits, but its import takes most of a second.
    tail = (1 - _CONFIDENCE) / 2
    low, high = betaincinv(k, n + 1 - k, [tail, 1 - tail])
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


class Sensitivity(NamedTuple):
    """The effect of a false-alarm rate on one machine."""

    rate: float  # nominal
    threshold: float  # NaN if training failed
    n_alarms: int  # held-out clips above the threshold
    n_clips: int  # held-out clips
    n_recordings: float  # independent recordings among the held-out clips

    @property
    def is_supported(self) -> bool:
        """Whether there are enough independent recordings for this rate."""
        return self.n_recordings >= clips_needed(self.rate)

    @property
    def probable_rate(self) -> tuple[float, float]:
        """The range of the real rate; see `false_alarm_range`."""
        return false_alarm_range(self.n_recordings, self.rate)


def sensitivities(
    detector: Detector, rates: Iterable[float]
) -> dict[str, list[Sensitivity]]:
    """Return each false-alarm rate's effect on each machine, without retraining.

    Args:
        detector: the detector; the headline score of its first seed is used.
        rates: the nominal rates, between 0 and 1.

    Raises:
        InputError: a rate is out of range, or the thresholds are not conformal.
    """
    kind = detector.config.scoring.threshold
    if kind != "conformal":
        raise InputError(
            f"the detector has {kind} thresholds, for which other false-alarm rates "
            "cannot be judged: train with scoring.threshold=conformal"
        )
    score, names = detector.config.score, machine_names(detector)
    found: dict[str, list[Sensitivity]] = {name: [] for name in names}
    counts = _recordings(detector)
    for rate in rates:
        thresholds = with_false_alarm_rate(detector, rate).thresholds[score][0]
        for name, threshold, held_out, n_recordings in zip(
            names,
            thresholds.tolist(),
            detector.calibration[score][0],
            counts,
            strict=True,
        ):
            n_clips = int((~np.isnan(held_out)).sum())
            n_alarms = int((held_out > threshold).sum())
            found[name].append(
                Sensitivity(rate, threshold, n_alarms, n_clips, n_recordings)
            )
    return found


def unsupported_machines(detector: Detector) -> str:
    """Return a note that names machines with too few recordings for the current rate.

    Returns:
        One line, or "" if every machine has enough independent recordings.
    """
    if detector.config.scoring.threshold != "conformal":
        return ""
    rate = detector.config.scoring.false_alarm_rate
    needed = clips_needed(rate)
    counts = zip(machine_names(detector), _recordings(detector), strict=True)
    few = [f"{name} ({count:.3g})" for name, count in counts if count < needed]
    if not few:
        return ""
    return (
        f"A false-alarm rate of {rate:g} needs {needed} independent recordings, which "
        f"some machines lack: {', '.join(few)}. Expect more false alarms from them."
    )


def _recordings(detector: Detector) -> list[float]:
    """Return the number of each machine's independent held-out recordings."""
    held_out = ~np.isnan(detector.calibration[detector.config.score][0])
    weights = np.round(np.where(held_out, detector.weights, 0.0).sum(-1), 6)
    known = [detector.conditions.get(name) for name in machine_names(detector)]
    return [
        of.n_recordings if of is not None and of.n_recordings else weight
        for of, weight in zip(known, weights.tolist(), strict=True)
    ]


_ENOUGH = 100.0  # independent recordings, quoted for comparison


def training_summaries(detector: Detector) -> dict[str, str]:
    """Describe the data behind each machine's threshold, in one or two sentences.

    Returns:
        A text for each machine, or none if the thresholds are not conformal.
    """
    scoring = detector.config.scoring
    if scoring.threshold != "conformal":
        return dict.fromkeys(machine_names(detector), "")
    of_rate = sensitivities(detector, [scoring.false_alarm_rate])
    return {name: _summary(detector, name, of) for name, (of,) in of_rate.items()}


def _summary(detector: Detector, name: str, found: Sensitivity) -> str:
    known = detector.conditions.get(name)
    length = f" ({known.total_seconds / 60:.3g} minutes)" if known else ""
    text = f"{found.n_clips} clips{length}, {found.n_recordings:.3g} independent"
    text += f" recordings. With a false-alarm rate of {100 * found.rate:g} %, "
    if not found.is_supported:
        needed = clips_needed(found.rate)
        return (
            f"{text}{needed} independent recordings are needed: record at least "
            f"{math.ceil(needed - found.n_recordings)} more, on other days"
        )
    low, high = found.probable_rate
    text += f"probably {100 * low:.1f} to {100 * high:.0f} % of new normal recordings "
    text += "will raise an alarm"
    if found.n_recordings >= _ENOUGH:
        return text
    low, high = false_alarm_range(_ENOUGH, found.rate)
    better = f"{100 * low:.1f} to {100 * high:.0f} %"
    return f"{text}; with {_ENOUGH:g} independent recordings, it would be {better}"
