"""What live monitoring asks of a detector."""

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

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


if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector

_CLIP_SECONDS = 10.0  # where a detector does not say; those of the challenge


@runtime_checkable
class LiveScorer(Protocol):
    """A detector, as live monitoring sees it: one clip at a time."""

    machines: tuple[str, ...]
    thresholds: Mapping[str, float]  # by machine
    sample_rate: int  # Hz, of the clips it is given
    channel: int  # of recordings, counted from 0
    clip_seconds: float  # about the length of the clips it has learnt from
    least_samples: int  # of a clip

    def judge(self, clip: Float32[np.ndarray, "sample"], machine: str) -> Verdict:
        """What is to be said of a clip of one of the machines."""
        ...

    def spectrogram(
        self, clip: Float32[np.ndarray, "sample"]
    ) -> Float32[np.ndarray, "frame mel"]:
        """The clip as the detector sees it, in dB."""
        ...


class DetectorScorer:
    """A `LiveScorer` of an `AnomalyDetector`."""

    def __init__(self, detector: "AnomalyDetector"):
        self._detector = detector
        self._features = self._detector.detector_.config.features
        self.machines = self._detector.machines_
        self.thresholds: Mapping[str, float] = self._detector.threshold_
        self.sample_rate = self._features.sample_rate
        self.channel = self._features.channel
        # A run's checkpoint was made of whole clips, of any length.
        self.clip_seconds = self._detector.clip_seconds or _CLIP_SECONDS
        self.least_samples = (self._features.n_context - 1) * self._features.hop_length

    def judge(self, clip: Float32[np.ndarray, "sample"], machine: str) -> Verdict:
        """See `LiveScorer`."""
        (scored,) = self._detector.score_recordings(
            [clip], self.sample_rate, machine=machine
        )
        return Verdict(
            scored.score, scored.p_value, scored.threshold, scored.is_anomaly
        )

    def spectrogram(
        self, clip: Float32[np.ndarray, "sample"]
    ) -> Float32[np.ndarray, "frame mel"]:
        """See `LiveScorer`."""
        from gammavae_jax.data.features import log_mel

        return log_mel(clip, self._detector.detector_.filterbank, self._features)


def load_scorer(path: str | os.PathLike[str]) -> LiveScorer:
    """A detector that was saved, or the checkpoint of a run.

    Raises:
        InputError: there is no detector that can be read.
    """
    from gammavae_jax.anomaly_detector import AnomalyDetector

    return DetectorScorer(AnomalyDetector.load(path, verbose=False))
