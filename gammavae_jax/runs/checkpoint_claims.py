"""What a checkpoint says of itself, which need not be true: it may be a stranger's.

Nothing in a checkpoint is run, neither its JSON nor its arrays. Here its texts are
checked before they name anything, and its sizes before memory is taken for them.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax

from gammavae_jax.errors import InputError, printable

# Floats hardly shrink when they are stored; padding and zeros do.
_MOST_EXPANSION = 100
_SPARE_BYTES = 64 << 20  # which the smallest of checkpoints may take


def require_detector(path: str, about: Any) -> None:
    """Refuse what `detector.json` cannot say.

    Args:
        path: of the checkpoint, for the message.
        about: the JSON, an object.

    Raises:
        InputError: machines, references or calibration of another form.
    """
    machines = about.get("machines")
    if not isinstance(machines, list) or not machines:
        _refuse(path, "machines")
    for machine in machines:
        is_pair = isinstance(machine, list) and len(machine) == 2
        if not is_pair or not all(map(_is_name, machine)):
            _refuse(path, "machines")
    if len({tuple(machine) for machine in machines}) < len(machines):
        _refuse(path, "machines")
    for name, shape in _object(path, about, "references").items():
        is_shape = isinstance(shape, list) and len(shape) == 2
        if not _is_name(name) or not is_shape or not all(map(_is_size, shape)):
            _refuse(path, "references")
    for name, size in _object(path, about, "calibration").items():
        if not _is_name(name) or not _is_size(size):
            _refuse(path, "calibration")


def require_training(path: str, about: Any) -> None:
    """Refuse what a state of a training cannot say of itself.

    Args:
        path: of the state, for the message.
        about: the JSON, an object.

    Raises:
        InputError: clips or a number of batches of another form.
    """
    for name, clips in _object(path, about, "clips").items():
        is_list = isinstance(clips, list) and all(isinstance(c, str) for c in clips)
        if not _is_name(name) or not is_list:
            _refuse(path, "clips")
    if not about["clips"]:
        _refuse(path, "clips")
    if not _is_size(about.get("n_batches")):
        _refuse(path, "n_batches")


def require_modest(path: str, stored: Any) -> None:
    """Refuse arrays that are claimed to be far larger than what lies there.

    Args:
        path: the folder of the arrays.
        stored: a tree of Orbax's metadata of arrays.

    Raises:
        InputError: they are.
    """
    claimed = sum(map(_claimed_bytes, jax.tree.leaves(stored)))
    held = sum(p.stat().st_size for p in Path(path).rglob("*") if p.is_file())
    if claimed > _MOST_EXPANSION * held + _SPARE_BYTES:
        raise InputError(
            f"checkpoint {printable(path)!r} cannot be read: it claims {claimed} bytes "
            f"of arrays, and holds {held}; restore a copy, or train again"
        )


def _claimed_bytes(array: Any) -> int:
    """Of an array, or of a chunk of it, which is read whole."""
    chunk = array.storage_metadata and array.storage_metadata.chunk_shape
    shapes = (array.shape, chunk or ())
    return max(map(math.prod, shapes)) * array.dtype.itemsize


def _object(path: str, about: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = about.get(name)
    if not isinstance(value, dict):
        _refuse(path, name)
    return value


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value != ""


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**40


def _refuse(path: str, name: str) -> NoReturn:
    raise InputError(
        f"checkpoint {printable(path)!r} cannot be read: its {name} are not as this "
        "package writes them; restore a copy, or train again"
    )
