"""Explains in words whether a detector detects a fault well enough, and what to do."""

import math
from collections.abc import Callable, Iterator

from gammavae_jax.evaluation.fault_check import (
    LEAST_AUC,
    LEAST_DETECTED,
    MOST_FALSE_ALARMS,
    MOST_RECORDINGS,
    Detection,
    FaultCheck,
    Outcome,
    Question,
)
from gammavae_jax.evaluation.intervals import RocArea, Share
from gammavae_jax.scoring.sample_size import clips_needed

_LEAST = f"{100 * LEAST_DETECTED:g} %"
_ROUNDING = 1e-9  # tolerance for floating-point errors in the limits


def conclusion(check: FaultCheck) -> str:
    """Return the answer as text, with the numbers behind it."""
    detection = check.detection
    outcome, alarms = detection.outcome, detection.false_alarms
    least_auc, most_auc = auc_limits(detection.area)
    if outcome is Outcome.GOOD_ENOUGH:
        least = percent_limits(detection.detected)[0]
        return (
            f"Good enough: with 95 % confidence, at least {least} % of the recordings "
            f"of this fault raise an alarm (needed: {_LEAST}), and the AUC is at least "
            f"{least_auc} (needed: {LEAST_AUC}). The false alarms ({counted(alarms)}) "
            f"are compatible with the rate of {_rate(detection)}."
        )
    if outcome is Outcome.NOT_DETECTABLE and detection.area.interval[1] < LEAST_AUC:
        return (
            "Not detectable: this detector cannot tell this fault from normal sounds "
            f"well enough. With 95 % confidence, the AUC is at most {most_auc} "
            f"(needed: {LEAST_AUC}; chance: 0.5)."
        )
    auc = f"{detection.area.value:.3f} ({least_auc} to {most_auc})"
    failures = " and ".join(_failures(detection))
    if outcome is Outcome.NOT_DETECTABLE:
        return (
            f"Not detectable: with 95 % confidence, {failures}. Another threshold "
            f"would not be enough, because the AUC is only {auc}, and {LEAST_AUC} is "
            "needed."
        )
    if outcome is Outcome.WRONG_THRESHOLD:
        return (
            "Detectable, but the threshold is wrong: with 95 % confidence, "
            f"{failures}. The AUC is {auc}, and {LEAST_AUC} is needed."
        )
    points = "; ".join(_open_point(detection, q) for q in detection.open_questions)
    needed = _recordings_needed(detection)
    return f"Too few recordings to decide: {points}. {needed}"


def advice(check: FaultCheck) -> list[str]:
    """Return the remedies, one text each, or none if the detector is good enough."""
    detection = check.detection
    if detection.outcome is Outcome.WRONG_THRESHOLD:
        return list(_threshold_remedies(check))
    if detection.outcome is Outcome.NOT_DETECTABLE:
        return list(_detector_remedies(check))
    if detection.outcome is Outcome.TOO_FEW:
        is_close = detection.more_recordings is None
        return list(_detector_remedies(check) if is_close else _other_rate(check))
    return []


def counted(share: Share) -> str:
    """Return a count, such as `11 of 16`."""
    return f"{share.count:g} of {share.total:g}"


def percent_limits(share: Share) -> tuple[str, str]:
    """Return the limits of a share's interval in percent, rounded outwards."""
    low, high = share.interval
    return _outwards(100 * low, math.floor), _outwards(100 * high, math.ceil)


def auc_limits(area: RocArea) -> tuple[str, str]:
    """Return the limits of an AUC's interval with two decimals, rounded outwards."""
    low, high = (100 * limit for limit in area.interval)
    floor, ceil = math.floor(low + _ROUNDING), math.ceil(high - _ROUNDING)
    return f"{floor / 100:.2f}", f"{ceil / 100:.2f}"


def _outwards(percent: float, round_: Callable[[float], int]) -> str:
    """Round a percentage to a whole number, or to one decimal if it is below 10."""
    unit = 10 if percent < 10 else 1
    away = _ROUNDING if round_ is math.floor else -_ROUNDING
    return f"{round_(unit * percent + away) / unit:g}"


def _rate(detection: Detection) -> str:
    return f"{100 * detection.false_alarm_rate:g} %"


def _failures(detection: Detection) -> Iterator[str]:
    if detection.misses_faults:
        most = percent_limits(detection.detected)[1]
        yield (
            f"at most {most} % of the recordings of this fault raise an alarm (needed: "
            f"{_LEAST})"
        )
    if detection.has_false_alarms:
        least = percent_limits(detection.false_alarms)[0]
        yield (
            f"at least {least} % of normal recordings raise an alarm (requested: at "
            f"most {_rate(detection)})"
        )


def _open_point(detection: Detection, question: Question) -> str:
    if question is Question.AUC:
        limits = " to ".join(auc_limits(detection.area))
        return f"the AUC may be anything from {limits} (needed: {LEAST_AUC})"
    if question is Question.DETECTED:
        limits = " to ".join(percent_limits(detection.detected))
        return (
            f"the share of detected faults may be anything from {limits} % (needed: "
            f"{_LEAST})"
        )
    if question is Question.FALSE_ALARMS:
        return (
            f"{counted(detection.false_alarms)} normal recordings raise an alarm, "
            f"which is more than {MOST_FALSE_ALARMS:g} times the rate of "
            f"{_rate(detection)} but may be chance"
        )
    needed = clips_needed(detection.false_alarm_rate)
    return (
        f"a false-alarm rate of {_rate(detection)} needs at least {needed} normal "
        "recordings"
    )


def _recordings_needed(detection: Detection) -> str:
    more = detection.more_recordings
    if more is None:
        return (
            f"If the results stay the same, not even {MOST_RECORDINGS} recordings of "
            "each kind are enough: the detector is too close to the limit."
        )
    kinds = [
        f"{n} more {k}" for n, k in zip(more, ("normal", "faulty"), strict=True) if n
    ]
    is_one = sum(more) == 1
    return (
        f"If the results stay the same, {' and '.join(kinds)} "
        f"{'recording is' if is_one else 'recordings are'} enough."
    )


def _threshold_remedies(check: FaultCheck) -> Iterator[str]:
    now, best = check.detection, check.lowest_rate
    if now.has_false_alarms:
        yield (
            "Train with more normal recordings, from days and loads like those of the "
            "recordings that raised false alarms. Recordings used for training cannot "
            "be used for this check."
        )
    if best is None:
        return
    if now.misses_faults and best.false_alarm_rate > now.false_alarm_rate:
        yield f"Raise the false-alarm rate: {_of_rate(best)}"
    is_lower = best.false_alarm_rate < now.false_alarm_rate
    if is_lower and best.false_alarms.interval[0] <= now.false_alarm_rate:
        yield f"Lower the false-alarm rate: {_of_rate(best)}"


def _other_rate(check: FaultCheck) -> Iterator[str]:
    """Suggest a higher false-alarm rate if most faults are missed."""
    now, best = check.detection, check.lowest_rate
    misses_most = now.detected.rate < LEAST_DETECTED
    if misses_most and best is not None:
        yield f"If you cannot record more, raise the false-alarm rate: {_of_rate(best)}"


def _of_rate(detection: Detection) -> str:
    """Describe the results that the detector would have had at a different rate."""
    option = f"--false-alarm-rate {detection.false_alarm_rate:g}"
    return (
        f"`gammavae threshold` with `{option}` would have detected "
        f"{counted(detection.detected)} faults, with "
        f"{counted(detection.false_alarms)} false alarms. Check this with other "
        "recordings."
    )


def _detector_remedies(check: FaultCheck) -> Iterator[str]:
    now, best = check.detection, check.lowest_rate
    if now.area.interval[1] < 0.5:
        yield (
            "The faulty recordings have lower scores than the normal ones: check that "
            "the two folders are not swapped."
        )
    yield (
        "Listen to the faulty recordings: if you cannot hear the fault, move the "
        "microphone nearer to the part that fails, and retrain."
    )
    yield "Record for longer: a rare sound may be missing from a short recording."
    yield (
        "Train with other statistics: `--set 'scoring.fused=[\"maximum_varmin\"]'` "
        "detects short clicks best."
    )
    is_open = now.outcome is not Outcome.NOT_DETECTABLE
    if is_open and best is not None and best.false_alarm_rate > now.false_alarm_rate:
        yield f"Accept more false alarms: {_of_rate(best)}"
