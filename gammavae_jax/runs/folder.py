"""The folder that a run leaves behind, and what may be in its way.

Every file is written whole, but for `metrics.jsonl`, which grows a line an epoch.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import from_dict
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.csv_files import results_csv
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.evaluation.tables import summarise_rows, to_json
from gammavae_jax.files import (
    FolderInUse,
    FolderLock,
    is_unfinished,
    remove,
    write_text,
    writing,
)
from gammavae_jax.runs.publish import (
    has_results,
    put_in_place,
    remove_results,
    write_config,
)

_LOCK = ".run-lock"


class RunFolder(NamedTuple):
    """Where a run writes, and what to do if something is there already."""

    path: Path
    resume: bool = False
    overwrite: bool = False


@contextlib.contextmanager
def held_folder(out: Path, resume: bool, overwrite: bool) -> Iterator[None]:
    """Keep every other run out of a folder, once it is known that it may be used.

    The lock ends with its process, however that ends.

    Raises:
        InputError: another run is in it, it cannot be written, or see `check_folder`.
    """
    if not (out / _LOCK).exists():
        check_folder(out, resume, overwrite)
    try:
        with writing(out):
            lock = FolderLock(out, _LOCK, stays=False)
    except FolderInUse as error:
        raise InputError(
            f"another run is writing to {str(out)!r}: wait until it is done, or give "
            "another --out"
        ) from error
    with lock:
        check_folder(out, resume, overwrite)
        yield


def check_folder(out: Path, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse a folder that is in use, unless it was said what to do with it.

    Raises:
        InputError: it has content and neither `resume` nor `overwrite` was said, or
            holds something that no run has written, or nothing to resume.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file: give another --out")
    found = list(out.iterdir()) if out.is_dir() else []
    content = [p for p in found if p.name != _LOCK and not is_unfinished(p)]
    if resume and not found:
        raise InputError(
            f"nothing to resume in {str(out)!r}: leave out --resume to begin a run"
        )
    if content and not resume and not overwrite:
        raise InputError(
            f"{str(out)!r} exists: say --overwrite (or --resume, to go on training), "
            "or give another --out"
        )
    if content and not _is_run(out):
        raise InputError(
            f"{str(out)!r} holds something else than a run: --overwrite will not "
            "remove it; give another --out"
        )


def begin_folder(out: Path, config: Config) -> None:
    """Make the folder, remove what an earlier run wrote, and write `config.json`.

    Raises:
        InputError: the folder cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        # First, and last to go: it marks the folder as a run's.
        write_config(out, config)
        _remove_remains(out)
        remove_results(out)
        # The plan first: without all of its waves it would be gone on with.
        for name in ("fleet.json", "waves", "checkpoint", "metrics.jsonl"):
            remove(out / name)


def is_finished(out: Path, config: Config | None = None) -> bool:
    """Whether a run was brought to its end here, with this configuration if given."""
    if not (out / "summary.json").is_file():  # which is put in its place last
        return False
    return config is None or read_config(out) == config


def read_config(out: Path) -> Config | None:
    """The configuration of the run in a folder; None if none has begun there.

    Raises:
        InputError: it is not one that this version can read.
    """
    path = out / "config.json"
    if not path.exists():
        return None
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(
            f"{str(path)!r} is damaged: restore a copy, or say --overwrite"
        ) from error


def resume_folder(out: Path, config: Config, epoch: int) -> list[int]:
    """Go back to where the training stood after an epoch.

    Results that are there stay, and so does the configuration that they are of, until
    `atomic_results` has new ones. Returns the epochs that `metrics.jsonl` lacks.

    Raises:
        InputError: the folder cannot be written.
    """
    settle_folder(out, config)
    kept = [line for line in read_metrics(out) if line["epoch"] <= epoch]
    with writing(out):
        lines = "".join(json.dumps(line) + "\n" for line in kept)
        write_text(out / "metrics.jsonl", lines, durable=True)
    return sorted({*range(1, epoch + 1)} - {line["epoch"] for line in kept})


def settle_folder(out: Path, config: Config) -> None:
    """End what a run that was killed had begun to put in its place.

    The configuration is written where there are no results of another one.

    Raises:
        InputError: the folder cannot be written.
    """
    with writing(out):
        put_in_place(out)
        _remove_remains(out)
        if not has_results(out):
            write_config(out, config)


def _remove_remains(out: Path) -> None:
    """What runs that were killed have left."""
    for folder in (out, out / "checkpoint"):
        for path in list(folder.iterdir()) if folder.is_dir() else ():
            if is_unfinished(path):
                remove(path)


def append_metrics(
    out: Path, epoch: int, machines: Sequence[str], info: Mapping[str, np.ndarray]
) -> None:
    """Add an epoch to `metrics.jsonl`: by machine, a list of each value over members.

    Members are seeds, or the folds of each seed in turn.

    `info` holds arrays `member machine ...`; what is not finite is written as null.

    Raises:
        InputError: the folder cannot be written.
    """
    entry = {
        machine: {
            name: [_numbers(value) for value in values[:, m]]
            for name, values in info.items()
        }
        for m, machine in enumerate(machines)
    }
    path = out / "metrics.jsonl"
    with writing(out), path.open("a", encoding="utf-8", newline="") as file:
        file.write(json.dumps({"epoch": epoch, "machines": entry}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def last_epoch(out: Path) -> dict[str, dict[str, Any]]:
    """By machine, what `metrics.jsonl` says of the last epoch; empty without one."""
    lines = read_metrics(out)
    return lines[-1]["machines"] if lines else {}


def write_results(
    out: Path,
    rows: Sequence[Row],
    about: Mapping[str, Any],
    notes: Sequence[str],
    year: int | None = None,
) -> None:
    """Write `results.csv` and `summary.json`.

    `about` is added to the summary: timing, environment and the like. `year` is the
    one whose metrics the rows hold; see `evaluate`.
    """
    summary = summarise_rows(rows, year) if rows else {}
    write_text(out / "results.csv", results_csv(rows))
    write_text(
        out / "summary.json",
        to_json({"year": year, **summary, "notes": notes, **about}),
    )


def _is_run(out: Path) -> bool:
    """Whether the folder has a `config.json` of ours."""
    try:
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"preset", "train", "model"} <= config.keys()


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The whole lines of `metrics.jsonl`; a run may have been killed in the last."""
    path = out / "metrics.jsonl"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    entries = []
    for line in text.splitlines(keepends=True):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            if line[-1] == "\n" and isinstance(entry["machines"], dict):
                entries.append({**entry, "epoch": int(entry["epoch"])})
    return entries


def _numbers(value: Any) -> Any:
    """The shortest number that reads back as the same float32, or a list of them."""
    if np.ndim(value):
        return [_numbers(v) for v in value]
    if isinstance(value, np.bool_):
        return bool(value)
    return float(str(value)) if np.isfinite(value) else None
