"""Reads and writes an `AnomalyDetector`'s folder.

Besides a checkpoint, the folder contains the estimator's parameters and, for `learn`
and `check`, the training clips. The folder `training_clips/` holds all log-mels, one
after the other, as one array. Its marker (see `stored_arrays`) describes each machine's
clips.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import parse_json, to_dict
from gammavae_jax.data.audio.samples import Signal
from gammavae_jax.data.training_clips import TrainingClips
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import atomic_folder
from gammavae_jax.runs.checkpoint import load_with_files, save_detector
from gammavae_jax.runs.detector_parameters import PARAMETERS, plain_parameters
from gammavae_jax.runs.stored_arrays import (
    checksum,
    load_arrays,
    marker,
    read_marker,
    save_arrays,
)
from gammavae_jax.scoring.detector import Detector, machine_names
from gammavae_jax.training.members import NO_FOLD

_PARAMETERS = "anomaly_detector.json"  # missing from a run's checkpoint
_CLIPS = "training_clips"
_MOST = 2**40  # no count is larger


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

    `parameters` holds the estimator's parameters as JSON types. `clips` holds each
    machine's training clips and is empty if the detector keeps none.

    Raises:
        InputError: see `require_place`; or a detector exists and `overwrite` is false.
    """
    require_place(folder)
    try:
        with atomic_folder(folder, overwrite) as unfinished:
            text = json.dumps(parameters, indent=2) + "\n"
            save_detector(unfinished, detector, {_PARAMETERS: text})
            if clips:
                _save_training_clips(unfinished, clips, detector.config)
    except OSError as error:
        raise _not_written(folder, error) from error


def read_detector(folder: Path) -> tuple[Detector, dict[str, Any], str]:
    """Read a detector, its estimator's parameters and its checksum from a folder.

    Raises:
        InputError: there is no detector, or this version cannot read it.
    """
    detector, files, sum_ = load_with_files(folder)
    if _PARAMETERS not in files:
        config, conditions = detector.config, detector.conditions.values()
        lengths = [of.seconds[1] for of in conditions if of.seconds[1] > 0]
        parameters = {
            "preset": config.preset,
            "epochs": config.train.epochs,
            "random_state": config.seed,
            "false_alarm_rate": config.scoring.false_alarm_rate,
            # A run does not cut its clips. New recordings are cut into clips of the
            # longest clip's length.
            "clip_seconds": max(lengths, default=None),
        }
        return detector, parameters, sum_
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
    return detector, parameters, sum_


def _save_training_clips(
    folder: Path, clips: Mapping[str, TrainingClips], config: Config
) -> None:
    """Write the training clips of a detector's machines; see `save_arrays`.

    The folder already holds the detector, whose checksum is stored with the clips.
    """
    steps = [of_clip for of_machine in clips.values() for of_clip in of_machine.steps]
    about = {
        "config": to_dict(config),
        "detector": _detector_checksum(folder),
        "machines": {name: _to_stored(of) for name, of in clips.items()},
    }
    save_arrays(folder / _CLIPS, {"steps": np.concatenate(steps)}, about)


def has_training_clips(folder: Path) -> bool:
    """Return whether a detector keeps its training clips."""
    return marker(folder / _CLIPS).is_file()


def load_training_clips(
    folder: Path, loaded: str, detector: Detector
) -> dict[str, TrainingClips]:
    """Read the training clips of a detector's machines.

    `loaded` is the checksum of the detector when it was loaded from the folder.

    Raises:
        InputError: the clips are missing or damaged, or belong to another detector.
    """
    path = folder / _CLIPS
    if not has_training_clips(folder):
        raise InputError(
            f"the training clips in {printable(path)!r} are gone: restore them from a "
            "backup, or fit the detector again"
        )
    if _detector_checksum(folder) != loaded:
        raise InputError(
            f"the detector in {printable(folder)!r} was replaced since it was loaded: "
            "load it again"
        )
    about, _ = read_marker(path)
    config, names = detector.config, machine_names(detector)
    try:
        stored = {name: about["machines"][name] for name in names}
        empty = {name: _from_stored(of) for name, of in stored.items()}
        lengths = [list(map(int, of["n_frames"])) for of in stored.values()]
        pairs = zip(empty.values(), lengths, strict=True)
        is_valid = about["detector"] == loaded
        is_valid &= all(_is_valid(of, n, config) for of, n in pairs)
    except (KeyError, TypeError, ValueError, OverflowError):
        is_valid = False
    if not is_valid:
        raise InputError(
            f"{printable(marker(path))} is malformed, or belongs to another detector: "
            "restore it from a backup, or fit the detector again"
        )
    shape = sum(map(sum, lengths)), config.features.n_mels
    like = {"steps": jax.ShapeDtypeStruct(shape, np.int16)}
    steps = load_arrays(path, about, like)["steps"]
    parts = np.split(steps, np.cumsum(list(map(sum, lengths)))[:-1])
    return {
        name: of._replace(steps=tuple(np.split(part, np.cumsum(n)[:-1])))
        for (name, of), n, part in zip(empty.items(), lengths, parts, strict=True)
    }


def _detector_checksum(folder: Path) -> str:
    return checksum(read_marker(folder / "detector")[0])


def _to_stored(clips: TrainingClips) -> dict[str, Any]:
    """Convert training clips to a JSON object that omits the log-mels."""
    group = clips.group
    return {
        "names": clips.names,
        "recording": clips.recording.tolist(),
        "n_frames": list(map(len, clips.steps)),
        "seconds": clips.seconds,
        "signals": clips.signals,
        "formats": sorted(clips.formats),
        "explained": clips.explained,
        "group": None if group is None else group.tolist(),
        "fold": clips.fold.tolist(),
    }


def _from_stored(stored: Any) -> TrainingClips:
    """Convert a JSON object to training clips without log-mels.

    A malformed object raises a KeyError, TypeError or ValueError.
    """
    group = stored["group"]
    return TrainingClips(
        tuple(map(str, stored["names"])),
        np.array(stored["recording"], np.int64),
        (),
        tuple(map(float, stored["seconds"])),
        tuple(Signal(*map(float, signal)) for signal in stored["signals"]),
        frozenset((int(rate), int(n)) for rate, n in stored["formats"]),
        tuple(map(float, stored["explained"])),
        None if group is None else np.array(group, np.int64),
        np.array(stored["fold"], np.int64),
    )


def _is_valid(clips: TrainingClips, n_frames: list[int], config: Config) -> bool:
    """Return whether training clips without log-mels are consistent."""
    n_clips = len(n_frames)
    of_clips = (clips.recording, clips.fold, clips.seconds, clips.signals)
    group = clips.recording if clips.group is None else clips.group
    every = (*of_clips, group, clips.explained or n_frames)
    successive = np.arange(len(clips.names))
    numbers = (clips.recording, clips.fold, group)
    return (
        all(len(values) == n_clips for values in every)
        and all(values.ndim == 1 for values in numbers)
        and all(config.features.n_context <= n < _MOST for n in n_frames)
        and np.array_equal(np.unique(clips.recording), successive)
        and bool((np.diff(clips.recording) >= 0).all())
        and bool(((clips.fold >= NO_FOLD) & (clips.fold < config.n_folds)).all())
        and bool(((group >= 0) & (group < _MOST)).all())
    )


def _not_written(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{printable(folder)} cannot be written ({error.strerror}): choose another path"
    )
