"""Runs of a comparison: each variant once, and trained models used again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.data.loading import Job, find_all, require_labels
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.tables import to_json
from gammavae_jax.files import write_text
from gammavae_jax.log import Log
from gammavae_jax.runs.folder import held_folder, is_finished
from gammavae_jax.runs.run import run_experiment

# Of the models that a variant takes from another one.
_TRAINING = ("metrics.jsonl", "checkpoint/train")


def run_variant(
    config: Config, job: Job, models: Path | None, console: Console, table: Console
) -> bool:
    """Run a variant in `job.out`, unless it has been; go on with one half done.

    Args:
        config: of the variant.
        job: what it works on.
        models: the folder of a run whose trained models are scored anew, if any.
        console: for progress.
        table: for the variant's own table of results.

    Returns whether every model could be trained to the end.

    Raises:
        InputError: see `run_experiment`; recordings without labels; or another run
            is in the folder.
    """
    require_labels(find_all(job, ["test"]))
    path = job.out / "config.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if known is not None and not job.overwrite:
        if known != to_dict(config):
            raise InputError(
                f"{str(job.out)!r} was made with other settings: say --overwrite, or "
                "give another --out"
            )
        if is_finished(job.out):
            return True
        job = replace(job, resume=True)
    elif models is not None:
        with held_folder(job.out, resume=False, overwrite=job.overwrite):
            pass  # no other run is in it, and it may be replaced
        _take_training(models, job.out, config)
        job = replace(job, resume=True, overwrite=False)
    return run_experiment(config, job, Log(console), table)


def _take_training(models: Path, out: Path, config: Config) -> None:
    """Make `out` what it would be after the training of another run, whole or not."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    for folder in (unfinished, out):
        if folder.exists():
            shutil.rmtree(folder)
    for name in _TRAINING:
        source, copy = models / name, unfinished / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, copy)
    write_text(unfinished / "config.json", to_json(to_dict(config)))
    unfinished.rename(out)
