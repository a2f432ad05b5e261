"""Scores recordings clip by clip, for live monitoring."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from gammavae_jax.data.audio.channels import near_waveform
from gammavae_jax.data.audio.files import RecordingBlocks, resampled_blocks
from gammavae_jax.data.audio.samples import signal_of
from gammavae_jax.data.clips import Clips, require_window
from gammavae_jax.data.conditions import RecordedConditions, notes_on
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.recordings.clips import cut_blocks, cut_lengths, split_lengths
from gammavae_jax.data.reference_channel import spectrogram
from gammavae_jax.data.states import State, state_of
from gammavae_jax.live.alarms import AlarmUpdate
from gammavae_jax.scoring.alarm_plan import AlarmRequest, mean_clip_seconds, plan_policy
from gammavae_jax.scoring.alarm_policy import AlarmPolicy
from gammavae_jax.scoring.clip_scorer import ClipScorer, score_of_clips
from gammavae_jax.scoring.decision import DecisionRule
from gammavae_jax.scoring.verdict import Verdict

if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector

Waveform = Float32[np.ndarray, "sample *channel"]  # see `audio.channels`


class ScoredRecording(NamedTuple):
    """A recording that was scored clip by clip."""

    verdict: Verdict
    highest: Waveform  # the clip with the highest score
    sample_rate: int  # Hz, of the file
    notes: Mapping[str, str]  # differences from the training recordings
    alarms: AlarmUpdate | None = None  # None without an alarm policy

    @property
    def n_alarms(self) -> int:
        """The number of alarms that the recording raised."""
        if self.alarms is None:
            return int(self.verdict.is_anomaly)
        return self.alarms.n_raised

    def with_alarms(self, update: AlarmUpdate) -> "ScoredRecording":
        """Return the recording with its alarms and the notes on these alarms added."""
        notes = {**self.notes, **update.notes}
        return self._replace(alarms=update, notes=notes)

    def entry(self) -> dict[str, Any]:
        """Return the verdict as a JSON object.

        It omits the names of the recording and of the machine.
        """
        entry = self.verdict.entry()
        del entry["name"], entry["machine"]
        made = {"sample_rate": self.sample_rate, "notes": list(self.notes.values())}
        return {**entry, **made, **(self.alarms.entry() if self.alarms else {})}


class LiveScorer:
    """Scores one recording at a time with an `AnomalyDetector`.

    A recording is read block by block, so memory holds only one clip of it. The verdict
    is the same as the one from `AnomalyDetector.score_recordings`.
    """

    def __init__(self, detector: "AnomalyDetector"):
        self._detector = detector.detector_
        self._features = self._detector.config.features
        self._scorer = ClipScorer(self._detector)
        self.machines: tuple[str, ...] = detector.machines_
        self.thresholds: Mapping[str, float] = detector.threshold_
        self.sample_rate = self._features.sample_rate  # Hz
        # Which channels to use if a recording has several.
        self.channels = self._features.channels
        # The length of the clips that a recording is cut into; None: it is not cut.
        self.clip_seconds = detector.clip_seconds

    def score(
        self, recording: RecordingBlocks, machine: str, name: str
    ) -> ScoredRecording:
        """Score a recording of any sample rate.

        Args:
            recording: the opened recording.
            machine: the recorded machine.
            name: the recording's name in messages.

        Raises:
            InputError: the recording cannot be read or is too short.
        """
        rate, wanted = recording.sample_rate, self.sample_rate
        n_samples = (2 * recording.n_samples * wanted + rate) // (2 * rate)  # rounded
        recorded, blocks = itertools.tee(recording.blocks)
        seconds_a_clip = self.clip_seconds
        length = None if seconds_a_clip is None else round(seconds_a_clip * wanted)
        lengths = cut_lengths(n_samples, length)
        clips = cut_blocks(resampled_blocks(blocks, rate, wanted), lengths)
        of_each = split_lengths(recording.n_samples, len(lengths))
        scores, seconds, states, highest = [], [], [], None
        for clip, samples in zip(clips, cut_blocks(recorded, of_each), strict=True):
            require_window(len(clip), name, self._features)
            score, state = self.examine(clip, samples, machine)
            scores.append(score)
            states.append(state)
            seconds.append(len(clip) / wanted)
            rank = states[-1] == State.RUNNING, scores[-1]
            if highest is None or rank > highest[0]:
                highest = rank, clip
        assert highest is not None  # every recording has at least one clip
        return ScoredRecording(
            self.judge(name, machine, scores, seconds, states),
            highest[1],
            rate,
            self.notes_on(recording, highest[1], machine),
        )

    def examine(
        self,
        clip: Waveform,
        recorded: Float32[np.ndarray, "recorded *channel"],
        machine: str,
    ) -> tuple[float, State]:
        """Return a clip's score and state; `recorded` is the clip before resampling."""
        log_mel, signal = self.spectrogram(clip), signal_of(near_waveform(recorded))
        conditions = self._detector.conditions.get(machine)
        clips = Clips((clip_file(Path("clip.wav")),), (log_mel,))
        number = self.machines.index(machine)
        ((score,),) = score_of_clips(self._scorer, {number: clips})
        return float(score), state_of(log_mel, signal, conditions, self._features)

    def judge(
        self,
        name: str,
        machine: str,
        scores: Sequence[float],
        seconds: Sequence[float],
        states: Sequence[State],
    ) -> Verdict:
        """Judge a recording by the scores, lengths and states of its clips."""
        return self.rule(machine).judge(name, scores, seconds, states)

    def rule(self, machine: str) -> DecisionRule:
        """Return the rule that judges a machine's recordings."""
        return DecisionRule.of(self._detector, self.machines.index(machine))

    def alarm_policies(self, request: AlarmRequest) -> dict[str, AlarmPolicy]:
        """Return the alarm policy of each machine; see `alarm_plan.plan_policy`."""
        return {
            machine: plan_policy(
                self.rule(machine), self.mean_clip_seconds(machine), request
            )
            for machine in self.machines
        }

    def mean_clip_seconds(self, machine: str) -> float:
        """Return the mean length of a machine's training clips, in seconds."""
        return mean_clip_seconds(self._detector, machine)

    def notes_on(
        self,
        recording: RecordingBlocks,
        clip: Waveform,
        machine: str,
    ) -> dict[str, str]:
        """Describe how a recording and a clip from it differ from the training data."""
        formats = [(recording.sample_rate, recording.n_channels)]
        recorded = RecordedConditions(
            [self.spectrogram(clip)], formats, [recording.levels]
        )
        return notes_on({machine: recorded}, self._detector.conditions, self._features)

    def spectrogram(self, clip: Waveform) -> Float32[np.ndarray, "frame mel"]:
        """Compute a clip's log-mel spectrogram in dB, as the detector does."""
        bank = self._detector.filterbank
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
    from gammavae_jax.scoring.sample_size import unsupported_machines

    detector = AnomalyDetector.load(path, verbose=False)
    if false_alarm_rate is not None:
        detector.set_params(false_alarm_rate=false_alarm_rate)
    _ = detector.threshold_  # adapts the detector to the rate
    note = unsupported_machines(detector.detector_)
    if note and false_alarm_rate is not None:
        say(note)
    return LiveScorer(detector)
