"""Detect anomalies in your own recordings: an estimator in scikit-learn's style.

As in the challenge, and unlike scikit-learn's outlier detectors, higher scores are
*more* anomalous, and `predict` is true for an alarm.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from sklearn.base import BaseEstimator

from gammavae_jax.config import Config
from gammavae_jax.config_json import override
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.recording_clips import (
    LoadedRecordings,
    load_all,
    require_clip_length,
)
from gammavae_jax.data.recordings import Recordings, of_known_machines
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.presets import preset as named_preset
from gammavae_jax.report.recordings_page import write_recordings_report
from gammavae_jax.runs.detector_folder import read_detector, write_detector
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.fit import fit_recordings
from gammavae_jax.scoring.verdict import ClipScorer, Verdict, judge, machine_names
from gammavae_jax.training.loop import Observer

ONE_MACHINE = "machine"  # the name of a machine that is given without one

Given = Any  # `Recordings` of one machine, or a dict of them by machine


class AnomalyDetector(BaseEstimator):
    """Learns how machines sound when they are healthy, and judges new recordings.

    Recordings are the path of a WAV or FLAC file or of a folder, a waveform with its
    `sample_rate` in Hz, or a list of these. For several machines, give a dict of
    recordings by machine. Recordings with another sample rate are resampled.

    Args:
        preset: the name of a preset; see `presets`.
        epochs: passes over the recordings; default: the preset's, or more if these
            make fewer than a thousand steps.
        seed: of all random numbers.
        false_alarm_rate: the share of normal recordings that may be alarms.
        clip_seconds: longer recordings are cut into clips of about this length, and
            scored by the mean score of their clips; None leaves them whole.
        settings: changes to any field of the configuration, such as
            `"model.n_latent=16"`.
        skip_bad_files: name and skip recordings that cannot be used.
        verbose: show progress and notes on standard error.
    """

    detector_: Detector  # models, references and thresholds
    machines_: tuple[str, ...]
    _noted_rates: frozenset[int] = frozenset()

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
        self, recordings: Given, sample_rate: int | None = None
    ) -> "AnomalyDetector":
        """Learn from recordings of healthy machines.

        Args:
            recordings: see the class; two or more of each machine, or a long one.
            sample_rate: of waveforms, in Hz.

        Raises:
            InputError: a setting or a recording cannot be used.
        """
        log, config = self._log(), self._configuration()
        if not isinstance(recordings, Mapping):
            recordings = {ONE_MACHINE: recordings}
        if not recordings:
            raise InputError("no machine: the dict is empty; give recordings of one")
        bank = mel_filterbank(config.features)
        loaded = self._load(recordings, sample_rate, bank, config)
        adapt, observer = self.epochs is None, Observer(log)
        self._take(fit_recordings(config, loaded, bank, observer, adapt_epochs=adapt))
        return self

    def score_samples(self, recordings: Given, sample_rate: int | None = None) -> Any:
        """The anomaly score of each recording; higher is more anomalous.

        Returns:
            An array `recording` in the given order (files of a folder by name); for a
            dict of machines, a dict of arrays.

        Raises:
            InputError: a recording cannot be used, or a machine is unknown.
        """
        return self._of_each(recordings, sample_rate, lambda r: r.score, float)

    def decision_function(
        self, recordings: Given, sample_rate: int | None = None
    ) -> Any:
        """Scores minus their threshold: above 0 is an alarm. See `score_samples`."""
        return self._of_each(
            recordings, sample_rate, lambda r: r.score - r.threshold, float
        )

    def predict(self, recordings: Given, sample_rate: int | None = None) -> Any:
        """Whether each recording is an alarm. See `score_samples`."""
        return self._of_each(recordings, sample_rate, lambda r: r.is_anomaly, bool)

    def score_recordings(
        self,
        recordings: Given,
        sample_rate: int | None = None,
        machine: str | None = None,
    ) -> list[Verdict]:
        """The verdict on each recording, machine by machine.

        Args:
            recordings: see the class.
            sample_rate: of waveforms, in Hz.
            machine: of all recordings, if they are not a dict.

        Raises:
            InputError: a recording cannot be used, or a machine is unknown.
        """
        scored = self._clip_scores(recordings, sample_rate, machine)
        return list(chain(*(judge(self.detector_, *of) for of in scored)))

    def report(
        self,
        recordings: Given,
        path: str | os.PathLike[str],
        sample_rate: int | None = None,
        machine: str | None = None,
    ) -> list[Verdict]:
        """Return `score_recordings`, and write a page that explains the scores.

        The page needs no other file: it contains spectrograms, what the model did not
        expect, and the sounds.

        Args:
            recordings: see the class.
            path: of the page, such as `report.html`.
            sample_rate: of waveforms, in Hz.
            machine: of all recordings, if they are not a dict.

        Raises:
            InputError: see `score_recordings`; or the page cannot be written.
        """
        scored = self._clip_scores(recordings, sample_rate, machine, keep_sounds=True)
        write_recordings_report(Path(path), self.detector_, scored)
        return list(chain(*(judge(self.detector_, *of) for of in scored)))

    def _clip_scores(
        self,
        recordings: Given,
        sample_rate: int | None,
        machine: str | None,
        keep_sounds: bool = False,
    ) -> list[tuple[int, LoadedRecordings, Float[np.ndarray, "_"]]]:
        """The index and recordings of each machine, and the scores of their clips."""
        detector = self._fitted()
        config, bank = detector.config, detector.filterbank
        given = of_known_machines(recordings, machine, self.machines_)
        loaded = self._load(given, sample_rate, bank, config, keep_sounds)
        numbers = [self.machines_.index(name) for name in loaded]
        clips = [found.clips for found in loaded.values()]
        scores = self._scorer.score(dict(zip(numbers, clips, strict=True)))
        of_seed = scores[config.score][0]
        return list(zip(numbers, loaded.values(), of_seed, strict=True))

    @property
    def threshold_(self) -> dict[str, float]:
        """The decision threshold of each machine."""
        detector = self._fitted()
        values = detector.thresholds[detector.config.score][0]
        return dict(zip(self.machines_, values.tolist(), strict=True))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder that `load` reads, atomically; replaces an older detector.

        Raises:
            InputError: the detector is not fitted, or the path holds something else.
        """
        parameters = self.get_params() | {"settings": list(self.settings)}
        write_detector(Path(path), self._fitted(), parameters)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, verbose: bool = True
    ) -> "AnomalyDetector":
        """Load a saved detector, or the checkpoint of a run.

        Raises:
            InputError: there is no detector, or this version cannot read it.
        """
        detector, parameters = read_detector(Path(path))
        try:
            made = cls(**{**parameters, "verbose": verbose})
        except TypeError as error:
            raise InputError(
                f"detector {str(path)!r} was saved by another version of "
                "gammavae_jax: use that version, or fit it again"
            ) from error
        try:
            made._configuration()
            if made.clip_seconds is not None:
                seconds = float(made.clip_seconds)
                require_clip_length(seconds, detector.config.features)
        except InputError as error:
            raise InputError(f"detector {str(path)!r}: {error}") from error
        made._take(detector)
        return made

    def _configuration(self) -> Config:
        config = named_preset(self.preset)
        given = [f"scoring.false_alarm_rate={self.false_alarm_rate}"]
        if self.epochs is not None:
            given.append(f"train.epochs={self.epochs}")
        config = override(replace(config, seed=self.seed), [*given, *self.settings])
        return replace(config, scores=(config.score,), n_seeds=1)

    def _take(self, detector: Detector) -> None:
        self.detector_ = detector
        self.machines_ = machine_names(detector)
        self._scorer = ClipScorer(detector)

    def _fitted(self) -> Detector:
        if not hasattr(self, "detector_"):
            raise InputError("this detector is not fitted: call fit first")
        return self.detector_

    def _log(self) -> Log:
        return Log(Console(stderr=True, quiet=not self.verbose))

    def _of_each(
        self,
        recordings: Given,
        sample_rate: int | None,
        value: Callable[[Verdict], Any],
        dtype: type,
    ) -> Any:
        scored = self.score_recordings(recordings, sample_rate)
        if not isinstance(recordings, Mapping):
            return np.array([value(r) for r in scored], dtype)
        return {
            name: np.array([value(r) for r in scored if r.machine == name], dtype)
            for name in recordings
        }

    def _load(
        self,
        recordings: Mapping[str, Recordings],
        sample_rate: int | None,
        bank: Float[np.ndarray, "bin mel"],
        config: Config,
        keep_sounds: bool = False,
    ) -> dict[str, LoadedRecordings]:
        """The clips of each machine; notes each new sample rate once."""
        log, features = self._log(), config.features
        options = (self.clip_seconds, log, keep_sounds, self.skip_bad_files)
        loaded = load_all(recordings, sample_rate, bank, features, *options)
        rates = {rate for found in loaded.values() for rate in found.resampled_from}
        for rate in sorted(rates - self._noted_rates):
            log.say(
                f"recordings at {rate} Hz are resampled to {features.sample_rate} Hz: "
                "fit and score at the same sample rate, or expect false alarms"
            )
        self._noted_rates |= rates
        return loaded
