"""Manages a run folder: its lock, checks, configuration and metrics.

All files are written atomically, except `metrics.jsonl`, to which each epoch appends a
line.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import finite, from_dict, parse_json, read_json
from gammavae_jax.errors import InputError, writing
from gammavae_jax.files import (
    FolderInUse,
    FolderLock,
    is_unfinished,
    read_text,
    remove,
    write_text,
)
from gammavae_jax.runs.result_files import (
    has_results,
    put_in_place,
    remove_results,
    write_config,
)

_LOCK = ".run-lock"


class RunFolder(NamedTuple):
    """The folder of a run, and what to do if it already exists."""

    path: Path
    resume: bool = False
    overwrite: bool = False


@contextlib.contextmanager
def locked_folder(out: Path, resume: bool, overwrite: bool) -> Iterator[None]:
    """Check that a folder may be used, then lock it during a `with` block.

    The lock is released when the process ends, even if it is killed.

    Raises:
        InputError: the folder is locked, cannot be written, or fails `check_folder`.
    """
    if not (out / _LOCK).exists():
        check_folder(out, resume, overwrite)
    try:
        with writing(out, resumable=True):
            lock = FolderLock(out, _LOCK, stays=False)
    except FolderInUse as error:
        raise InputError(
            f"another run is writing to {str(out)!r}: wait until it ends, or choose "
            "another path for --out"
        ) from error
    with lock:
        check_folder(out, resume, overwrite)
        yield


def check_folder(out: Path, resume: bool = False, overwrite: bool = False) -> None:
    """Check that a folder is new or empty, or holds a run to resume or overwrite."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file: choose another path for --out")
    entries = list(out.iterdir()) if out.is_dir() else []
    content = [p for p in entries if p.name != _LOCK and not is_unfinished(p)]
    if resume and not entries:
        raise InputError(
            f"nothing to resume in {str(out)!r}: leave out --resume to start a run"
        )
    if content and not resume and not overwrite:
        raise InputError(
            f"{str(out)!r} exists: pass --overwrite to replace it or --resume to "
            "continue it, or choose another path for --out"
        )
    if content and not _is_run(out):
        raise InputError(
            f"{str(out)!r} is not a run folder, so --overwrite will not replace "
            "it: choose another path for --out"
        )


def begin_folder(out: Path, config: Config) -> None:
    """Create the folder, remove an earlier run's files, and write `config.json`."""
    with writing(out, resumable=True):
        out.mkdir(parents=True, exist_ok=True)
        # Written first, because it marks the folder as a run folder.
        write_config(out, config)
        _remove_unfinished(out)
        remove_results(out)
        # The plan goes first: --resume would accept a fleet with a plan but no waves.
        for name in ("fleet.json", "waves", "checkpoint", "metrics.jsonl"):
            remove(out / name)


def is_finished(out: Path, config: Config | None = None) -> bool:
    """Return whether a folder holds a finished run (with this `config`, if given)."""
    if not (out / "summary.json").is_file():  # published last
        return False
    return config is None or read_config(out) == config


def read_config(out: Path) -> Config | None:
    """Read the configuration of a run folder; return None if it has none."""
    path = out / "config.json"
    if not path.exists():
        return None
    try:
        tree = read_json(path)
    except ValueError as error:
        raise InputError(
            f"{str(path)!r} is damaged: restore it from a backup, or pass --overwrite"
        ) from error
    try:
        return from_dict(tree)
    except InputError as error:
        raise InputError(
            f"{str(path)!r} is from another version of gammavae_jax ({error}): use "
            "that version, or choose another path for --out"
        ) from error


def resume_folder(out: Path, config: Config, epoch: int) -> list[int]:
    """Restore the folder to its state after an epoch.

    Existing results and their configuration stay until `atomic_results` replaces them.
    Return the epochs that are missing from `metrics.jsonl`.
    """
    settle_folder(out, config)
    kept = [line for line in read_metrics(out) if line["epoch"] <= epoch]
    with writing(out, resumable=True):
        lines = "".join(json.dumps(line) + "\n" for line in kept)
        write_text(out / "metrics.jsonl", lines, durable=True)
    return sorted({*range(1, epoch + 1)} - {line["epoch"] for line in kept})


def settle_folder(out: Path, config: Config) -> None:
    """Finish publishing the results of a run that was killed while publishing.

    Then write the configuration, unless the folder has results.
    """
    with writing(out, resumable=True):
        put_in_place(out)
        _remove_unfinished(out)
        if not has_results(out):
            write_config(out, config)


def _remove_unfinished(out: Path) -> None:
    """Remove the unfinished files of runs that were killed."""
    for path in (*out.glob(".*"), *out.glob("checkpoint/.*")):
        if is_unfinished(path):
            remove(path)


def append_metrics(
    out: Path, epoch: int, machines: Sequence[str], info: Mapping[str, np.ndarray]
) -> None:
    """Append a line to `metrics.jsonl`: an epoch's values, by machine and member.

    The arrays in `info` have axes `member machine ...`. Values that are not finite
    become null.
    """
    entry = {
        machine: {
            name: [_numbers(value) for value in values[:, m]]
            for name, values in info.items()
        }
        for m, machine in enumerate(machines)
    }
    path = out / "metrics.jsonl"
    with (
        writing(out, resumable=True),
        path.open("a", encoding="utf-8", newline="") as file,
    ):
        file.write(json.dumps({"epoch": epoch, "machines": entry}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def last_epoch(out: Path) -> dict[str, dict[str, Any]]:
    """Return the last epoch's metrics by machine, or {} if there are no epochs."""
    lines = read_metrics(out)
    return lines[-1]["machines"] if lines else {}


def _is_run(out: Path) -> bool:
    """Return whether a folder has a `config.json` that this package wrote."""
    try:
        config = read_json(out / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"preset", "train", "model"} <= config.keys()


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """Read the complete lines of `metrics.jsonl`, skipping damaged ones."""
    path = out / "metrics.jsonl"
    text = read_text(path, errors="replace") if path.exists() else ""
    entries = []
    for line in text.splitlines(keepends=True):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = parse_json(line)
            if line[-1] == "\n" and isinstance(entry["machines"], dict):
                entries.append({**entry, "epoch": int(entry["epoch"])})
    return entries


def _numbers(value: Any) -> Any:
    """Convert values to the shortest decimals that read back as the same float32."""
    if np.ndim(value):
        return [_numbers(v) for v in value]
    if isinstance(value, np.bool_):
        return bool(value)
    return finite(float(str(value)))
