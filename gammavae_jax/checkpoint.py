"""Checkpoints: everything that scoring needs, and what a resumed training needs.

A checkpoint folder holds `detector/` (filterbank, models, fits, references,
calibration, thresholds) and `train/<epoch>/` (the optimiser's state too), the last two
of them. The folders are Orbax's. Beside each is a JSON file of its name, the mark: it
says what the arrays are of, and which files they are in, with a checksum of each. It is
written last: where it is, the arrays are whole. Orbax does not notice a bit that flips,
and ends in pages of warnings where a file is cut short; the checksums come first.

Arrays are stored from the host with the axes `[member machine]` or `[seed machine]`, so
any number of devices can read them.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from gammavae_jax.config import Config
from gammavae_jax.config_json import from_dict, to_dict
from gammavae_jax.detector import Detector
from gammavae_jax.errors import InputError
from gammavae_jax.file_sums import file_sums, text_sum
from gammavae_jax.files import as_os_error, remove, require_room, write_text
from gammavae_jax.interruption import uninterrupted
from gammavae_jax.neighbours import Reference
from gammavae_jax.score import GaussianFit
from gammavae_jax.scorer import Scorer
from gammavae_jax.train import TrainState, init_state

FORMAT = 5  # raised when older checkpoints can no longer be read
_ROOM_FOR_NAMES = 2**18  # bytes, of what is not arrays


class _Unreadable(InputError):
    """What is wrong with a checkpoint, and what to do if there is no other one."""

    def __init__(self, what: str, remedy: str):
        super().__init__(f"{what}: {remedy}")
        self.what = what


class TrainCheckpoint(NamedTuple):
    """Where a training stood after an epoch; `clips` tells what it trained on."""

    epoch: int
    state: TrainState  # on the host, leaves lead with `member machine`
    config: Config
    clips: dict[str, list[str]]


def save_detector(folder: Path, detector: Detector) -> None:
    """Write a detector below a checkpoint folder, in place of one already there.

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
    _save(folder / "detector", arrays, about)


def restore_detector(folder: Path) -> Detector:
    """Read what `save_detector` wrote.

    Raises:
        InputError: there is no checkpoint, or one that this version cannot read.
    """
    path = folder / "detector"
    if not _mark(path).is_file():
        raise InputError(
            f"no checkpoint in {str(folder)!r}: give the folder 'checkpoint' of a "
            "finished run, or what gammavae fit wrote"
        )
    about, config = _read_mark(path)
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
        about,
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
    return Detector(config, machines, **arrays)


def save_training(folder: Path, checkpoint: TrainCheckpoint) -> None:
    """Write the state after an epoch; the one before it stays, older ones go.

    Raises:
        OSError: it cannot be written; those before are still there.
    """
    train, epoch = folder / "train", checkpoint.epoch
    about = {
        "config": to_dict(checkpoint.config),
        "clips": checkpoint.clips,
        "n_batches": checkpoint.state.batch_errors.shape[-1],
    }
    _save(train / str(epoch), checkpoint.state, about)
    before = max((e for e in _epochs(train) if e < epoch), default=epoch)
    kept = {f"{e}{end}" for e in (before, epoch) for end in ("", ".json")}
    for path in list(train.iterdir()):
        if path.name not in kept:
            remove(path)


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
    newest: _Unreadable | None = None
    for epoch in sorted(_epochs(folder / "train"), reverse=True):
        path = folder / "train" / str(epoch)
        try:
            about, config = _read_mark(path)
            models = (config.n_members, len(about["clips"]))
            like = _abstract_state(config, models, about["n_batches"])
            state = _load(path, about, like)
        except _Unreadable as error:
            newest = newest or error
            continue
        if newest is not None:
            say(f"{newest.what}: going back to the state after epoch {epoch}")
        return TrainCheckpoint(epoch, state, config, about["clips"])
    if newest is not None:
        raise newest
    return None


def _epochs(train: Path) -> list[int]:
    """Of the states that were saved to their end."""
    marks = train.glob("*.json") if train.is_dir() else ()
    return [int(mark.stem) for mark in marks if mark.stem.isdecimal()]


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _save(path: Path, arrays: Any, about: Mapping[str, Any]) -> None:
    """Write arrays, and last the mark; without it they count for nothing.

    Raises:
        OSError: they cannot be written, whatever Orbax calls it.
    """
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    path.parent.mkdir(parents=True, exist_ok=True)
    # On a full disk Orbax would end in pages of messages, and leave half of it.
    require_room(path.parent, n_bytes + n_bytes // 50 + _ROOM_FOR_NAMES)
    with uninterrupted():
        _mark(path).unlink(missing_ok=True)
        try:
            ocp.save(_address(path), arrays, overwrite=True)
        except Exception as error:  # Orbax raises what its storage raises
            for half in path.parent.glob(f"{path.name}.orbax*"):
                shutil.rmtree(half, ignore_errors=True)
            raise as_os_error(error, path) from error
        whole = {"format": FORMAT, **about, "files": file_sums(path)}
        text = json.dumps({**whole, "sum": text_sum(json.dumps(whole))}, indent=2)
        write_text(_mark(path), text + "\n", durable=True)


def _read_mark(path: Path) -> tuple[Any, Config]:
    """What a checkpoint says of itself, and the configuration in it.

    Raises:
        InputError: it is damaged, or of another version.
    """
    try:
        about = json.loads(_mark(path).read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise ValueError
    except (OSError, ValueError) as error:
        raise _damaged(path, _mark(path)) from error
    if about.get("format") != FORMAT:
        raise _Unreadable(
            f"checkpoint {str(path)!r} is of another version of gammavae_jax",
            "use that version, or train again",
        )
    said = about.pop("sum", None)
    if said != text_sum(json.dumps(about)):
        raise _damaged(path, _mark(path))
    try:
        return about, from_dict(about["config"])
    except InputError as error:
        raise _Unreadable(f"checkpoint {str(path)!r}", str(error)) from error


def _load(path: Path, about: Mapping[str, Any], like: Any) -> Any:
    """The arrays, once their files are known to be as they were written.

    Raises:
        InputError: they are not.
    """
    try:
        found = file_sums(path)
    except OSError as error:
        raise _damaged(path, path) from error
    for name, told in about["files"].items():
        if found.get(name) != told:
            raise _damaged(path, path / name)
    try:
        return ocp.load(_address(path), like)
    except Exception as error:  # Orbax raises what its storage raises
        raise _damaged(path, path) from error


def _damaged(path: Path, part: Path) -> _Unreadable:
    where = "" if part == path else f" ({part.relative_to(path.parent)})"
    return _Unreadable(
        f"checkpoint {str(path)!r} is damaged{where}",
        "restore a copy, or train again with --overwrite",
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
