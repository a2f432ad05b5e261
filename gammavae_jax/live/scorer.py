"""What live monitoring needs from a detector, and the verdicts it gets."""

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from gammavae_jax.scoring.verdict import Verdict

if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector

_CLIP_SECONDS = 10.0  # the challenge's clips, for detectors that do not state theirs


class Stretch(NamedTuple):
    """Consecutive windows of a long recording that are all alarms."""

    start: float  # s
    end: float  # s
    worst: Verdict

    def entry(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"start": self.start, "end": self.end, **_entry(self.worst)}


class RecordingVerdict(NamedTuple):
    """The verdict on a whole recording."""

    seconds: float
    worst: Verdict  # of its windows
    worst_clip: Float32[np.ndarray, "sample"]
    n_windows: int  # 1 if the recording was scored as one clip
    n_alarms: int  # windows above the threshold

    def entry(self) -> dict[str, Any]:
        """Return a JSON object."""
        counts = {"n_windows": self.n_windows, "n_alarms": self.n_alarms}
        return {"seconds": self.seconds, **counts, **_entry(self.worst)}


def _entry(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as a JSON object."""
    numbers = ("score", "p_value", "threshold")
    entry = {name: finite(getattr(verdict, name)) for name in numbers}
    return {**entry, "is_anomaly": verdict.is_anomaly}


def finite(value: float) -> float | None:
    """Return the number, or None (null in JSON) if it is not finite."""
    return value if math.isfinite(value) else None


class LiveScorer:
    """An `AnomalyDetector` that scores one clip at a time."""

    def __init__(self, detector: "AnomalyDetector"):
        self._detector = detector
        self._features = detector.detector_.config.features
        self.machines: tuple[str, ...] = detector.machines_
        self.thresholds: Mapping[str, float] = detector.threshold_
        self.sample_rate = self._features.sample_rate  # Hz
        self.channel = self._features.channel  # of a recording with several
        # A run trains on whole clips of any length, so its checkpoint has none.
        self.clip_seconds = detector.clip_seconds or _CLIP_SECONDS
        # Of a clip that can be scored.
        self.min_samples = (self._features.n_context - 1) * self._features.hop_length

    def judge(self, clip: Float32[np.ndarray, "sample"], machine: str) -> Verdict:
        """Return the verdict on a clip of this machine."""
        (verdict,) = self._detector.score_recordings(
            [clip], self.sample_rate, machine=machine
        )
        return verdict

    def spectrogram(
        self, clip: Float32[np.ndarray, "sample"]
    ) -> Float32[np.ndarray, "frame mel"]:
        """Return the log-mel spectrogram that the detector computes, in dB."""
        from gammavae_jax.data.features import log_mel

        return log_mel(clip, self._detector.detector_.filterbank, self._features)


def load_scorer(path: str | os.PathLike[str]) -> LiveScorer:
    """Load a saved detector, or the checkpoint of a run."""
    from gammavae_jax.anomaly_detector import AnomalyDetector

    return LiveScorer(AnomalyDetector.load(path, verbose=False))
