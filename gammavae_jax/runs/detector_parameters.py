"""Converts the parameters of an `AnomalyDetector` to plain values, or rejects them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gammavae_jax.config import LARGEST_SEED, Config, FeatureConfig
from gammavae_jax.config_json import override
from gammavae_jax.data.recordings.clips import require_clip_length
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.presets import preset as named_preset

if TYPE_CHECKING:
    from gammavae_jax.scoring.detector import Detector

_NUMBER = (int, float)
# The types that each parameter may have, and their description in messages.
PARAMETERS: dict[str, tuple[tuple[type, ...], str]] = {
    "preset": ((str,), "the name of a preset"),
    "epochs": ((int, type(None)), "a whole number or None"),
    "random_state": ((int, type(None)), "a whole number or None"),
    "false_alarm_rate": (_NUMBER, "a number"),
    "clip_seconds": ((*_NUMBER, type(None)), "a finite number or None"),
    "settings": ((list,), "a list of strings such as 'model.n_latent=16'"),
    "skip_bad_files": ((bool,), "True or False"),
    "verbose": ((bool,), "True or False"),
}
_LEARNT = ("preset", "epochs", "random_state", "settings")


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Convert parameters to JSON types; NumPy numbers become Python numbers.

    Raises:
        InputError: a value has the wrong type.
    """
    plain = {name: _plain(value) for name, value in parameters.items()}
    for name in plain.keys() & PARAMETERS:
        types, wanted = PARAMETERS[name]
        value = plain[name]
        if not _is_one_of(value, types):
            raise InputError(f"{name} is {value!r}: set it to {wanted}")
        plain[name] = float(value) if float in types and value is not None else value
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.floating):
        return float(str(value))  # via text, so that a float32 of 0.1 becomes 0.1
    if isinstance(value, np.generic):
        return value.item()
    return list(map(_plain, value)) if isinstance(value, tuple | list) else value


def _is_one_of(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, list):
        return list in types and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):  # a subclass of int
        return bool in types
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return isinstance(value, types) and is_finite


def configuration_of(parameters: Mapping[str, Any]) -> Config:
    """Convert an estimator's plain parameters to a configuration.

    Raises:
        InputError: a value is out of range, or `settings` contradict a parameter.
    """
    preset, epochs, seed, rate = (
        parameters[name]
        for name in ("preset", "epochs", "random_state", "false_alarm_rate")
    )
    if seed is None:
        seed = int(np.random.default_rng().integers(LARGEST_SEED, endpoint=True))
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(
            f"random_state is {seed}: it must be from 0 to {LARGEST_SEED}, or None"
        )
    given = [f"scoring.false_alarm_rate={rate}"]
    if epochs is not None:
        given.append(f"train.epochs={epochs}")
    config = replace(named_preset(preset), seed=seed)
    config = override(config, [*given, *parameters["settings"]])
    made = {
        "epochs": config.train.epochs,
        "random_state": config.seed,
        "false_alarm_rate": config.scoring.false_alarm_rate,
    }
    for name, value in made.items():
        if parameters[name] not in (None, value):
            raise InputError(
                f"{name} is given as {parameters[name]}, but 'settings' sets it to "
                f"{value}: remove it from 'settings'"
            )
    return replace(config, scores=(config.score,), n_seeds=1)


def with_parameters(
    detector: "Detector", fitted: Mapping[str, Any], now: Mapping[str, Any], log: Log
) -> "Detector":
    """Adapt a detector to parameters that were set after `fit`.

    Args:
        detector: a detector that was fitted with the parameters `fitted`.
        fitted: the plain parameters at the time of the fit.
        now: the plain parameters that the detector should have.
        log: shows which machines have too few recordings for a new false-alarm rate.

    Raises:
        InputError: a changed parameter requires retraining.
    """
    for name in _LEARNT:
        if now[name] != fitted[name]:
            raise InputError(
                f"{name} was changed to {now[name]!r} after fit, which requires "
                f"retraining: call fit again, or set {name} back to {fitted[name]!r}"
            )
    rate = now["false_alarm_rate"]
    if rate == fitted["false_alarm_rate"]:
        return detector
    configuration_of(now)  # raises an error if 'settings' contradict the rate
    # Imported late, because these modules import JAX.
    from gammavae_jax.scoring.detector import with_false_alarm_rate
    from gammavae_jax.scoring.sample_size import unsupported_machines

    detector = with_false_alarm_rate(detector, rate)
    if note := unsupported_machines(detector):
        log.say(note)
    return detector


def require_saved_parameters(
    parameters: Mapping[str, Any], features: FeatureConfig, path: str
) -> None:
    """Validate the parameters of a saved detector as if a user had passed them.

    Raises:
        InputError: a value is out of range; the message names the detector's path.
    """
    try:
        configuration_of(parameters)
        if parameters["clip_seconds"] is not None:
            require_clip_length(parameters["clip_seconds"], features)
    except InputError as error:
        raise InputError(f"detector {path!r}: {error}") from error
