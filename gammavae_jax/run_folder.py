"""The folder that a run leaves behind, and what may be in its way.

Every file is written whole, but for `metrics.jsonl`, which grows a line an epoch.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import from_dict, to_dict
from gammavae_jax.errors import InputError
from gammavae_jax.evaluate import Row
from gammavae_jax.files import write_text
from gammavae_jax.report import results_csv, summarise_rows, to_json

# The detector's mark goes first: without it the rest of a checkpoint is not read.
_RESULTS = (
    "checkpoint/detector.json",
    "checkpoint/detector",
    "results.csv",
    "clips.csv",
    "summary.json",
    "report.html",
    "scores",
)


def check_folder(out: Path, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse a folder that is in use, unless it was said what to do with it.

    Raises:
        InputError: it has content and neither `resume` nor `overwrite` was said, or
            holds something that no run has written, or nothing to resume.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file: give another --out")
    content = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if resume and not content:
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
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        # First, and last to go: it marks the folder as a run's.
        write_text(out / "config.json", to_json(to_dict(config)))
        # A plan without all of its waves would be gone on with.
        _remove(out, ("fleet.json", "waves", *_RESULTS, "metrics.jsonl", "checkpoint"))


def has_results(out: Path) -> bool:
    """Whether a run or an evaluation was brought to its end here."""
    return any((out / name).exists() for name in _RESULTS)


def is_finished(out: Path, config: Config | None = None) -> bool:
    """Whether a run was brought to its end here, with this configuration if given."""
    if not (out / "report.html").is_file():  # which is written last
        return False
    return config is None or read_config(out) == config


def take_results_away(out: Path, config: Config) -> None:
    """Go back to a run that has no results yet.

    Raises:
        InputError: the folder cannot be written.
    """
    with _writing(out):
        write_text(out / "config.json", to_json(to_dict(config)))
        _remove(out, _RESULTS)


def read_config(out: Path) -> Config:
    """The configuration of the run in a folder.

    Raises:
        InputError: it is not one that this version can read.
    """
    return from_dict(json.loads((out / "config.json").read_text(encoding="utf-8")))


def resume_folder(out: Path, config: Config, epoch: int) -> None:
    """Go back to where the folder stood after an epoch, results taken away.

    Raises:
        InputError: the folder cannot be written.
    """
    kept = [line for line in read_metrics(out) if line["epoch"] <= epoch]
    take_results_away(out, config)
    with _writing(out):
        write_text(out / "metrics.jsonl", "".join(json.dumps(k) + "\n" for k in kept))


def append_metrics(
    out: Path, epoch: int, machines: Sequence[str], info: Mapping[str, np.ndarray]
) -> None:
    """Add an epoch to `metrics.jsonl`: by machine, a list of each value over members.

    Members are seeds, or the folds of each seed in turn.

    `info` holds arrays `member machine ...`; what is not finite is written as null.
    """
    entry = {
        machine: {
            name: [_numbers(value) for value in values[:, m]]
            for name, values in info.items()
        }
        for m, machine in enumerate(machines)
    }
    with (out / "metrics.jsonl").open("a", encoding="utf-8", newline="") as file:
        file.write(json.dumps({"epoch": epoch, "machines": entry}) + "\n")


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


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn a failure to write into a message for the user."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{str(out)!r} cannot be written ({reason}): give another --out"
        ) from error


def _is_run(out: Path) -> bool:
    """Whether the folder has a `config.json` of ours."""
    try:
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"preset", "train", "model"} <= config.keys()


def _remove(out: Path, names: Sequence[str]) -> None:
    for path in (out / name for name in names):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The whole lines of `metrics.jsonl`; a run may have been killed in the last."""
    path = out / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [
        json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"
    ]


def _numbers(value: Any) -> Any:
    """The shortest number that reads back as the same float32, or a list of them."""
    if np.ndim(value):
        return [_numbers(v) for v in value]
    if isinstance(value, np.bool_):
        return bool(value)
    return float(str(value)) if np.isfinite(value) else None
