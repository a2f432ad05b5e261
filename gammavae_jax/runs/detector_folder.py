"""Reads and writes an `AnomalyDetector`'s folder: a checkpoint and its parameters."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gammavae_jax.config_json import parse_json
from gammavae_jax.data.training_clips import TrainingClips
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import atomic_folder
from gammavae_jax.runs.checkpoint import load_with_files, save_detector
from gammavae_jax.runs.detector_parameters import PARAMETERS, plain_parameters
from gammavae_jax.runs.training_clips import save_training_clips
from gammavae_jax.scoring.detector import Detector

_PARAMETERS = "anomaly_detector.json"  # missing from a run's checkpoint


def require_place(folder: Path) -> None:
    """Check that a detector can be written to a folder.

    Raises:
        InputError: the path exists and is not a detector, or it cannot be written.
    """
    if folder.exists() and not (folder / "detector.json").is_file():
        raise InputError(
            f"{printable(folder)} exists and is not a detector: choose another path"
        )
    try:
        # Permissions do not reveal a read-only disk: try to write, following links.
        parent = Path(os.path.realpath(folder)).parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise _not_written(folder, error) from error


def is_estimator(folder: Path) -> bool:
    """Return whether an `AnomalyDetector` was saved here; False for a run."""
    return (folder / _PARAMETERS).is_file()


def write_detector(
    folder: Path,
    detector: Detector,
    parameters: Mapping[str, Any],
    clips: Mapping[str, TrainingClips],
    overwrite: bool,
) -> None:
    """Write a detector atomically.

    `parameters` are the estimator's, converted to JSON types. `clips` are the training
    clips of each machine; they are empty if the detector keeps none.

    Raises:
        InputError: see `require_place`; or a detector exists, without `overwrite`.
    """
    require_place(folder)
    try:
        with atomic_folder(folder, overwrite) as unfinished:
            text = json.dumps(parameters, indent=2) + "\n"
            save_detector(unfinished, detector, {_PARAMETERS: text})
            if clips:
                save_training_clips(unfinished, clips, detector.config)
    except OSError as error:
        raise _not_written(folder, error) from error


def read_detector(folder: Path) -> tuple[Detector, dict[str, Any], str]:
    """Read a detector, its estimator's parameters and its checksum from a folder.

    Raises:
        InputError: there is no detector, or this version cannot read it.
    """
    detector, files, checksum = load_with_files(folder)
    if _PARAMETERS not in files:
        config, conditions = detector.config, detector.conditions.values()
        lengths = [of.seconds[1] for of in conditions if of.seconds[1] > 0]
        parameters = {
            "preset": config.preset,
            "epochs": config.train.epochs,
            "random_state": config.seed,
            "false_alarm_rate": config.scoring.false_alarm_rate,
            # A run does not cut its clips; new recordings are cut into clips as long.
            "clip_seconds": max(lengths, default=None),
        }
        return detector, parameters, checksum
    try:
        parameters = parse_json(files[_PARAMETERS])
        if not isinstance(parameters, dict):
            raise ValueError
        parameters = plain_parameters(parameters)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{printable(folder / _PARAMETERS)} is malformed: restore it from a "
            "backup, or fit the detector again"
        ) from error
    if unknown := parameters.keys() - PARAMETERS:
        raise InputError(
            f"{printable(folder / _PARAMETERS)} was saved by another version of "
            f"gammavae_jax (unknown parameters: {', '.join(sorted(unknown))}): use "
            "that version, or fit the detector again"
        )
    return detector, parameters, checksum


def _not_written(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{printable(folder)} cannot be written ({error.strerror}): choose another path"
    )
