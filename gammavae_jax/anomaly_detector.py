"""A scikit-learn-style estimator that detects anomalies in your own recordings.

As in the challenge, and unlike scikit-learn's outlier detectors, higher scores are
*more* anomalous, and `predict` returns True for an alarm.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.data.recordings.groups import with_groups
from gammavae_jax.data.recordings.sources import by_machine, of_training
from gammavae_jax.data.training_clips import TrainingClips
from gammavae_jax.errors import InputError
from gammavae_jax.runs.detector_parameters import (
    configuration_of,
    plain_parameters,
    require_saved_parameters,
)
from gammavae_jax.runs.estimator import Stored, named_parameters
from gammavae_jax.runs.fitted_detector import FittedDetector, Given
from gammavae_jax.scoring.verdict import Verdict

ONE_MACHINE = "machine"  # the name of a machine if the caller gives none


class AnomalyDetector(FittedDetector):
    """Learns how healthy machines sound and scores new recordings.

    Pass recordings as a path (to a WAV file, a FLAC file or a folder), as a waveform of
    shape `(samples,)` or `(samples, channels)` with its `sample_rate` in Hz, or as a
    list of these. For several machines, pass a dict that maps each machine's name to
    its recordings. Recordings whose sample rate differs from the model's are resampled.

    Args:
        preset: the name of a preset; see `presets`.
        epochs: the number of passes over the recordings. Default: the preset's number,
            raised if necessary to reach about a thousand training steps, or 400 if no
            score needs the model.
        random_state: the seed of all random numbers; None draws a new one for each fit.
        false_alarm_rate: the share of normal recordings that may raise an alarm.
        clip_seconds: longer recordings are cut into clips of about this length, and
            each recording's score and verdict are combined from its clips; None
            disables cutting.
        settings: configuration fields to override, such as `"model.n_latent=16"`.
        skip_bad_files: skip unusable recordings with a warning instead of an error.
        verbose: show progress and warnings on standard error.
    """

    learnt_: list[Verdict]  # on the recordings of the latest `partial_fit`
    learnt_names_: tuple[str, ...]  # of these recordings, and of supplemental ones

    @named_parameters
    def __init__(
        self,
        *,
        preset: str = "default",
        epochs: int | None = None,
        random_state: int | None = 13711,
        false_alarm_rate: float = 0.1,
        clip_seconds: float | None = 10.0,
        settings: Sequence[str] = (),
        skip_bad_files: bool = False,
        verbose: bool = True,
    ):
        self.preset = preset
        self.epochs = epochs
        self.random_state = random_state
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
        self._fit(recordings, y, sample_rate, groups)
        return self

    def fit_predict(
        self,
        recordings: Given,
        y: Any = None,
        sample_rate: Any = None,
        groups: Any = None,
    ) -> Any:
        """Train on recordings and return True for each one that stands out.

        Each recording is compared with all others, including any copies of it and the
        rest of its own group. Its threshold is also based on the others only, and a
        recording of several clips has a single verdict. Therefore, the number of alarms
        can differ from the held-out alarms that `gammavae threshold` counts: these are
        single clips, and their threshold is based on all of them. For the arguments,
        see `fit`.

        Returns:
            An array in the given order; for a dict of machines, a dict of such arrays.
        """
        from gammavae_jax.scoring.decision import judge_held_out

        loaded = self._fit(recordings, y, sample_rate, groups)
        verdicts = judge_held_out(self.detector_, loaded)
        return self._by_machine(recordings, verdicts, lambda r: r.is_anomaly)

    def _fit(
        self, recordings: Given, y: Any, sample_rate: Any, groups: Any
    ) -> dict[str, LoadedRecordings]:
        """Train on recordings and return them; for the arguments, see `fit`."""
        from gammavae_jax.scoring.fit import fit_recordings
        from gammavae_jax.training.loop import Observer

        recordings, sample_rate = of_training(recordings, y, sample_rate)
        recordings = by_machine(recordings, ONE_MACHINE)
        parameters = plain_parameters(self.get_params())
        log, config = self._log, configuration_of(parameters)
        bank = mel_filterbank(config.features)
        given = recordings, sample_rate, bank, config, None
        loaded = self._load(*given, for_training=True)
        adapt, observer = parameters["epochs"] is None, Observer(log)
        detector, kept = fit_recordings(config, loaded, bank, observer, adapt, groups)
        self._take(detector, parameters, kept)
        return loaded

    def partial_fit(
        self,
        recordings: Given,
        y: Any = None,
        sample_rate: Any = None,
        groups: Any = None,
    ) -> "AnomalyDetector":
        """Learn from more recordings of healthy machines without retraining.

        They are added to the training recordings that scores are compared with, and the
        thresholds are recomputed; see docs/own-machines.md. The attribute `learnt_`
        then contains a verdict on each of them, as if it were new. Before `fit`, this
        is `fit`.

        Args:
            recordings: see the class. A machine that is not mentioned does not change.
            y: see `fit`.
            sample_rate: see `fit`.
            groups: see `fit`; these groups never include earlier recordings.

        Raises:
            InputError: a recording cannot be used, no recording is new, or the detector
                keeps no training recordings.
        """
        if not hasattr(self, "detector_"):
            return self.fit(recordings, y, sample_rate, groups)
        from gammavae_jax.scoring.learn import learn, require_learnable

        recordings, sample_rate = of_training(recordings, y, sample_rate)
        detector = self._fitted()
        require_learnable(detector.config)
        kept = self._training_clips()
        loaded = self._load_known(recordings, sample_rate, for_training=True)
        loaded = with_groups(loaded, groups, needs_two=False)
        learnt = learn(detector, kept, loaded, self._log)
        self._take(learnt.detector, self._parameters, learnt.clips)
        self.learnt_, self.learnt_names_ = learnt.verdicts, learnt.names
        return self

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Save the detector to a folder atomically.

        Args:
            path: the folder.
            overwrite: whether to replace an older detector there.

        Raises:
            InputError: the detector is not fitted, `path` exists and must not be
                replaced, or saving would delete training clips that cannot be read.
        """
        from gammavae_jax.runs.detector_folder import write_detector

        detector = self._fitted()
        clips = self._clips_to_save(Path(path))
        write_detector(Path(path), detector, self._parameters, clips, overwrite)

    def _clips_to_save(self, path: Path) -> Mapping[str, TrainingClips]:
        """Return the training clips.

        If they are unreadable, show a message and return none.

        An error is raised instead if saving would delete the stored clips.
        """
        from gammavae_jax.runs.detector_folder import has_training_clips

        kept = self._kept
        if not kept:
            return {}
        try:
            return self._training_clips()
        except InputError as error:
            if (
                isinstance(kept, Stored)
                and has_training_clips(kept.folder)
                and path.exists()
                and path.samefile(kept.folder)
            ):
                raise
            self._log.say(f"the detector is saved without its training clips: {error}")
            return {}

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, verbose: bool = True
    ) -> "AnomalyDetector":
        """Load a saved detector or a run's checkpoint.

        Raises:
            InputError: `path` has no detector, or one that this version cannot read.
        """
        from gammavae_jax.runs.detector_folder import has_training_clips, read_detector
        from gammavae_jax.scoring.domains import require_one_threshold

        detector, parameters, checksum = read_detector(Path(path))
        require_one_threshold(detector.config)
        made = cls(**{**parameters, "verbose": verbose})
        plain = plain_parameters(made.get_params())
        require_saved_parameters(plain, detector.config.features, str(path))
        stored = Stored(Path(path).absolute(), checksum)
        is_kept = has_training_clips(stored.folder)
        made._take(detector, plain, stored if is_kept else {})
        return made
