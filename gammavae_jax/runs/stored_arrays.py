"""Arrays in a folder of Orbax's, and a JSON file of its name beside it: the mark.

The mark says what the arrays are of, and which files they are in, with a checksum of
each. It is written last: where it is, the arrays are whole. Orbax does not notice a bit
that flips, and ends in pages of warnings where a file is cut short; the checksums come
first. They do not tell who has written it all: see `checkpoint_claims`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from gammavae_jax.config import Config
from gammavae_jax.config_json import from_dict
from gammavae_jax.devices.cluster import on_first
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import (
    as_os_error,
    file_sums,
    require_room,
    text_sum,
    write_text,
)
from gammavae_jax.process import deferred_signals
from gammavae_jax.runs.checkpoint_claims import require_modest

FORMAT = 6  # raised when older checkpoints can no longer be read
_ROOM_FOR_NAMES = 2**18  # bytes, of what is not arrays


class Unreadable(InputError):
    """What is wrong with arrays, and what to do if there are no others."""

    def __init__(self, what: str, remedy: str):
        super().__init__(f"{what}: {remedy}")
        self.what = what


def mark(path: Path) -> Path:
    """The file that says of the arrays in a folder that they are whole."""
    return path.with_name(f"{path.name}.json")


def save_arrays(path: Path, arrays: Any, about: Mapping[str, Any]) -> None:
    """Write arrays, and last the mark; without it they count for nothing.

    Of several processes, all are to do so together: each writes a part of what is on
    its devices, and the first one what is on the host.

    Args:
        path: a folder; what is there is replaced.
        arrays: a tree.
        about: what the mark says, in JSON's types; its `config` is a `Config`'s.

    Raises:
        OSError: they cannot be written, whatever Orbax calls it.
        InputError: the same, where the first of several processes has found it.
    """
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))

    def make_room() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # On a full disk Orbax would end in pages of messages, and leave half of it.
        require_room(path.parent, n_bytes + n_bytes // 50 + _ROOM_FOR_NAMES)
        mark(path).unlink(missing_ok=True)

    def write_mark() -> None:
        whole = {"format": FORMAT, **about, "files": file_sums(path)}
        text = json.dumps({**whole, "sum": text_sum(json.dumps(whole))}, indent=2)
        write_text(mark(path), text + "\n", durable=True)

    with deferred_signals():
        on_first(make_room)
        try:
            ocp.save(_address(path), arrays, overwrite=True)
        except Exception as error:  # Orbax raises what its storage raises
            for half in path.parent.glob(f"{path.name}.orbax*"):
                shutil.rmtree(half, ignore_errors=True)
            raise as_os_error(error, path) from error
        on_first(write_mark)


def read_mark(path: Path) -> tuple[Any, Config]:
    """What the mark of arrays says, an object, and the configuration in it.

    Raises:
        Unreadable: it is damaged, or of another version.
    """
    try:
        about = json.loads(mark(path).read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise ValueError
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, mark(path)) from error
    if about.get("format") != FORMAT:
        raise Unreadable(
            f"checkpoint {printable(path)!r} is of another version of gammavae_jax",
            "use that version, or train again",
        )
    said = about.pop("sum", None)
    if said != text_sum(json.dumps(about)):
        raise damaged(path, mark(path))
    try:
        return about, from_dict(about.get("config"))
    except InputError as error:
        raise Unreadable(f"checkpoint {printable(path)!r}", str(error)) from error


def load_arrays(path: Path, about: Mapping[str, Any], like: Any) -> Any:
    """Arrays on the host, once their files are known to be as they were written.

    Args:
        path: their folder.
        about: what their mark says.
        like: a tree of their shapes and types.

    Raises:
        Unreadable: they are not as they were written, or not like that.
        InputError: they are claimed to be larger than they can be.
    """
    try:
        found = file_sums(path)
    except OSError as error:
        raise damaged(path, path) from error
    told = about.get("files")
    if not isinstance(told, dict) or not told:
        raise damaged(path, mark(path))
    for name, digest in told.items():
        if found.get(name) != digest:
            raise damaged(path, path / name)
    try:
        stored = ocp.metadata(_address(path)).metadata
    except Exception as error:  # Orbax raises what its storage raises
        raise damaged(path, path) from error
    require_modest(_address(path), stored)
    # Of arrays on the host, Orbax asks for the type alone, and gives what is stored.
    wanted = jax.tree.map(lambda leaf: np.zeros((), leaf.dtype), like)
    try:
        loaded = ocp.load(_address(path), wanted)
    except Exception as error:
        raise damaged(path, path) from error
    for read, expected in zip(*map(jax.tree.leaves, (loaded, like)), strict=True):
        if read.shape != expected.shape:
            raise damaged(path, path)
    return loaded


def damaged(path: Path, part: Path) -> Unreadable:
    """That arrays are damaged, and in which part: a file of them, or all."""
    where = "" if part == path else f" ({printable(part.relative_to(path.parent))})"
    return Unreadable(
        f"checkpoint {printable(path)!r} is damaged{where}",
        "restore a copy, or make it anew: run.py --resume where a state in training "
        "is sound, else --overwrite",
    )


def _address(path: Path) -> str:
    """A path as Orbax wants it."""
    return str(path.absolute())
