"""Stores arrays with Orbax and validates an untrusted checkpoint before use.

The arrays are in a folder. A JSON file beside the folder, the marker, describes them
and lists the checksums of their files. The marker is written last, so if it exists, the
arrays are complete. The checksums are verified before the arrays are loaded: Orbax does
not notice a flipped bit and prints pages of warnings about a truncated file.

Checksums do not prove who wrote a checkpoint. So nothing in it is executed, names are
checked before they are used, and sizes before memory is allocated.
"""

import contextlib
import hashlib
import json
import math
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from gammavae_jax.config import Config
from gammavae_jax.config_json import from_dict, read_json
from gammavae_jax.data.conditions import Conditions
from gammavae_jax.data.domain_rule import DomainRule
from gammavae_jax.data.usual_sound import UsualSound
from gammavae_jax.devices.cluster import on_first
from gammavae_jax.errors import InputError, as_os_error, is_damage, printable, unusable
from gammavae_jax.files import (
    file_checksums,
    read_bytes,
    require_room,
    text_checksum,
    write_text,
)
from gammavae_jax.process import deferred_signals

FORMAT = 12  # increased when older checkpoints become unreadable
_MARKER_BYTES = 2**18  # the maximum size of a marker, without the given content
_MAX_COMPRESSION = 100  # floats hardly compress, but padding and zeros do
_SPARE_BYTES = 64 << 20  # allowed in addition, for small checkpoints
# A save fails if another thread of the process saves or loads at the same time.
_ORBAX = threading.Lock()


class Unreadable(InputError):
    """The error for a damaged or unsupported checkpoint: a problem and a remedy."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem


def marker(path: Path) -> Path:
    """Return the path of the JSON file that describes the arrays in folder `path`."""
    return path.with_name(f"{path.name}.json")


def save_arrays(path: Path, arrays: Any, about: Mapping[str, Any]) -> None:
    """Write arrays to a folder, replacing any existing arrays; then write the marker.

    All processes of a cluster must call this: each writes the part that is on its
    devices, and the first one also writes the arrays on the host. `about` holds the
    marker's content as JSON types, including the configuration under `config`.

    Raises:
        OSError: the arrays cannot be written.
        InputError: in a cluster, the first process cannot prepare the folder or write
            the marker; every process raises this error.
    """
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    n_bytes += n_bytes // 50 + _MARKER_BYTES + len(json.dumps(about, indent=2))

    def prepare() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # On a full disk Orbax would print pages of messages and leave incomplete files.
        require_room(path.parent, n_bytes)
        marker(path).unlink(missing_ok=True)

    def write_marker() -> None:
        content = {"format": FORMAT, **about, "files": file_checksums(path)}
        signed = {**content, "sum": checksum(content)}
        write_text(marker(path), json.dumps(signed, indent=2) + "\n", durable=True)

    with deferred_signals():
        on_first(prepare)
        try:
            with _ORBAX:
                ocp.save(str(path.absolute()), arrays, overwrite=True)
        except Exception as error:  # Orbax lets any error of its storage through
            for unfinished in path.parent.glob(f"{path.name}.orbax*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise as_os_error(error, path) from error
        on_first(write_marker)


def read_marker(path: Path) -> tuple[Any, Config]:
    """Read a marker; return its content as a dict, and its configuration."""
    with _reading(path, marker(path)):
        about = read_json(marker(path))
        if not isinstance(about, dict):
            raise ValueError
    if about.get("format") != FORMAT:
        raise Unreadable(
            f"checkpoint {printable(path)!r} is from another version of gammavae_jax",
            "use that version, or retrain",
        )
    if about.pop("sum", None) != checksum(about):
        raise _damaged(path, marker(path))
    try:
        return about, from_dict(about.get("config"))
    except InputError as error:
        raise Unreadable(f"checkpoint {printable(path)!r}", str(error)) from error


def checksum(about: Mapping[str, Any]) -> str:
    """Return the checksum of a marker's content, which covers the arrays, too."""
    return text_checksum(json.dumps(about))


def load_arrays(path: Path, about: Mapping[str, Any], like: Any) -> Any:
    """Verify the checksums of stored arrays and load the arrays into host memory.

    `like` is a tree of the expected shapes and types. Damaged arrays raise
    `Unreadable`; arrays of an impossible size raise a plain InputError.
    """
    checksums = about.get("files")
    if not isinstance(checksums, dict) or not checksums:
        raise _damaged(path, marker(path))
    with _reading(path):
        stored = file_checksums(path)
        for name, checksum in checksums.items():
            if stored.get(name) != checksum:
                raise _damaged(path, path / name)
        # For arrays on the host, Orbax checks only the types, and loads any shape.
        types = jax.tree.map(lambda leaf: np.zeros((), leaf.dtype), like)
        with _ORBAX:
            claimed = ocp.metadata(str(path.absolute())).metadata
            validate_sizes(path, claimed)
            arrays = ocp.load(str(path.absolute()), types)
    for array, expected in zip(*map(jax.tree.leaves, (arrays, like)), strict=True):
        if array.shape != expected.shape:
            raise _damaged(path)
    return arrays


@contextlib.contextmanager
def _reading(path: Path, part: Path | None = None) -> Iterator[None]:
    """Convert an error in a `with` block to an InputError.

    If the file is damaged, the error is an `Unreadable`.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Orbax lets any error of its storage through
        cause = as_os_error(error, path)
        raise _damaged(path, part) if is_damage(cause) else unusable(cause) from error


def read_beside(path: Path, about: Mapping[str, Any]) -> dict[str, bytes]:
    """Read the files that were saved beside the arrays and verify their checksums.

    Return the content of each file by name.
    """
    files = {}
    for name, checksum in about["beside"].items():
        file = path.with_name(name)
        with _reading(path, file):
            files[name] = read_bytes(file)
        if hashlib.sha256(files[name]).hexdigest() != checksum:
            raise _damaged(path, file)
    return files


def validate_sizes(path: Path, claimed: Any) -> None:
    """Reject Orbax metadata that claims far more bytes than the files hold."""
    n_claimed = sum(map(_claimed_bytes, jax.tree.leaves(claimed)))
    n_stored = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    problem = f"it claims {n_claimed} bytes of arrays, but holds {n_stored}"
    _require(n_claimed <= _MAX_COMPRESSION * n_stored + _SPARE_BYTES, path, problem)


def validate_detector(path: Path, about: Any, n_mels: int) -> None:
    """Reject a detector's marker if its content is malformed."""

    def check(name: str, is_valid: Callable[[Any], bool]) -> None:
        _require(is_valid(about.get(name)), path, f"{name!r} is malformed")

    def is_list_of_machines(value: Any) -> bool:
        is_valid = _is_list(value, lambda names: _is_list(names, _is_name, 2))
        return is_valid and 0 < len(set(map(tuple, value))) == len(value)

    def is_of_machine(value: Any) -> bool:
        if not _is_conditions(value, n_mels):
            return False
        n_judged = len((value["domains"] or {"is_target": ()})["is_target"])
        return max(sum(value["recording_sizes"]), n_judged) <= about["weights"]

    check("machines", is_list_of_machines)
    check("references", lambda of: _is_dict(of, lambda s: _is_list(s, _is_size, 2)))
    check("calibration", lambda of: _is_dict(of, _is_size))
    check("weights", lambda n: _is_size(n) and {n} >= {*about["calibration"].values()})
    check("conditions", lambda of: _is_dict(of, is_of_machine))
    check("beside", lambda of: _is_dict(of, lambda sum_: isinstance(sum_, str)))
    are_names = all(name == Path(name).name != ".." for name in about["beside"])
    _require(are_names, path, "'beside' is malformed")


def validate_training(path: Path, about: Any) -> None:
    """Reject a training state's marker if its content is malformed."""
    clips = about.get("clips")
    is_valid = _is_dict(clips, lambda c: _is_list(c, lambda n: isinstance(n, str)))
    _require(is_valid and clips != {}, path, "'clips' is malformed")
    _require(_is_size(about.get("n_batches")), path, "'n_batches' is malformed")


def _claimed_bytes(array: Any) -> int:
    """Return an array's size in bytes, according to its metadata.

    It is at least the size of one chunk, because chunks are always read completely.
    """
    chunk = array.storage_metadata and array.storage_metadata.chunk_shape
    return max(math.prod(array.shape), math.prod(chunk or ())) * array.dtype.itemsize


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value != ""


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**40


def _is_conditions(value: Any, n_mels: int) -> bool:
    """Return whether a value from JSON can be converted to `Conditions`."""
    sizes = ("sample_rates", "channels", "recording_sizes")
    numbers = ("shortest", "n_recordings", "total_seconds")
    of_sound = {"spectrum": n_mels, "lowest": n_mels, "swing": 2}
    of_domains = {"direction": n_mels, "is_target": None}
    return (
        isinstance(value, dict)
        and value.keys() == set(Conditions._fields)
        and all(_is_list(value[name], _is_moderate, 2) for name in ("seconds", "level"))
        and all(_is_list(value[name], _is_size) for name in sizes)
        and all(_is_moderate(value[name]) for name in numbers)
        and value["n_recordings"] >= 0
        and _is_record(value["sound"], UsualSound, of_sound)
        and _is_record(value["domains"], DomainRule, of_domains)
    )


def _is_record(value: Any, kind: Any, lengths: Mapping[str, int | None]) -> bool:
    """Return whether a JSON value is None or has the fields and lengths of `kind`."""
    return value is None or (
        isinstance(value, dict)
        and value.keys() == set(kind._fields)
        and all(
            _is_list(value[n], _is_moderate, length) for n, length in lengths.items()
        )
        and all(_is_moderate(value[name]) for name in value.keys() - lengths.keys())
    )


def _is_moderate(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9


def _is_list(value: Any, is_item: Callable[[Any], bool], n: int | None = None) -> bool:
    is_list = isinstance(value, list) and n in (None, len(value))
    return is_list and all(map(is_item, value))


def _is_dict(value: Any, is_item: Callable[[Any], bool]) -> bool:
    is_dict = isinstance(value, dict) and all(map(_is_name, value))
    return is_dict and all(map(is_item, value.values()))


def _require(is_valid: bool, path: Path, problem: str) -> None:
    if not is_valid:
        raise InputError(
            f"checkpoint {printable(path)!r} cannot be read ({problem}): restore it "
            "from a backup, or retrain"
        )


def _damaged(path: Path, part: Path | None = None) -> Unreadable:
    """Return the error for damaged arrays; `part` names the damaged file, if known."""
    where = f" ({printable(part.relative_to(path.parent))})" if part else ""
    return Unreadable(
        f"checkpoint {printable(path)!r} is damaged{where}",
        "restore it from a backup, or run again with --resume (if a training state is "
        "intact) or --overwrite",
    )
