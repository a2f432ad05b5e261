"""Checkpoints: everything that scoring needs, and what a resumed training needs.

A checkpoint folder holds `detector/` (filterbank, models, fits, references,
calibration, thresholds) and `train/<epoch>/` (the optimiser's state too), the last two
of them, each with its mark beside it (see `stored_arrays`).

Arrays are stored with the axes `[member machine]` or `[seed machine]`, so any number of
devices and processes can read them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.devices.cluster import on_first
from gammavae_jax.errors import InputError
from gammavae_jax.files import remove
from gammavae_jax.runs.checkpoint_claims import require_detector, require_training
from gammavae_jax.runs.stored_arrays import (
    Unreadable,
    load_arrays,
    mark,
    read_mark,
    save_arrays,
)
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.neighbours import Reference
from gammavae_jax.scoring.residuals import GaussianFit
from gammavae_jax.scoring.scorer import Scorer
from gammavae_jax.training.step import TrainState, init_state


class TrainCheckpoint(NamedTuple):
    """Where a training stood after an epoch; `clips` tells what it trained on."""

    epoch: int
    state: TrainState  # on the host or whole on every device; `member machine` leads
    config: Config
    clips: dict[str, list[str]]


def save_detector(folder: Path, detector: Detector) -> None:
    """Write a detector below a checkpoint folder, in place of one already there.

    Of several processes, all are to do so together.

    Raises:
        OSError: it cannot be written.
    """
    arrays = {
        "scorer": detector.scorer,
        "filterbank": detector.filterbank,
        "references": dict(detector.references),
        "calibration": detector.calibration,
        "thresholds": dict(detector.thresholds),
    }
    about = {
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
    save_arrays(folder / "detector", arrays, about)


def load_detector(folder: Path) -> Detector:
    """Read what `save_detector` wrote.

    Raises:
        InputError: there is no checkpoint, or one that this version cannot read.
    """
    path = folder / "detector"
    require_no_fleet(folder, "checkpoint")
    if not mark(path).is_file():
        raise InputError(
            f"no checkpoint in {str(folder)!r}: give the folder 'checkpoint' of a "
            "finished run, or what gammavae fit wrote"
        )
    about, config = read_mark(path)
    require_detector(str(path), about)
    runs = (len(config.seeds), len(about["machines"]))
    models = (config.n_members, len(about["machines"]))
    n_bins, n_mels = config.features.n_fft // 2 + 1, config.features.n_mels
    fit = GaussianFit(
        _blank(*models, n_mels),
        _blank(*models, n_mels, n_mels),
    )
    state = _abstract_state(config, models)
    arrays = load_arrays(
        path,
        about,
        {
            "scorer": Scorer(state.params, state.batch_stats, fit, fit),
            "filterbank": _blank(n_bins, n_mels),
            "references": {
                name: _abstract_reference(models, *shape)
                for name, shape in about["references"].items()
            },
            "calibration": {
                name: _blank(*runs, n_clips, dtype=np.float64)
                for name, n_clips in about["calibration"].items()
            },
            "thresholds": {
                name: _blank(*runs, dtype=np.float64) for name in config.scores
            },
        },
    )
    machines = tuple((machine, section) for machine, section in about["machines"])
    return Detector(config, machines, **arrays)


def require_no_fleet(folder: Path, part: str = "") -> None:
    """Refuse the folder of a fleet where that of a wave, or a part of it, is meant.

    Raises:
        InputError: it is that of a fleet.
    """
    if (folder / "fleet.json").is_file():
        raise InputError(
            f"{str(folder)!r} is a fleet: give the folder of one of its waves, such as "
            f"{str(folder / 'waves' / '0000' / part)!r}"
        )


def save_training(folder: Path, checkpoint: TrainCheckpoint) -> None:
    """Write the state after an epoch; the one before it stays, older ones go.

    Of several processes, all are to do so together: each writes a part of it.

    Raises:
        OSError: it cannot be written; those before are still there.
    """
    train, epoch = folder / "train", checkpoint.epoch
    about = {
        "config": to_dict(checkpoint.config),
        "clips": checkpoint.clips,
        "n_batches": checkpoint.state.batch_errors.shape[-1],
    }
    save_arrays(train / str(epoch), checkpoint.state, about)
    # Where there are several processes, all go on when the first one has.
    on_first(lambda: _remove_older(train, epoch))


def restore_training(
    folder: Path, say: Callable[[str], None] = print
) -> TrainCheckpoint | None:
    """The newest state of a training that is sound, or None if there is none yet.

    Args:
        folder: of the checkpoint.
        say: is told where an older state had to be taken.

    Raises:
        InputError: there are states, but none that this version can read.
    """
    newest: Unreadable | None = None
    for epoch in sorted(_epochs(folder / "train"), reverse=True):
        path = folder / "train" / str(epoch)
        try:
            about, config = read_mark(path)
            require_training(str(path), about)
            models = (config.n_members, len(about["clips"]))
            like = _abstract_state(config, models, about["n_batches"])
            state = load_arrays(path, about, like)
        except Unreadable as error:
            newest = newest or error
            continue
        if newest is not None:
            say(f"{newest.what}: going back to the state after epoch {epoch}")
        return TrainCheckpoint(epoch, state, config, about["clips"])
    if newest is not None:
        raise newest
    return None


def last_saved_epoch(folder: Path) -> int:
    """Of the newest state of a training, sound or not; 0 if there is none yet."""
    return max(_epochs(folder / "train"), default=0)


def _remove_older(train: Path, epoch: int) -> None:
    """Keep the state of an epoch and the one before."""
    before = max((e for e in _epochs(train) if e < epoch), default=epoch)
    kept = {f"{e}{end}" for e in (before, epoch) for end in ("", ".json")}
    for path in list(train.iterdir()):
        if path.name not in kept:
            remove(path)


def _epochs(train: Path) -> list[int]:
    """Of the states that were saved to their end."""
    marks = train.glob("*.json") if train.is_dir() else ()
    return [int(mark.stem) for mark in marks if mark.stem.isdecimal()]


def _blank(*shape: int, dtype: Any = np.float32) -> Any:
    """A shape and a type, for which no memory is taken."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _abstract_reference(
    models: tuple[int, int], n_places: int, n_features: int
) -> Reference:
    """Arrays of the right shapes; their content is of no account."""
    return Reference(
        location=_blank(*models, n_features),
        scale=_blank(*models, n_features),
        clips=_blank(*models, n_places, n_features),
        is_clip=_blank(*models, n_places, dtype=bool),
        radius=_blank(*models, n_places),
    )


def _abstract_state(
    config: Config, models: tuple[int, int], n_batches: int = 1
) -> TrainState:
    """The same of a state in training."""
    one = jax.eval_shape(lambda: init_state(config, jax.random.key(0), n_batches))
    return jax.tree.map(
        lambda leaf: _blank(*models, *leaf.shape, dtype=leaf.dtype), one
    )
