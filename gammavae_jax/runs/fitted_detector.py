"""The methods of a fitted `AnomalyDetector`: scores, alarms, explanations and pages.

Modules that import JAX are imported by the methods that need them; see `estimator`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gammavae_jax.data.recordings.sources import known_machine, one_machine
from gammavae_jax.data.states import State
from gammavae_jax.errors import InputError
from gammavae_jax.runs.estimator import DetectorState
from gammavae_jax.scoring.alarm_policy import Alarm, AlarmPolicy
from gammavae_jax.scoring.verdict import Verdict

if TYPE_CHECKING:
    from gammavae_jax.report.explanation import Explanation
    from gammavae_jax.report.recordings_page import ReportedVerdicts
    from gammavae_jax.scoring.decision import Scored

Given = Any  # `Recordings` of one machine, or a dict of them by machine name


class FittedDetector(DetectorState):
    """The methods of an `AnomalyDetector` that need a fitted detector.

    For the argument `recordings`, see `AnomalyDetector`. In every method, an InputError
    means that a recording cannot be used or that a machine is unknown.
    """

    def score_samples(self, recordings: Given, sample_rate: int | None = None) -> Any:
        """Return the anomaly score of each recording; higher is more anomalous.

        Returns:
            An array of scores in the given order (a folder's files are sorted by name);
            for a dict of machines, a dict of such arrays.
        """
        return self._of_each(recordings, sample_rate, lambda r: r.score)

    def decision_function(
        self, recordings: Given, sample_rate: int | None = None
    ) -> Any:
        """Return scores minus thresholds; a positive value means an alarm.

        See `score_samples`.

        The value is at most 0 unless the state is running.
        """
        return self._of_each(recordings, sample_rate, lambda r: r.margin)

    def predict(self, recordings: Given, sample_rate: int | None = None) -> Any:
        """Return True for each recording that raises an alarm. See `score_samples`."""
        return self._of_each(recordings, sample_rate, lambda r: r.is_anomaly)

    def predict_proba(self, recordings: Given, sample_rate: int | None = None) -> Any:
        """Return two columns for each recording: its p-value, and 1 minus its p-value.

        They say how compatible a recording is with normal sounds; they are not the
        probability of a fault, which depends on how often machines break. The p-value
        is 1 unless the state is running.
        """

        def columns(verdict: Verdict) -> tuple[float, float]:
            p = verdict.p_value if verdict.is_running else 1.0
            return p, 1 - p

        return self._of_each(recordings, sample_rate, columns)

    def score_recordings(
        self,
        recordings: Given,
        sample_rate: int | None = None,
        machine: str | None = None,
    ) -> list[Verdict]:
        """Return a verdict for each recording, grouped by machine.

        Args:
            recordings: see the class.
            sample_rate: the waveforms' sample rate in Hz.
            machine: the recordings' machine; omit it if `recordings` is a dict.
        """
        from gammavae_jax.scoring.decision import judge_recordings

        scored = self._clip_scores(recordings, sample_rate, machine)
        return judge_recordings(self.detector_, scored)

    def was_trained_on(
        self,
        recordings: Given,
        sample_rate: int | None = None,
        machine: str | None = None,
    ) -> list[str]:
        """Return the names of the recordings that the detector has learnt.

        Recordings are recognised by their sound, not by their names. For the arguments,
        see `score_recordings`. A run's checkpoint does not know its training
        recordings, so it recognises none.
        """
        from gammavae_jax.data.training_clips import find_copies

        self._fitted()
        if not self._kept:
            return []
        kept, known = self._training_clips(), []
        new = self._load_known(recordings, sample_rate, machine)
        for name, loaded in new.items():
            is_copy = find_copies(kept[name], loaded, among_new=False)
            pairs = zip(loaded.names, is_copy.tolist(), strict=True)
            known += [recording for recording, copied in pairs if copied]
        return known

    def report(
        self,
        recordings: Given,
        path: str | os.PathLike[str],
        sample_rate: int | None = None,
        machine: str | None = None,
    ) -> "ReportedVerdicts":
        """Score recordings and write a web page that explains the scores.

        The page shows what was unexpected in each sound. A notebook shows it below a
        cell that ends with this call. For the other arguments, see `score_recordings`.
        If the page cannot be written, an InputError names the path and the reason.

        Returns:
            A list with a verdict for each recording.
        """
        from gammavae_jax.report.recordings_page import (
            ReportedVerdicts,
            write_recordings_report,
        )
        from gammavae_jax.scoring.decision import judge_recordings

        scored = self._clip_scores(recordings, sample_rate, machine, keep_sounds=True)
        verdicts = judge_recordings(self.detector_, scored)
        with self._log.busy("explaining the scores"):
            write_recordings_report(Path(path), self.detector_, scored)
        return ReportedVerdicts(verdicts, Path(path).absolute())

    def explain(
        self,
        recording: Given,
        sample_rate: int | None = None,
        machine: str | None = None,
    ) -> "Explanation":
        """Explain the score of a recording: which bands added to it, and when.

        If the recording is cut into clips, this explains the clip with the highest
        score among those in which the machine is running. `Explanation.band_shares` has
        the share of each band.
        """
        from gammavae_jax.report.explanation import explain_clip
        from gammavae_jax.scoring.decision import clip_states

        scored = self._clip_scores(recording, sample_rate, machine)
        (number, loaded, scores), *others = scored
        if others or len(loaded.names) > 1:
            raise InputError("explain needs a single recording: pass one at a time")
        detector = self.detector_
        states = clip_states(detector, number, loaded)
        is_running = np.array([state == State.RUNNING for state in states])
        counted = np.where(is_running | ~is_running.any(), scores, -np.inf)
        log_mel = loaded.clips.log_mels[int(np.argmax(counted))]
        return explain_clip(detector, 0, number, log_mel)

    def alarm_policy(
        self,
        false_alarms_per_day: float | int | None = None,
        recordings_per_day: float | int | None = None,
        *,
        after: tuple[int, int] | None = None,
        hold_seconds: float | int = 0,
        machine: str | None = None,
    ) -> AlarmPolicy:
        """Return a rule that raises alarms from several segments; see docs/live.md.

        Its `description` says what to expect of it. Pass either the rate or `after`.

        Args:
            false_alarms_per_day: the highest acceptable number of false alarms per day.
            recordings_per_day: the number of recordings per day; default: as many as
                can be recorded without a pause.
            after: `(k, n)` for an alarm after `k` of `n` segments that have a p-value
                of at most `false_alarm_rate`.
            hold_seconds: how long to hold back further alarms after an alarm.
            machine: the machine; omit it if there is only one.

        Raises:
            InputError: there are not enough training recordings; the message says what
                would be enough.
        """
        from gammavae_jax.scoring.alarm_plan import (
            AlarmRequest,
            mean_clip_seconds,
            plan_policy,
        )
        from gammavae_jax.scoring.decision import DecisionRule

        detector = self._fitted()
        machine = one_machine(machine, self.machines_)
        rule = DecisionRule.of(detector, self.machines_.index(machine))
        rates = (false_alarms_per_day, recordings_per_day)
        rate, per_day = (None if of is None else float(of) for of in rates)
        request = AlarmRequest(rate, per_day, after, float(hold_seconds))
        return plan_policy(rule, mean_clip_seconds(detector, machine), request)

    def alarms(
        self,
        recordings: Given,
        policy: AlarmPolicy,
        sample_rate: int | None = None,
        machine: str | None = None,
    ) -> list[Alarm]:
        """Return the alarms of consecutive recordings, in the given order.

        Args:
            recordings: see the class; all must be of one machine. A folder's files are
                sorted by name.
            policy: what `alarm_policy` returns.
            sample_rate: the waveforms' sample rate in Hz.
            machine: the recordings' machine; omit it if there is only one.
        """
        self._fitted()
        machine = one_machine(machine, self.machines_)
        return policy.alarms(self.score_recordings(recordings, sample_rate, machine))

    def _clip_scores(
        self,
        recordings: Given,
        sample_rate: int | None,
        machine: str | None,
        keep_sounds: bool = False,
    ) -> "list[Scored]":
        """Return each machine's index, recordings and clip scores."""
        from gammavae_jax.scoring.clip_scorer import score_of_clips

        loaded = self._load_known(
            recordings, sample_rate, machine, keep_sounds=keep_sounds
        )
        numbers = [self.machines_.index(name) for name in loaded]
        of_clips = (found.clips for found in loaded.values())
        clips = dict(zip(numbers, of_clips, strict=True))
        scores = score_of_clips(self._scorer, clips)
        return list(zip(numbers, loaded.values(), scores, strict=True))

    def _of_each(self, recordings: Given, rate: Any, value: Any) -> Any:
        verdicts = self.score_recordings(recordings, rate)
        return self._by_machine(recordings, verdicts, value)

    def _by_machine(
        self, recordings: Given, verdicts: list[Verdict], value: Any
    ) -> Any:
        """Return the value of each verdict, as an array or a dict of arrays."""
        if not isinstance(recordings, Mapping):
            return np.array([value(verdict) for verdict in verdicts])
        return {
            name: np.array([value(v) for v in verdicts if v.machine == known])
            for name in recordings
            for known in [known_machine(name, self.machines_)]
        }
