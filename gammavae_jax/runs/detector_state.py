"""The state of a fitted detector: its models, parameters and training clips.

Modules that import JAX are imported by the methods that need them, because importing
JAX takes half a second.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.data.recordings.sources import of_known_machines
from gammavae_jax.data.training_clips import TrainingClips
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.runs.detector_parameters import plain_parameters, with_parameters
from gammavae_jax.runs.estimator_protocol import Estimator, not_fitted_error
from gammavae_jax.runs.estimator_recordings import load_noted

if TYPE_CHECKING:
    from gammavae_jax.scoring.clip_scorer import ClipScorer
    from gammavae_jax.scoring.detector import Detector


class Stored(NamedTuple):
    """Where the training clips of a loaded detector are stored."""

    folder: Path
    checksum: str  # of the detector, when it was loaded


class DetectorState(Estimator):
    """What an `AnomalyDetector` holds once it is fitted."""

    detector_: "Detector"  # models, references and thresholds
    machines_: tuple[str, ...]
    verbose: bool
    _parameters: Mapping[str, Any]  # with which `detector_` was fitted
    _said: frozenset[str] = frozenset()  # the kinds of notes already shown
    # The training clips of each machine, or where to read them from.
    _kept: Mapping[str, TrainingClips] | Stored

    @property
    def threshold_(self) -> dict[str, float]:
        """The decision threshold of each machine, for a single clip."""
        detector = self._fitted()
        values = detector.thresholds[detector.config.score][0]
        return dict(zip(self.machines_, values.tolist(), strict=True))

    def _load(self, *given: Any, **options: bool) -> dict[str, LoadedRecordings]:
        """Load clips; see `load_noted`."""
        plain = plain_parameters(self.get_params())
        of_self = {"parameters": plain, "log": self._log, "said": self._said}
        loaded, self._said = load_noted(*given, **options, **of_self)
        return loaded

    def _load_known(
        self,
        recordings: Any,
        sample_rate: Any,
        machine: str | None = None,
        **options: bool,
    ) -> dict[str, LoadedRecordings]:
        """Load clips of the detector's machines; see `_load` for the options."""
        detector = self._fitted()
        given = of_known_machines(recordings, machine, self.machines_)
        trained = detector.filterbank, detector.config, detector.conditions
        return self._load(given, sample_rate, *trained, **options)

    def _take(
        self,
        detector: "Detector",
        parameters: Mapping[str, Any],
        kept: Mapping[str, TrainingClips] | Stored,
    ) -> None:
        """Adopt a fitted detector, the parameters used to fit it, and its clips."""
        from gammavae_jax.scoring.detector import machine_names

        self.detector_ = detector
        self._kept = kept
        self.machines_ = machine_names(detector)
        self._parameters = parameters
        for name in ("_scorer", "learnt_", "learnt_names_"):
            vars(self).pop(name, None)

    def _training_clips(self) -> Mapping[str, TrainingClips]:
        """Return the training clips of each machine; read them if necessary.

        Raises:
            InputError: the detector keeps none, or they cannot be read.
        """
        from gammavae_jax.runs.training_clips import load_training_clips

        if isinstance(self._kept, Stored):
            self._kept = load_training_clips(*self._kept, self.detector_)
        if not self._kept:
            raise InputError(
                "the detector keeps no training clips, so it cannot learn others: fit "
                "it again, with gammavae fit or AnomalyDetector"
            )
        return self._kept

    def _fitted(self) -> "Detector":
        """Return the fitted detector, updated to the estimator's current parameters."""
        if not hasattr(self, "detector_"):
            raise not_fitted_error()("this detector is not fitted: call fit first")
        before, now = self._parameters, plain_parameters(self.get_params())
        self.detector_ = with_parameters(self.detector_, before, now, self._log)
        self._parameters = now
        return self.detector_

    @property
    def _log(self) -> Log:
        return Log(Console(stderr=True, quiet=not self.verbose))

    @cached_property
    def _scorer(self) -> "ClipScorer":
        from gammavae_jax.scoring.clip_scorer import ClipScorer

        return ClipScorer(self.detector_)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the scorer, which cannot be pickled or copied."""
        return {n: value for n, value in vars(self).items() if n != "_scorer"}
