"""A detector for live monitoring, which scores recordings window by window."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from gammavae_jax.data.audio import Recording, RecordingBlocks, resampled_blocks
from gammavae_jax.data.conditions import Heard, notes_on
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.json_numbers import finite
from gammavae_jax.scoring.verdict import Verdict

if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector

_CLIP_SECONDS = 10.0  # for detectors without a clip length; as in the challenge
_LONGEST_WHOLE = 1.5  # windows; longer recordings are split, as in training
_LONGEST_WINDOW = 600  # s; a window is held in memory

Waveform = Float32[np.ndarray, "sample *channel"]  # see `data.channels`
Blocks = Iterable[Float32[np.ndarray, "_ *channel"]]


class Stretch(NamedTuple):
    """A stretch of consecutive windows that are all alarms."""

    start: float  # s
    end: float  # s
    worst: Verdict

    def entry(self) -> dict[str, Any]:
        """Return the stretch as a JSON object."""
        return {"start": self.start, "end": self.end, **_entry(self.worst)}


class RecordingVerdict(NamedTuple):
    """The verdict on a whole recording."""

    seconds: float
    worst: Verdict  # of all windows
    worst_clip: Waveform
    n_windows: int  # 1 if the recording was scored as one clip
    n_alarms: int  # windows above the threshold
    sample_rate: int = 0  # Hz, of the file
    notes: Mapping[str, str] = {}  # differences from the training recordings

    @property
    def is_single_alarm(self) -> bool:
        """Whether the recording is a single window that is an alarm."""
        return self.worst.is_anomaly and self.n_windows == 1

    def entry(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        counts = {"n_windows": self.n_windows, "n_alarms": self.n_alarms}
        made = {"sample_rate": self.sample_rate, "notes": list(self.notes.values())}
        return {"seconds": self.seconds, **counts, **_entry(self.worst), **made}


def _entry(verdict: Verdict) -> dict[str, Any]:
    """Convert a verdict to a JSON object."""
    numbers = ("score", "p_value", "threshold")
    entry = {name: finite(getattr(verdict, name)) for name in numbers}
    return {**entry, "is_anomaly": verdict.is_anomaly}


class LiveScorer:
    """A wrapper around an `AnomalyDetector` that scores one clip at a time."""

    def __init__(self, detector: "AnomalyDetector"):
        self._detector = detector
        self._features = detector.detector_.config.features
        self.machines: tuple[str, ...] = detector.machines_
        self.thresholds: Mapping[str, float] = detector.threshold_
        self.sample_rate = self._features.sample_rate  # Hz
        # Which channels to use if a recording has several.
        self.channels = self._features.channels
        # A run trains on whole clips of any length, so it stores no clip length.
        self.clip_seconds = detector.clip_seconds or _CLIP_SECONDS
        # The length of the shortest clip that can be scored.
        self.min_samples = (self._features.n_context - 1) * self._features.hop_length

    def judge(self, clip: Waveform, machine: str) -> Verdict:
        """Score a clip of the given machine, and return the verdict."""
        read = Recording(clip, self.sample_rate)
        (verdict,) = self._detector.score_recordings([read], machine=machine)
        return verdict

    def notes_on(
        self,
        recording: RecordingBlocks,
        clip: Waveform,
        machine: str,
    ) -> dict[str, str]:
        """Describe how a recording and a clip from it differ from the training data."""
        formats = [(recording.sample_rate, recording.n_channels)]
        heard = Heard([self.spectrogram(clip)], formats, [recording.levels])
        conditions = self._detector.detector_.conditions
        return notes_on({machine: heard}, conditions, self._features)

    def spectrogram(self, clip: Waveform) -> Float32[np.ndarray, "frame mel"]:
        """Compute a clip's log-mel spectrogram in dB, as the detector does."""
        from gammavae_jax.data.reference import spectrogram

        bank = self._detector.detector_.filterbank
        return spectrogram(clip, bank, self._features).log_mel


def load_scorer(
    path: str | os.PathLike[str],
    false_alarm_rate: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> LiveScorer:
    """Load a saved detector, or the checkpoint of a run.

    Args:
        path: the detector's folder.
        false_alarm_rate: sets the thresholds; None: the detector's own rate.
        say: called with a note if there are too few recordings for this rate.
    """
    from gammavae_jax.anomaly_detector import AnomalyDetector
    from gammavae_jax.scoring.sensitivity import unsupported_machines

    detector = AnomalyDetector.load(path, verbose=False)
    if false_alarm_rate is not None:
        detector.set_params(false_alarm_rate=false_alarm_rate)
    scorer = LiveScorer(detector)
    note = unsupported_machines(detector.detector_)
    if note and false_alarm_rate is not None:
        say(note)
    return scorer


class WindowSize(NamedTuple):
    """The window length and hop for long recordings."""

    length: int  # samples
    hop: int  # samples from one window to the next


def window_size(
    scorer: LiveScorer, window_seconds: float | None, hop_seconds: float | None
) -> WindowSize:
    """Choose the window length and hop, and check them.

    By default, a window is as long as a training clip, and the hop is half a window.

    Raises:
        InputError: the window or the hop is too short or too long.
    """
    seconds = scorer.clip_seconds if window_seconds is None else window_seconds
    least = scorer.min_samples / scorer.sample_rate
    if not least <= seconds <= _LONGEST_WINDOW:
        problem = f"a window of {seconds:g} s is too short or too long"
        raise InputError(f"{problem}: use {least:.2g} to {_LONGEST_WINDOW} s")
    hop = seconds / 2 if hop_seconds is None else hop_seconds
    if not 0 < hop <= seconds:
        problem = f"a hop of {hop:g} s does not suit windows of {seconds:g} s"
        raise InputError(f"{problem}: use more than 0 s and at most the window length")
    length = round(seconds * scorer.sample_rate)
    return WindowSize(length, max(1, round(hop * scorer.sample_rate)))


def split_windows(
    blocks: Blocks, size: WindowSize
) -> Iterator[tuple[int, Float32[np.ndarray, "_ *channel"]]]:
    """Yield each window with the index of its first sample.

    A recording of up to one and a half windows is a single window. A longer recording
    is covered completely: its last window ends with the recording.
    """
    length, hop = size
    buffer, previous, start = np.zeros(0, np.float32), None, 0
    for block in _joined(blocks, length):
        buffer = np.concatenate([buffer, block]) if len(buffer) else block
        if previous is None and len(buffer) <= _LONGEST_WHOLE * length:
            continue
        while len(buffer) >= length:
            previous = buffer[:length]
            yield start, previous
            buffer, start = buffer[hop:], start + hop
    if previous is None:
        yield 0, buffer
    elif len(buffer) > length - hop:
        last = np.concatenate([previous, buffer[length - hop :]])[-length:]
        yield start + len(buffer) - length, last


def score_recording(
    scorer: LiveScorer,
    machine: str,
    recording: RecordingBlocks,
    size: WindowSize,
    name: str,
) -> Iterator[Stretch | RecordingVerdict]:
    """Resample and score a recording; add notes and its sample rate to the verdict.

    The recording may have any sample rate. Like `score_windows`, this yields each
    stretch of alarms, and finally the verdict.
    """
    rate = recording.sample_rate
    blocks = resampled_blocks(recording.blocks, rate, scorer.sample_rate)
    for verdict in score_windows(scorer, machine, blocks, size, name):
        if isinstance(verdict, RecordingVerdict):
            notes = scorer.notes_on(recording, verdict.worst_clip, machine)
            verdict = verdict._replace(sample_rate=rate, notes=notes)
        yield verdict


def _joined(blocks: Blocks, least: int) -> Blocks:
    """Merge blocks until each has at least `least` samples; the last may have fewer."""
    waiting, n_samples = [], 0
    for block in blocks:
        waiting.append(block)
        n_samples += len(block)
        if n_samples >= least:
            yield np.concatenate(waiting)
            waiting, n_samples = [], 0
    if waiting:
        yield np.concatenate(waiting)


def score_windows(
    scorer: LiveScorer, machine: str, blocks: Blocks, size: WindowSize, name: str
) -> Iterator[Stretch | RecordingVerdict]:
    """Yield each stretch of alarms once it ends, and finally the recording's verdict.

    A recording of a single window yields no stretches; a recording that is too short
    raises an `InputError`. The blocks must have the detector's sample rate.
    """
    rate = scorer.sample_rate
    n_windows = n_alarms = 0
    worst: tuple[Verdict, np.ndarray] | None = None
    stretch: Stretch | None = None
    end = 0.0
    for start, clip in split_windows(blocks, size):
        if len(clip) < scorer.min_samples:
            least = f"use recordings of at least {scorer.min_samples / rate:.2g} s"
            seconds = f"{len(clip) / rate:.2g} s"
            raise InputError(f"{name} is too short ({seconds}): {least}")
        verdict, end = scorer.judge(clip, machine), (start + len(clip)) / rate
        n_windows += 1
        n_alarms += verdict.is_anomaly
        if worst is None or _badness(verdict) > _badness(worst[0]):
            worst = verdict, clip
        if verdict.is_anomaly:
            before = stretch or Stretch(start / rate, end, verdict)
            worse = max(before.worst, verdict, key=_badness)
            stretch = Stretch(before.start, end, worse)
        elif stretch is not None:
            yield stretch
            stretch = None
    assert worst is not None  # every recording has at least one window
    if stretch is not None and n_windows > 1:
        yield stretch
    yield RecordingVerdict(end, *worst, n_windows, n_alarms)


def _badness(verdict: Verdict) -> tuple[bool, float]:
    """Return a sort key that ranks alarms highest, and NaN scores below all others."""
    is_number = not math.isnan(verdict.score)
    return verdict.is_anomaly, verdict.score if is_number else -math.inf
