"""Decides whether a recording raises an alarm, based on the scores of its clips.

`gammavae score`, `watch` and `serve`, the pages and the Python interface all use this
rule, so their results are identical.

Clips in which the machine is not running (see `data.states`) are left out. If no clips
remain, the recording raises no alarm, and its state is reported instead.

A recording of up to eight clips is one segment. A longer one is cut into segments of
about six clips, a minute by default. A segment's score is the mean of its clips'
scores. It is compared with the scores of held-out segments that have as many clips,
because a mean over more clips varies less. If the training recordings are shorter, the
held-out segments have fewer clips.

A recording of `n` segments raises an alarm if, for any `k`, its `k`-th highest segment
has a p-value of at most `k / n` times the false-alarm rate. However long a normal
recording is, the probability that it raises an alarm is at most the false-alarm rate
(Simes 1986; for conformal p-values, which depend on each other, see Bates et al. 2023,
"Testing for outliers with conformal p-values").
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Shaped

from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.data.states import State, states_of
from gammavae_jax.errors import InputError
from gammavae_jax.scoring.detector import Detector, machine_names
from gammavae_jax.scoring.sample_size import clips_needed
from gammavae_jax.scoring.threshold import conformal_threshold, p_values
from gammavae_jax.scoring.verdict import Segment, Verdict, stretches_of

CLIPS_IN_SEGMENT = 6  # a minute, if clips have ten seconds
Numbers = Sequence[float] | Float[np.ndarray, "_"]
HeldOut = tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]]  # scores, weights

# The share of the training recordings that may be shorter than a held-out segment.
_SHARE_SHORTER = 0.1


@dataclass(frozen=True)
class DecisionRule:
    """The rule that decides which recordings of one machine raise an alarm.

    Attributes:
        machine: the machine's name.
        threshold: the threshold for the score of a single clip.
        false_alarm_rate: the share of normal recordings that may raise an alarm.
        held_out: the scores of the held-out training clips; None with official
            thresholds.
        weights: each held-out clip's weight, as a fraction of an independent recording;
            see `training.links.independence`.
        recording_sizes: the number of clips of each training recording, in the order of
            `held_out`; empty if each clip is a recording.
        is_conformal: whether thresholds are conformal. Otherwise, the mean score of all
            clips is compared with `threshold`.
    """

    machine: str
    threshold: float
    false_alarm_rate: float = 0.1
    held_out: Float[np.ndarray, "clip"] | None = None
    weights: Float[np.ndarray, "clip"] = field(default_factory=lambda: np.zeros(0))
    recording_sizes: tuple[int, ...] = ()
    is_conformal: bool = True

    @classmethod
    def of(cls, detector: Detector, number: int) -> "DecisionRule":
        """Return the rule for the machine at index `number` of a detector."""
        score, name = detector.config.score, machine_names(detector)[number]
        conditions = detector.conditions.get(name)
        calibration = detector.calibration.get(score)
        return cls(
            name,
            float(detector.thresholds[score][0, number]),
            detector.config.scoring.false_alarm_rate,
            None if calibration is None else calibration[0, number],
            detector.weights[number],
            conditions.recording_sizes if conditions else (),
            detector.config.scoring.threshold == "conformal",
        )

    def without(self, clips: Int[np.ndarray, "_"]) -> "DecisionRule":
        """Return the rule without these held-out clips."""
        assert self.held_out is not None
        others = self.held_out.copy()
        others[clips] = np.nan
        return replace(self, held_out=others)

    def judge(
        self,
        name: str,
        scores: Numbers,
        seconds: Numbers,
        states: Sequence[State] | None = None,
    ) -> Verdict:
        """Return the verdict on a recording.

        Only clips in which the machine is running count. If it never runs, the score
        covers all clips, but there is no alarm.

        Args:
            name: the recording's name.
            scores: the score of each clip, in time order.
            seconds: the length of each clip.
            states: the state of each clip; default: the machine runs in all of them.

        Raises:
            InputError: a score is not finite.
        """
        of_clips = np.array(scores, np.float64)
        states = [State.RUNNING] * len(of_clips) if states is None else states
        is_running = np.array([state == State.RUNNING for state in states])
        judged = of_clips[is_running] if is_running.any() else of_clips
        if not np.isfinite(judged).all():
            raise InputError(
                f"{name}: the score is not finite: leave the recording out, and check "
                "whether its samples are far outside [-1, 1]"
            )
        held_out = self.held_out_segments(min(map(len, _split(judged))))[:2]
        score, p_value, threshold, n_recordings = self._compared(judged, held_out)
        is_above = is_running & (of_clips > self.threshold)
        return Verdict(
            name,
            self.machine,
            float(score),
            float(p_value),
            float(threshold),
            math.fsum(seconds),
            len(of_clips),
            int(is_above.sum()),
            stretches_of(of_clips, is_above, seconds),
            n_recordings,
            Counter(state.value for state in states),
            self._segments(of_clips, seconds, np.flatnonzero(is_running), held_out),
        )

    def _segments(
        self,
        scores: Float[np.ndarray, "clip"],
        seconds: Numbers,
        running: Int[np.ndarray, "_"],
        held_out: HeldOut,
    ) -> tuple[Segment, ...]:
        """Return the segments formed by the clips whose indices are in `running`."""
        if not len(running):
            return ()
        ends, places = np.cumsum(seconds), _split(running)
        means = np.array([scores[place].mean() for place in places])
        is_known = self.is_conformal and len(held_out[0]) > 0
        p = p_values(means, *held_out) if is_known else np.full(len(means), np.nan)
        first = [float(ends[place[0]] - seconds[place[0]]) for place in places]
        last = [float(ends[place[-1]]) for place in places]
        return tuple(map(Segment, first, last, means.tolist(), p.tolist()))

    def _compared(
        self, clips: Float[np.ndarray, "clip"], held_out: HeldOut
    ) -> tuple[float, float, float, float]:
        """Compare a recording's clips with held-out segments.

        Returns:
            The score of the segment that decides, the recording's p-value, the
            threshold, and the number of independent recordings behind the p-value.
        """
        segments, (scores, weights) = _split(clips), held_out
        n_recordings = float(np.round(weights.sum(), 6))
        if not self.is_conformal or n_recordings < clips_needed(self.false_alarm_rate):
            segments = [clips]  # a single segment's p-value could not be small enough
        means = np.sort([segment.mean() for segment in segments])[::-1]
        if not len(scores):  # the thresholds are official, or training failed
            return means[0], math.nan, self.threshold, 0.0
        factors = len(means) / np.arange(1, len(means) + 1)
        p_of_each = np.minimum(1.0, factors * p_values(means, scores, weights))
        rates = self.false_alarm_rate / factors
        is_possible = np.array([n_recordings >= clips_needed(r) for r in rates])
        is_possible[-1] = True  # the highest held-out score is always a threshold
        p_possible = np.where(is_possible, p_of_each, np.inf)
        decisive = len(means) - 1 - int(p_possible[::-1].argmin())
        threshold = self.threshold
        if self.is_conformal:
            threshold = conformal_threshold(scores, rates[decisive], weights)
        return means[decisive], p_of_each.min(), threshold, n_recordings

    def held_out_segments(
        self, n_clips: int
    ) -> tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"], Int[np.ndarray, "_"]]:
        """Return the scores, weights and recording indices of held-out segments.

        Segments are in the order of the training recordings. They have `n_clips` clips,
        or fewer if the training recordings are shorter.
        """
        if self.held_out is None:
            return np.zeros(0), np.zeros(0), np.zeros(0, int)
        known = np.flatnonzero(~np.isnan(self.held_out))
        n_clips = min(n_clips, self.usual_size)
        sizes = self.recording_sizes or (1,) * len(self.held_out)
        ends = np.cumsum(sizes)
        if n_clips == 1:
            recordings = np.searchsorted(ends, known, side="right")
            return self.held_out[known], self.weights[known], recordings
        scores, weights, numbers = [], [], []
        of_each = np.split(known, np.searchsorted(known, ends[:-1]))
        for number, clips in enumerate(of_each):
            n_segments = max(1, len(clips) // n_clips)
            if not len(clips):
                continue
            for place in range(n_segments):
                part = clips[place * n_clips : (place + 1) * n_clips]
                scores.append(self.held_out[part].mean())
                weights.append(self.weights[clips].sum() / n_segments)
                numbers.append(number)
        return np.array(scores), np.array(weights), np.array(numbers, int)

    @cached_property
    def usual_size(self) -> int:
        """The number of clips that nine out of ten training recordings reach."""
        if not self.recording_sizes:
            return 1
        sizes = np.sort(self.recording_sizes)
        return int(sizes[int(_SHARE_SHORTER * len(sizes))])


def _split(clips: Shaped[np.ndarray, "_"]) -> list[Shaped[np.ndarray, "_"]]:
    """Cut a recording's clips into segments of about six."""
    n_segments = max(1, round(len(clips) / CLIPS_IN_SEGMENT))
    return np.array_split(clips, n_segments)


# A machine's index in the detector, its recordings, and the scores of their clips.
Scored = tuple[int, LoadedRecordings, Float[np.ndarray, "_"]]


def clip_states(
    detector: Detector, number: int, recordings: LoadedRecordings
) -> tuple[State, ...]:
    """Return the state of each clip; `number` is the machine's index."""
    conditions = detector.conditions.get(machine_names(detector)[number])
    return states_of(recordings, conditions, detector.config.features)


def judge_held_out(
    detector: Detector, loaded: Mapping[str, LoadedRecordings]
) -> list[Verdict]:
    """Judge each training recording as if it were new.

    Args:
        detector: the detector.
        loaded: the training recordings of each machine.

    Raises:
        InputError: thresholds are not conformal, or a training clip has no score.
    """
    calibration = detector.calibration.get(detector.config.score)
    scored, names = [], machine_names(detector)
    for name, recordings in loaded.items():
        number, n_clips = names.index(name), len(recordings.clips.files)
        scores = None if calibration is None else calibration[0, number, :n_clips]
        is_conformal = detector.config.scoring.threshold == "conformal"
        if scores is None or not is_conformal or np.isnan(scores).any():
            raise InputError(
                f"{name}: the training recordings have no conformal p-values: use "
                "train.split=folds and scoring.threshold=conformal"
            )
        scored.append((number, recordings, scores))
    return judge_recordings(detector, scored, is_training=True)


def judge_recordings(
    detector: Detector, scored: Sequence[Scored], is_training: bool = False
) -> list[Verdict]:
    """Return the verdict on each recording, grouped by machine.

    Args:
        detector: the detector.
        scored: the machines' recordings, with the scores of their clips.
        is_training: whether these are all training clips, with their held-out scores.
            If so, no recording is compared with itself.

    Raises:
        InputError: a score is not finite.
    """
    verdicts = []
    for number, recordings, scores in scored:
        rule = DecisionRule.of(detector, number)
        states = clip_states(detector, number, recordings)
        of_clip, seconds = recordings.recording, np.array(recordings.seconds)
        for index, name in enumerate(recordings.names):
            clips = np.flatnonzero(of_clip == index)
            of_recording = [states[clip] for clip in clips]
            own = rule.without(clips) if is_training else rule
            verdicts.append(
                own.judge(name, scores[clips], seconds[clips], of_recording)
            )
    return verdicts
