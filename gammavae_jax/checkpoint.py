"""Checkpoints: everything that scoring needs, and what a resumed training needs.

A checkpoint folder holds `detector.json` (configuration and machines), `detector/`
(filterbank, models, fits,
references, calibration, thresholds) and `train/<epoch>/` (the optimiser's state
too). The folders are Orbax's, which renames them when whole. Arrays are stored with the
axes `[member machine]` or `[seed machine]`, so any number of devices and processes can
read them.
"""

import contextlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from gammavae_jax.config import Config
from gammavae_jax.config_json import from_dict, to_dict
from gammavae_jax.detector import Detector
from gammavae_jax.distributed import is_first
from gammavae_jax.errors import InputError
from gammavae_jax.files import write_text
from gammavae_jax.neighbours import Reference
from gammavae_jax.score import GaussianFit
from gammavae_jax.scorer import Scorer
from gammavae_jax.train import TrainState, init_state

FORMAT = 4  # raised when older checkpoints can no longer be read


class TrainCheckpoint(NamedTuple):
    """Where a training stood after an epoch; `clips` tells what it trained on."""

    epoch: int
    state: TrainState  # on the host or whole on every device; `member machine` leads
    config: Config
    clips: dict[str, list[str]]


def save_detector(folder: Path, detector: Detector) -> None:
    """Write a detector below a checkpoint folder, in place of one already there.

    Of several processes, all are to do so together, and the first one writes.
    """
    arrays = {
        "scorer": detector.scorer,
        "filterbank": detector.filterbank,
        "references": dict(detector.references),
        "calibration": detector.calibration,
        "thresholds": dict(detector.thresholds),
    }
    about = {
        "format": FORMAT,
        "config": to_dict(detector.config),
        "machines": [list(machine) for machine in detector.machines],
        "references": {
            name: list(reference.clips.shape[2:])
            for name, reference in detector.references.items()
        },
        "calibration": {
            name: values.shape[-1] for name, values in detector.calibration.items()
        },
    }
    if is_first():
        (folder / "detector.json").unlink(missing_ok=True)
    with _uninterrupted():
        ocp.save(_address(folder / "detector"), arrays, overwrite=True)
    if is_first():
        # Last: where it is, the arrays are whole.
        write_text(folder / "detector.json", json.dumps(about, indent=2) + "\n")


def restore_detector(folder: Path) -> Detector:
    """Read what `save_detector` wrote.

    Raises:
        InputError: there is no checkpoint, or one that this version cannot read.
    """
    path = _address(folder / "detector")
    about = _read_json(folder / "detector.json")
    config = _config(path, about)
    runs = (len(config.seeds), len(about["machines"]))
    models = (config.n_members, len(about["machines"]))
    n_bins, n_mels = config.features.n_fft // 2 + 1, config.features.n_mels
    fit = GaussianFit(
        _zeros(*models, n_mels),
        _zeros(*models, n_mels, n_mels),
    )
    state = _abstract_state(config, models)
    arrays = _load(
        path,
        {
            "scorer": Scorer(state.params, state.batch_stats, fit, fit),
            "filterbank": _zeros(n_bins, n_mels),
            "references": {
                name: _abstract_reference(models, *shape)
                for name, shape in about["references"].items()
            },
            "calibration": {
                name: np.zeros((*runs, n_clips))
                for name, n_clips in about["calibration"].items()
            },
            "thresholds": {name: np.zeros(runs) for name in config.scores},
        },
    )
    machines = tuple((machine, section) for machine, section in about["machines"])
    return Detector(
        config,
        machines,
        **arrays,
    )


def save_training(folder: Path, checkpoint: TrainCheckpoint) -> None:
    """Write the state after an epoch; the state before it is then removed.

    Of several processes, all are to do so together: each writes a part of it.
    """
    train = folder / "train"
    about = {
        "format": FORMAT,
        "config": to_dict(checkpoint.config),
        "clips": checkpoint.clips,
        "n_batches": checkpoint.state.batch_errors.shape[-1],
    }
    with _uninterrupted():
        ocp.save(
            _address(train / str(checkpoint.epoch)),
            checkpoint.state,
            overwrite=True,
            custom_metadata=about,
        )
    if is_first():
        for epoch in _epochs(train):
            if epoch != checkpoint.epoch:
                shutil.rmtree(train / str(epoch))


def restore_training(folder: Path) -> TrainCheckpoint | None:
    """The newest state of a training, or None if there is none yet.

    Raises:
        InputError: a state that this version cannot read.
    """
    epochs = _epochs(folder / "train")
    if not epochs:
        return None
    path = _address(folder / "train" / str(max(epochs)))
    try:
        about: Any = ocp.metadata(path).custom_metadata
    except Exception as error:  # Orbax raises what its storage raises
        raise _unreadable(path) from error
    config = _config(path, about)
    models = (config.n_members, len(about["clips"]))
    state = _load(path, _abstract_state(config, models, about["n_batches"]))
    return TrainCheckpoint(max(epochs), state, config, about["clips"])


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end: Orbax, interrupted, ends in a page of warnings."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where no signal arrives
        return
    arrived = []
    before = signal.signal(signal.SIGINT, lambda *_: arrived.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if arrived:
        raise KeyboardInterrupt


def _epochs(train: Path) -> list[int]:
    names = [path.name for path in train.iterdir()] if train.is_dir() else []
    return [int(name) for name in names if name.isdecimal()]


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise InputError(
            f"no checkpoint in {str(path.parent)!r}: give the folder 'checkpoint' of a "
            "finished run, or what gammavae fit wrote"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unreadable(path) from error


def _config(path: str, about: Any) -> Config:
    """The configuration in what a checkpoint says of itself."""
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(
            f"checkpoint {str(path)!r} is of another version of gammavae_jax: use that "
            "version, or train again"
        )
    try:
        return from_dict(about["config"])
    except InputError as error:
        raise InputError(f"checkpoint {str(path)!r}: {error}") from error


def _load(path: str, like: Any) -> Any:
    try:
        return ocp.load(path, like)
    except Exception as error:  # Orbax raises what its storage raises
        raise _unreadable(path) from error


def _unreadable(path: Path | str) -> InputError:
    return InputError(
        f"checkpoint {str(path)!r} cannot be read: it is damaged; restore a copy, or "
        "train again with --overwrite"
    )


def _address(path: Path) -> str:
    """A path as Orbax wants it."""
    return str(path.absolute())


def _zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def _abstract_reference(
    models: tuple[int, int], n_places: int, n_features: int
) -> Reference:
    """Arrays of the right shapes; their content is of no account."""
    return Reference(
        location=_zeros(*models, n_features),
        scale=_zeros(*models, n_features),
        clips=_zeros(*models, n_places, n_features),
        is_clip=np.zeros((*models, n_places), bool),
        radius=_zeros(*models, n_places),
    )


def _abstract_state(
    config: Config, models: tuple[int, int], n_batches: int = 1
) -> TrainState:
    """The same of a state in training."""
    one = jax.eval_shape(lambda: init_state(config, jax.random.key(0), n_batches))
    return jax.tree.map(lambda leaf: np.zeros((*models, *leaf.shape), leaf.dtype), one)
