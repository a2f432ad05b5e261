"""Shows how other false-alarm rates would affect a fitted detector."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gammavae_jax.errors import InputError
from gammavae_jax.scoring.detector import Detector, machine_names, with_false_alarm_rate
from gammavae_jax.scoring.sample_size import clips_needed, false_alarm_range


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
        """The range of the real rate; see `sample_size.false_alarm_range`."""
        return false_alarm_range(self.n_recordings, self.rate)


def sensitivities(
    detector: Detector, rates: Iterable[float]
) -> dict[str, list[Sensitivity]]:
    """Return each false-alarm rate's effect on each machine; nothing is trained again.

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
        One line; empty if every machine has enough independent recordings.
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
        A text for each machine; empty if the thresholds are not conformal.
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
