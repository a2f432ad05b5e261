"""The bases of `AnomalyDetector`: a scikit-learn estimator, and its fitted state.

Slow modules are imported by the methods that need them: importing JAX takes half a
second, and importing `sklearn.base` takes longer than everything else that is needed to
score a recording.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

import numpy as np
from jaxtyping import Float
from rich.console import Console

from gammavae_jax.config import Config
from gammavae_jax.data.conditions import Conditions, notes_on
from gammavae_jax.data.recordings.clips import LoadedRecordings, load_all
from gammavae_jax.data.recordings.sources import Recordings, of_known_machines
from gammavae_jax.data.training_clips import TrainingClips
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.runs.detector_parameters import plain_parameters, with_parameters

if TYPE_CHECKING:
    from gammavae_jax.scoring.clip_scorer import ClipScorer
    from gammavae_jax.scoring.detector import Detector


_P = ParamSpec("_P")
_OTHER_NAMES = {"seed": "random_state"}  # as the command line calls it


def named_parameters(init: Callable[_P, None]) -> Callable[_P, None]:
    """Decorate an `__init__` so that it suggests a name for an unknown parameter."""
    known = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def checked(*args: _P.args, **parameters: _P.kwargs) -> None:
        for name in parameters:
            if name not in known:
                raise TypeError(_no_parameter(args[0], name, known))
        init(*args, **parameters)

    return checked


def _no_parameter(estimator: Any, name: str, known: Sequence[str]) -> str:
    """Return the message about an unknown parameter; it says which one to use."""
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"choose from {', '.join(known)}"
    if name in _OTHER_NAMES or near:
        remedy = f"use {_OTHER_NAMES.get(name) or near[0]}"
    return f"{type(estimator).__name__} has no parameter {name!r}: {remedy}"


class Estimator:
    """A class whose parameters are the keyword arguments of its `__init__`.

    scikit-learn recognises estimators by these methods.
    """

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Return the default of each parameter, sorted by name."""
        parameters = inspect.signature(cls).parameters.items()
        return {name: parameter.default for name, parameter in sorted(parameters)}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; no parameter is an estimator, so `deep` is ignored."""
        del deep
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **parameters: Any) -> Any:
        """Set parameters and return the estimator.

        Raises:
            ValueError: a parameter is unknown. In this case, no parameter is set.
        """
        known = self._defaults()
        for name in parameters:
            if name not in known:
                raise ValueError(_no_parameter(self, name, list(known)))
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = self._defaults()
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            # A loaded detector has lists where it was given tuples.
            if repr(tuple(value) if isinstance(value, list) else value)
            != repr(defaults[name])
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description of the estimator."""
        from sklearn.utils import Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=None,
            regressor_tags=None,
            classifier_tags=None,
        )


class Stored(NamedTuple):
    """The location of a loaded detector's training clips."""

    folder: Path
    checksum: str  # of the detector, when it was loaded


class DetectorState(Estimator):
    """An estimator that can hold a fitted detector and its training clips."""

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

    def _load(
        self,
        recordings: Mapping[str, Recordings],
        sample_rate: int | None,
        bank: Float[np.ndarray, "bin mel"],
        config: Config,
        trained: Mapping[str, Conditions] | None,
        keep_sounds: bool = False,
        for_training: bool = False,
    ) -> dict[str, LoadedRecordings]:
        """Load the machines' clips.

        Each kind of difference from the training clips is reported at most once.

        `trained` holds the training conditions of each machine; it is None before
        training. For the other arguments and the errors, see `load_all`.
        """
        plain, log = plain_parameters(self.get_params()), self._log
        options = keep_sounds, plain["skip_bad_files"], for_training
        given = recordings, sample_rate, bank, config.features, plain["clip_seconds"]
        loaded = load_all(*given, log, *options)
        recorded = {name: found.recorded for name, found in loaded.items()}
        notes = notes_on(recorded, trained or {}, config.features)
        for kind in sorted(notes.keys() - self._said):
            log.say(notes[kind])
        self._said = self._said.union(notes)
        return loaded

    def _load_known(
        self,
        recordings: Any,
        sample_rate: Any,
        machine: str | None = None,
        **options: bool,
    ) -> dict[str, LoadedRecordings]:
        """Load clips of the detector's machines; for the options, see `_load`."""
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
        from gammavae_jax.runs.detector_folder import load_training_clips

        if isinstance(self._kept, Stored):
            self._kept = load_training_clips(*self._kept, self.detector_)
        if not self._kept:
            raise InputError(
                "the detector keeps no training clips, so it cannot learn new ones: "
                "fit it again, with gammavae fit or AnomalyDetector"
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

    @functools.cached_property
    def _scorer(self) -> "ClipScorer":
        from gammavae_jax.scoring.clip_scorer import ClipScorer

        return ClipScorer(self.detector_)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the scorer, which cannot be pickled or copied."""
        return {n: value for n, value in vars(self).items() if n != "_scorer"}


@functools.cache
def not_fitted_error() -> type[InputError]:
    """Return a class of errors that is also scikit-learn's `NotFittedError`."""
    from sklearn.exceptions import NotFittedError

    content = {"__module__": __name__}
    return type("NotFittedError", (InputError, NotFittedError), content)


def __getattr__(name: str) -> Any:  # pickle looks for the class in this module
    if name == "NotFittedError":
        return not_fitted_error()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
