"""A scikit-learn-style estimator that detects anomalies in your own recordings.

As in the challenge, and unlike scikit-learn's outlier detectors, higher scores are
*more* anomalous, and `predict` returns True for an alarm.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from sklearn.base import BaseEstimator

from gammavae_jax.config import Config
from gammavae_jax.data.conditions import Conditions, notes_on
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.recording_clips import LoadedRecordings, load_all
from gammavae_jax.data.recordings import (
    Recordings,
    by_machine,
    known_machine,
    of_known_machines,
    of_training,
)
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.report.recordings_page import write_recordings_report
from gammavae_jax.runs.detector_folder import read_detector, write_detector
from gammavae_jax.runs.detector_parameters import (
    configuration_of,
    plain_parameters,
    require_saved_parameters,
    with_parameters,
)
from gammavae_jax.scoring.clip_scorer import ClipScorer, score_of_clips
from gammavae_jax.scoring.detector import Detector, machine_names
from gammavae_jax.scoring.fit import fit_recordings
from gammavae_jax.scoring.verdict import Scored, Verdict, judge_recordings
from gammavae_jax.training.loop import Observer

ONE_MACHINE = "machine"  # the name of a machine if the caller gives none

Given = Any  # `Recordings` of one machine, or a dict of them by machine name


class AnomalyDetector(BaseEstimator):
    """A detector that learns how healthy machines sound and scores new recordings.

    Pass recordings as a path (of a WAV file, a FLAC file or a folder), as a waveform of
    shape `(samples,)` or `(samples, channels)` with its `sample_rate` in Hz, or as a
    list of these. For several machines, pass a dict that maps each machine's name to
    its recordings. Recordings whose sample rate differs from the model's are resampled.

    Args:
        preset: the name of a preset; see `presets`.
        epochs: the number of passes over the recordings. Default: the preset's number,
            raised if necessary to reach about a thousand training steps.
        seed: the seed of all random numbers.
        false_alarm_rate: the share of normal recordings that may raise an alarm.
        clip_seconds: longer recordings are cut into clips of about this length, and
            a recording's score is the mean over its clips; None disables cutting.
        settings: configuration fields to override, such as `"model.n_latent=16"`.
        skip_bad_files: skip unusable recordings with a warning instead of an error.
        verbose: show progress and warnings on standard error.
    """

    detector_: Detector  # models, references and thresholds
    machines_: tuple[str, ...]
    _said: frozenset[str] = frozenset()  # the kinds of notes already shown

    def __init__(
        self,
        *,
        preset: str = "default",
        epochs: int | None = None,
        seed: int = 13711,
        false_alarm_rate: float = 0.1,
        clip_seconds: float | None = 10.0,
        settings: Sequence[str] = (),
        skip_bad_files: bool = False,
        verbose: bool = True,
    ):
        self.preset = preset
        self.epochs = epochs
        self.seed = seed
        self.false_alarm_rate = false_alarm_rate
        self.clip_seconds = clip_seconds
        self.settings = settings
        self.skip_bad_files = skip_bad_files
        self.verbose = verbose

    def fit(
        self,
        recordings: Given,
        y: Any = None,
        sample_rate: Any = None,
        groups: Any = None,
    ) -> "AnomalyDetector":
        """Train on recordings of healthy machines.

        Args:
            recordings: see the class; at least two per machine, or one long recording.
            y: the label of each recording, as in scikit-learn; all must be normal (0).
                A single number is taken as the `sample_rate`.
            sample_rate: the waveforms' sample rate in Hz.
            groups: each recording's group, such as its day; see docs/own-machines.md.

        Raises:
            InputError: a setting or a recording cannot be used.
        """
        recordings, sample_rate = of_training(recordings, y, sample_rate)
        recordings = by_machine(recordings, ONE_MACHINE)
        parameters = plain_parameters(self.get_params())
        log, config = self._log, configuration_of(parameters)
        bank = mel_filterbank(config.features)
        loaded = self._load(recordings, sample_rate, bank, config, None)
        adapt, observer = parameters["epochs"] is None, Observer(log)
        detector = fit_recordings(config, loaded, bank, observer, adapt, groups)
        self._take(detector, parameters)
        return self

    def score_samples(self, recordings: Given, sample_rate: int | None = None) -> Any:
        """Return the anomaly score of each recording; higher is more anomalous.

        Returns:
            An array of scores in the given order (a folder's files are sorted by name);
            for a dict of machines, a dict of such arrays.

        Raises:
            InputError: a recording cannot be used, or a machine is unknown.
        """
        return self._of_each(recordings, sample_rate, lambda r: r.score, float)

    def decision_function(
        self, recordings: Given, sample_rate: int | None = None
    ) -> Any:
        """Return scores minus thresholds; positive means alarm. See `score_samples`."""
        return self._of_each(
            recordings, sample_rate, lambda r: r.score - r.threshold, float
        )

    def predict(self, recordings: Given, sample_rate: int | None = None) -> Any:
        """Return True for each recording that raises an alarm. See `score_samples`."""
        return self._of_each(recordings, sample_rate, lambda r: r.is_anomaly, bool)

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

        Raises:
            InputError: a recording cannot be used, or a machine is unknown.
        """
        scored = self._clip_scores(recordings, sample_rate, machine)
        return judge_recordings(self.detector_, scored)

    def report(
        self,
        recordings: Given,
        path: str | os.PathLike[str],
        sample_rate: int | None = None,
        machine: str | None = None,
    ) -> list[Verdict]:
        """Score recordings, and write a web page that explains the scores.

        The page shows what was unexpected in each sound. For the other arguments, see
        `score_recordings`.

        Raises:
            InputError: a recording or machine is invalid (see `score_recordings`), or
                the page cannot be written.
        """
        scored = self._clip_scores(recordings, sample_rate, machine, keep_sounds=True)
        verdicts = judge_recordings(self.detector_, scored)
        write_recordings_report(Path(path), self.detector_, scored)
        return verdicts

    def _clip_scores(
        self,
        recordings: Given,
        sample_rate: int | None,
        machine: str | None,
        keep_sounds: bool = False,
    ) -> list[Scored]:
        """Return each machine's index, recordings and clip scores."""
        detector = self._fitted()
        config, bank = detector.config, detector.filterbank
        given = of_known_machines(recordings, machine, self.machines_)
        trained = detector.conditions
        loaded = self._load(given, sample_rate, bank, config, trained, keep_sounds)
        numbers = [self.machines_.index(name) for name in loaded]
        clips = [found.clips for found in loaded.values()]
        of_clips = dict(zip(numbers, clips, strict=True))
        scores = score_of_clips(self._scorer, of_clips)
        return list(zip(numbers, loaded.values(), scores, strict=True))

    @property
    def threshold_(self) -> dict[str, float]:
        """The decision threshold of each machine."""
        detector = self._fitted()
        values = detector.thresholds[detector.config.score][0]
        return dict(zip(self.machines_, values.tolist(), strict=True))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the detector to a folder atomically, replacing any older detector there.

        Raises:
            InputError: the detector is not fitted, or `path` exists and is no detector.
        """
        write_detector(Path(path), self._fitted(), self._parameters)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, verbose: bool = True
    ) -> "AnomalyDetector":
        """Load a saved detector or a run's checkpoint.

        Raises:
            InputError: `path` has no detector, or one that this version cannot read.
        """
        detector, parameters = read_detector(Path(path))
        made = cls(**{**parameters, "verbose": verbose})
        plain = plain_parameters(made.get_params())
        require_saved_parameters(plain, detector.config.features, str(path))
        made._take(detector, plain)
        return made

    def _take(self, detector: Detector, parameters: Mapping[str, Any]) -> None:
        """Adopt a fitted detector and the parameters used to fit it."""
        self.detector_ = detector
        self.machines_ = machine_names(detector)
        self._parameters = parameters
        vars(self).pop("_scorer", None)

    def _fitted(self) -> Detector:
        """Return the fitted detector, updated to the estimator's current parameters."""
        if not hasattr(self, "detector_"):
            raise InputError("this detector is not fitted: call fit first")
        before, now = self._parameters, plain_parameters(self.get_params())
        self.detector_ = with_parameters(self.detector_, before, now, self._log)
        self._parameters = now
        return self.detector_

    @property
    def _log(self) -> Log:
        return Log(Console(stderr=True, quiet=not self.verbose))

    @cached_property
    def _scorer(self) -> ClipScorer:
        return ClipScorer(self.detector_)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the scorer, which cannot be pickled or copied."""
        return {n: value for n, value in vars(self).items() if n != "_scorer"}

    def _of_each(self, recordings: Given, rate: Any, value: Any, dtype: type) -> Any:
        scored = self.score_recordings(recordings, rate)
        if not isinstance(recordings, Mapping):
            return np.array([value(r) for r in scored], dtype)
        return {
            name: np.array([value(r) for r in scored if r.machine == known], dtype)
            for name in recordings
            for known in [known_machine(name, self.machines_)]
        }

    def _load(
        self,
        recordings: Mapping[str, Recordings],
        sample_rate: int | None,
        bank: Float[np.ndarray, "bin mel"],
        config: Config,
        trained: Mapping[str, Conditions] | None,
        keep_sounds: bool = False,
    ) -> dict[str, LoadedRecordings]:
        """Load machines' clips; report each kind of change since training only once."""
        log, features = self._log, config.features
        plain, is_fit = plain_parameters(self.get_params()), trained is None
        options = (plain["clip_seconds"], log, keep_sounds, plain["skip_bad_files"])
        loaded = load_all(recordings, sample_rate, bank, features, *options, is_fit)
        heard = {name: found.heard for name, found in loaded.items()}
        notes = notes_on(heard, trained or {}, features)
        for kind in sorted(notes.keys() - self._said):
            log.say(notes[kind])
        self._said |= notes.keys()
        return loaded
