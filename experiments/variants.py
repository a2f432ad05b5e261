"""Runs of a comparison: each variant once, and trained models used again."""

import json
import shutil
from pathlib import Path

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.data.loading import Source, find_all, require_labels
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.tables import to_json
from gammavae_jax.files import write_text
from gammavae_jax.log import Log
from gammavae_jax.runs.folder import RunFolder, held_folder, is_finished
from gammavae_jax.runs.run import run

# Of the models that a variant takes from another one.
_TRAINING = ("metrics.jsonl", "checkpoint/train")


def run_variant(
    config: Config,
    source: Source,
    folder: RunFolder,
    year: int | None,
    models: Path | None,
    log: Log,
) -> bool:
    """Run a variant, resume it, or skip it if it is finished.

    Args:
        config: of the variant.
        source: the recordings.
        folder: where results go.
        year: the challenge whose metrics hold; default: what the layout says.
        models: the folder of a run whose trained models are scored again, if any.
        log: shows progress and the variant's own results.

    Returns whether every model was trained to the end.

    Raises:
        InputError: see `run`; the recordings have no labels; or the folder holds
            another run.
    """
    require_labels(find_all(source, ["test"]))
    path = folder.path / "config.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if known is not None and not folder.overwrite:
        if known != to_dict(config):
            raise InputError(
                f"{str(folder.path)!r} was made with other settings: use --overwrite, "
                "or give another --out"
            )
        if is_finished(folder.path):
            return True
        folder = folder._replace(resume=True)
    elif models is not None:
        with held_folder(*folder):
            pass  # no other run is in it, and it may be replaced
        _take_training(models, folder.path, config)
        folder = folder._replace(resume=True, overwrite=False)
    return run(config, source, folder, year, log)


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
