"""What is said of a clip, of a stretch of alarm, and of a recording as a whole."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32


class Verdict(NamedTuple):
    """What a detector says of a clip."""

    score: float  # higher is more anomalous
    p_value: float  # of a normal clip scoring as high; NaN where unknown
    threshold: float
    is_anomaly: bool


class Stretch(NamedTuple):
    """Successive windows of a long recording that are all alarms."""

    start: float  # s
    end: float  # s
    worst: Verdict


class Heard(NamedTuple):
    """A recording, heard to its end."""

    seconds: float
    worst: Verdict  # of its windows; of a short recording, its own
    worst_clip: Float32[np.ndarray, "sample"]
    n_windows: int  # 1 is a recording that was scored whole
    n_alarms: int  # windows above the threshold


def finite(value: float) -> float | None:
    """A number as JSON has it: what is no finite number is null."""
    return value if math.isfinite(value) else None


def numbers(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON has it."""
    return {
        "score": finite(verdict.score),
        "p_value": finite(verdict.p_value),
        "threshold": finite(verdict.threshold),
        "is_anomaly": verdict.is_anomaly,
    }
