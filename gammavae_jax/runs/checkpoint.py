"""Saves and loads checkpoints: all that is needed to score clips or resume training.

A checkpoint folder holds `detector/` (filterbank, models, Gaussian fits, reference
sets, calibration, thresholds) and the last two training states, `train/<epoch>/`, which
include the state of the optimiser. Each folder has a marker beside it; see
`stored_arrays`.

The arrays that differ between machines have the leading axes `member machine`, `seed
machine` or `machine`; a member is one combination of seed and fold. The stored form
therefore does not depend on the number of devices and processes.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.data.conditions import from_stored, to_stored
from gammavae_jax.devices.cluster import on_first
from gammavae_jax.devices.local import local_devices
from gammavae_jax.errors import InputError, path_remedy
from gammavae_jax.files import remove, text_checksum, write_text
from gammavae_jax.runs.stored_arrays import (
    Unreadable,
    checksum,
    load_arrays,
    marker,
    read_beside,
    read_marker,
    save_arrays,
    validate_detector,
    validate_training,
)
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.neighbours import Reference
from gammavae_jax.scoring.residuals import GaussianFit
from gammavae_jax.scoring.scorer import FittedModel
from gammavae_jax.training.step import TrainState, init_state

_MOST_RELOADS = 3


class TrainCheckpoint(NamedTuple):
    """The training state after an epoch, with the configuration and training clips."""

    epoch: int
    state: TrainState  # `member machine ...`; on the host or copied to all devices
    config: Config
    clips: dict[str, list[str]]  # the training clips of each machine


def save_detector(
    folder: Path, detector: Detector, files: Mapping[str, str] | None = None
) -> None:
    """Write a detector to a checkpoint folder, replacing any existing detector.

    `files` holds the text of further files to save with the detector, by name; in a
    cluster, it must be empty. All processes of a cluster must call this. For errors,
    see `save_arrays`.
    """
    for name, text in (files or {}).items():
        write_text(folder / name, text)
    references, calibration = dict(detector.references), dict(detector.calibration)
    arrays = {
        "scorer": detector.scorer,
        "filterbank": detector.filterbank,
        "references": references,
        "calibration": calibration,
        "weights": detector.weights,
        "thresholds": dict(detector.thresholds),
    }
    about = {
        "config": to_dict(detector.config),
        "machines": [list(machine) for machine in detector.machines],
        "references": {n: list(r.clips.shape[2:]) for n, r in references.items()},
        "calibration": {n: values.shape[-1] for n, values in calibration.items()},
        "weights": detector.weights.shape[-1],
        "conditions": {n: to_stored(of) for n, of in detector.conditions.items()},
        "beside": {name: text_checksum(text) for name, text in (files or {}).items()},
    }
    save_arrays(folder / "detector", arrays, about)


def load_detector(folder: Path) -> Detector:
    """Load a detector from a checkpoint folder.

    Raises:
        InputError: there is no detector, or this version cannot read it.
    """
    return load_with_files(folder)[0]


def load_with_files(folder: Path) -> tuple[Detector, dict[str, bytes], str]:
    """Load a detector, the files saved with it (keyed by name), and its checksum.

    If another process replaces the detector meanwhile, the new one is loaded.

    Raises:
        InputError: see `load_detector`.
    """
    for _ in range(_MOST_RELOADS):
        before = _identity(folder)
        try:
            return _load_with_files(folder)
        except InputError:
            time.sleep(0.1)  # between removing the old detector and adding the new one
            if _identity(folder) == before:
                raise
    return _load_with_files(folder)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Identify the present version of a detector; return None if there is none."""
    try:
        status = marker(folder / "detector").stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _load_with_files(folder: Path) -> tuple[Detector, dict[str, bytes], str]:
    path = folder / "detector"
    refuse_fleet(folder, "checkpoint")
    if not marker(path).exists():
        remedy = (
            "pass a detector that gammavae fit wrote, or the folder 'checkpoint' of a "
            "finished run"
        )
        if folder.exists():
            raise InputError(f"{str(folder)!r} contains no detector: {remedy}")
        remedy = path_remedy(folder, remedy)
        raise InputError(f"{str(folder)!r} does not exist: {remedy}")
    about, config = read_marker(path)
    validate_detector(path, about, config.features.n_mels)
    files = read_beside(path, about)
    arrays = load_arrays(path, about, _abstract_detector(config, about))
    machines = tuple((machine, section) for machine, section in about["machines"])
    conditions = {n: from_stored(of) for n, of in about["conditions"].items()}
    detector = Detector(config, machines, **arrays, conditions=conditions)
    return detector, files, checksum(about)


def refuse_fleet(folder: Path, part: str = "") -> None:
    """Raise an error if a folder holds a fleet.

    The error suggests the folder of one of its waves, with `part` appended.
    """
    if (folder / "fleet.json").is_file():
        raise InputError(
            f"{str(folder)!r} is a fleet: pass the folder of one of its waves, such as "
            f"{str(folder / 'waves' / '0000' / part)!r}"
        )


def save_training(folder: Path, checkpoint: TrainCheckpoint) -> None:
    """Write the training state after an epoch and keep only one earlier state.

    All processes of a cluster must call this. For errors, see `save_arrays`.
    """
    train, epoch = folder / "train", checkpoint.epoch
    about = {
        "config": to_dict(checkpoint.config),
        "clips": checkpoint.clips,
        "n_batches": checkpoint.state.batch_errors.shape[-1],
    }
    save_arrays(train / str(epoch), checkpoint.state, about)
    on_first(lambda: _remove_older(train, epoch))  # also a barrier in a cluster


def restore_training(
    folder: Path, say: Callable[[str], None] = print
) -> TrainCheckpoint | None:
    """Load the newest intact training state; return None if none was saved.

    If a newer state is damaged, call `say` with a message.

    Raises:
        InputError: states were saved, but this version can read none of them.
    """
    newest: Unreadable | None = None  # the error of the newest state
    for epoch in sorted(_epochs(folder / "train"), reverse=True):
        path = folder / "train" / str(epoch)
        try:
            about, config = read_marker(path)
            validate_training(path, about)
            models = (config.n_members, len(about["clips"]))
            like = _abstract_state(config, models, about["n_batches"])
            state = load_arrays(path, about, like)
        except Unreadable as error:
            newest = newest or error
            continue
        if newest is not None:
            say(f"{newest.problem}: going back to the state after epoch {epoch}")
        return TrainCheckpoint(epoch, state, config, about["clips"])
    if newest is not None:
        raise newest
    return None


def training_clips(folder: Path) -> dict[str, list[str]]:
    """Return the identities of each machine's training clips, if known."""
    path = folder / "train" / str(last_saved_epoch(folder))
    try:
        return {n: list(map(str, c)) for n, c in read_marker(path)[0]["clips"].items()}
    except (InputError, KeyError, AttributeError, TypeError):
        return {}


def last_saved_epoch(folder: Path) -> int:
    """Return the epoch of the newest training state, damaged or not, or 0 if none."""
    return max(_epochs(folder / "train"), default=0)


def _remove_older(train: Path, epoch: int) -> None:
    """Keep the training state of `epoch` and the one before it; remove all others."""
    before = max((e for e in _epochs(train) if e < epoch), default=epoch)
    kept = {f"{e}{end}" for e in (before, epoch) for end in ("", ".json")}
    for path in list(train.iterdir()):
        if path.name not in kept:
            remove(path)


def _epochs(train: Path) -> list[int]:
    """Return the epochs of all states that have a marker."""
    names = [path.stem for path in train.glob("*.json")] if train.is_dir() else []
    return [int(name) for name in names if name.isdecimal()]


def _blank(*shape: int, dtype: Any = np.float32) -> Any:
    """Describe an array by its shape and type, without allocating memory."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _abstract_detector(config: Config, about: Any) -> dict[str, Any]:
    """Return the shapes and types of a detector's arrays."""
    n_machines, n_mels = len(about["machines"]), config.features.n_mels
    models, seeds = (config.n_members, n_machines), (config.n_seeds, n_machines)
    fit = GaussianFit(_blank(*models, n_mels), _blank(*models, n_mels, n_mels))
    state = _abstract_state(config, models)
    return {
        "scorer": FittedModel(state.params, state.batch_stats, fit, fit),
        "filterbank": _blank(config.features.n_fft // 2 + 1, n_mels),
        "references": {
            name: _abstract_reference(models, *shape)
            for name, shape in about["references"].items()
        },
        "calibration": {
            name: _blank(*seeds, n_clips, dtype=np.float64)
            for name, n_clips in about["calibration"].items()
        },
        "weights": _blank(n_machines, about["weights"], dtype=np.float64),
        "thresholds": {n: _blank(*seeds, dtype=np.float64) for n in config.scores},
    }


def _abstract_reference(
    models: tuple[int, int], n_places: int, n_features: int
) -> Reference:
    vector = _blank(*models, n_features)
    clips = _blank(*models, n_places, n_features)
    is_clip = _blank(*models, n_places, dtype=bool)
    return Reference(
        vector,
        vector,
        clips,
        is_clip,
        radius=_blank(*models, n_places),
        exponent=_blank(*models),
        parents=_blank(*models, n_places, 2, dtype=np.int32),
    )


def _abstract_state(
    config: Config, models: tuple[int, int], n_batches: int = 1
) -> TrainState:
    local_devices()  # otherwise, JAX reports a missing device in many lines
    one = jax.eval_shape(lambda: init_state(config, jax.random.key(0), n_batches))
    return jax.tree.map(
        lambda leaf: _blank(*models, *leaf.shape, dtype=leaf.dtype), one
    )
