"""Publishes the results of a run atomically, with a summary and its environment.

Results are written to a subfolder, which is renamed when it is complete. From then on
they are treated as published and are moved to their final paths one by one.
"""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict, to_json
from gammavae_jax.errors import writing
from gammavae_jax.evaluation.csv_files import results_csv
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.evaluation.tables import summarise_rows
from gammavae_jax.files import remove, sync_folder, write_text
from gammavae_jax.models.gamma_sampler import gamma_sampler

_PACKAGES = (
    "gammavae-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tfp-nightly",
    "numpy",
    "scipy",
)
# If these exist, the files beside them are complete.
_MARKERS = ("summary.json", "checkpoint/detector.json")
_RESULTS = (
    *_MARKERS,
    "checkpoint/detector",
    "results.csv",
    "clips.csv",
    "report.html",
    "scores",
)
_NEW = ".results-new"  # results that are being written
_READY = ".results"  # complete results, not yet at their final paths


def has_results(out: Path) -> bool:
    """Return whether a folder holds the results of a run or an evaluation.

    This includes complete results of a process that was killed before it moved them: an
    evaluation has no training state from which to recompute them.
    """
    return any((out / name).exists() for name in (*_RESULTS, _READY))


def remove_results(out: Path) -> None:
    """Remove the results that `atomic_results` published."""
    for name in (*_RESULTS, _NEW, _READY):
        remove(out / name)


@contextlib.contextmanager
def atomic_results(out: Path, config: Config) -> Iterator[Path]:
    """Yield a folder for new results, which replace the old results after the block.

    If the block fails, the old results stay. If the process is killed during the
    replacement, only new results are left, and resuming the run completes the
    replacement.
    """
    new = out / _NEW
    with writing(out, resumable=True):
        remove(new)
        try:
            new.mkdir()
            write_config(new, config)
            yield new
            sync_folder(new)
            os.replace(new, out / _READY)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        put_in_place(out)


def put_in_place(out: Path) -> None:
    """Move complete results to their final paths and remove incomplete ones.

    If this is interrupted, the next call finishes the work.
    """
    remove(out / _NEW)
    ready = out / _READY
    if not ready.is_dir():
        return
    names = [name for name in _RESULTS if (ready / name).exists()]
    for name in names:  # the markers first: without them, nothing is complete
        remove(out / name)
    for name in ("config.json", *reversed(names)):  # the markers last
        if (ready / name).exists():
            (out / name).parent.mkdir(exist_ok=True)
            os.replace(ready / name, out / name)
    remove(ready)


def write_config(folder: Path, config: Config) -> None:
    """Write the configuration to `config.json`."""
    write_text(folder / "config.json", to_json(to_dict(config)), durable=True)


def write_results(
    out: Path,
    rows: Sequence[Row],
    about: Mapping[str, Any],
    notes: Sequence[str],
    year: int | None = None,
) -> None:
    """Write `results.csv` and `summary.json`.

    The summary includes `about`. `year` is the challenge year whose metrics the rows
    hold.
    """
    means = summarise_rows(rows, year) if rows else {}
    summary = {"year": year, **means, "notes": notes, **about}
    write_text(out / "results.csv", results_csv(rows))
    write_text(out / "summary.json", to_json(summary))


def describe_environment(sampler: str) -> dict[str, Any]:
    """Describe versions, devices, the commit, and the library that samples Gammas.

    `sampler` is `model.sampler`. None means unknown.
    """
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "sampler": gamma_sampler(sampler).library,
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "n_devices": len(devices),
        "processor": platform.machine(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _commit() -> str | None:
    """Return the commit of this checkout, followed by `+` if files were changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
