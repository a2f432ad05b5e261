"""What other false-alarm rates would mean for a fitted detector."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gammavae_jax.errors import InputError
from gammavae_jax.scoring.detector import Detector, with_false_alarm_rate
from gammavae_jax.scoring.sample_size import clips_needed, false_alarm_range
from gammavae_jax.scoring.verdict import machine_names


class Sensitivity(NamedTuple):
    """A false-alarm rate, and what it means for one machine."""

    rate: float  # nominal
    threshold: float
    n_alarms: int  # held-out clips above the threshold
    n_clips: int  # held-out clips
    n_recordings: float  # independent recordings among the held-out clips

    @property
    def is_supported(self) -> bool:
        """Whether there are enough independent recordings for this rate."""
        return self.n_recordings >= clips_needed(self.rate)

    @property
    def real_rate(self) -> tuple[float, float]:
        """The limits of the real rate; see `sample_size.false_alarm_range`."""
        return false_alarm_range(self.n_recordings, self.rate)


def sensitivities(
    detector: Detector, machine: int, rates: Iterable[float]
) -> list[Sensitivity]:
    """Return what each false-alarm rate means for a machine, without retraining.

    Args:
        detector: the detector; the headline score of its first seed is used.
        machine: the machine's index in the detector.
        rates: the nominal rates, between 0 and 1.

    Raises:
        InputError: a rate is out of range, or the thresholds are the official ones.
    """
    if detector.config.scoring.threshold == "official":
        raise InputError(
            "the detector has official thresholds, which cannot be adapted to other "
            "false-alarm rates: train with scoring.threshold=conformal"
        )
    score, found = detector.config.score, []
    for rate in rates:
        changed = with_false_alarm_rate(detector, rate)
        threshold = float(changed.thresholds[score][0, machine])
        held_out = detector.calibration[score][0, machine]
        is_known = ~np.isnan(held_out)
        n_recordings = float(np.round(detector.weights[machine, is_known].sum(), 6))
        n_alarms = int((held_out[is_known] > threshold).sum())
        found.append(
            Sensitivity(rate, threshold, n_alarms, int(is_known.sum()), n_recordings)
        )
    return found


def unsupported_machines(detector: Detector) -> str:
    """Return a note that names machines with too few recordings for the current rate.

    Returns:
        One line; empty if every machine has enough independent recordings.
    """
    rate = detector.config.scoring.false_alarm_rate
    few = [
        f"{name} (has {found.n_recordings:.3g})"
        for number, name in enumerate(machine_names(detector))
        for found in sensitivities(detector, number, [rate])
        if not found.is_supported
    ]
    if not few:
        return ""
    return (
        f"A false-alarm rate of {rate:g} needs {clips_needed(rate)} independent "
        f"recordings: expect more false alarms for {', '.join(few)}."
    )
