"""New results of a run, which take the place of those before when all are there.

They are made in a folder of their own in the run's, which is renamed when it is whole;
from then on they count, and are put in their places one after the other.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.evaluation.tables import to_json
from gammavae_jax.files import remove, sync_folder, write_text, writing

# Who finds these takes what is beside them for whole.
_MARKS = ("summary.json", "checkpoint/detector.json")
_RESULTS = (
    *_MARKS,
    "checkpoint/detector",
    "results.csv",
    "clips.csv",
    "report.html",
    "scores",
)
_NEW = ".results-new"  # in the making
_READY = ".results"  # to be put in their places


def has_results(out: Path) -> bool:
    """Whether a run or an evaluation was brought to its end here."""
    return any((out / name).exists() for name in (*_RESULTS, _READY))


def remove_results(out: Path) -> None:
    """Remove what `atomic_results` has made.

    Raises:
        OSError: the folder cannot be written.
    """
    for name in (*_RESULTS, _NEW, _READY):
        remove(out / name)


@contextlib.contextmanager
def atomic_results(out: Path, config: Config) -> Iterator[Path]:
    """A folder for new results, which replace those of before when the block ends.

    If the block fails, those of before stay. A process that is killed while they are
    replaced leaves new ones alone, and what it has not come to is done on resuming.

    Raises:
        InputError: the folder cannot be written.
    """
    new = out / _NEW
    with writing(out):
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
    """Put results that are ready in their places; begun again, it goes on.

    Those that a run could not make to the end are removed.

    Raises:
        OSError: the folder cannot be written.
    """
    remove(out / _NEW)
    ready = out / _READY
    if not ready.is_dir():
        return
    names = [name for name in _RESULTS if (ready / name).exists()]
    for name in names:  # the marks first, so that nothing is taken for whole
        remove(out / name)
    for name in ("config.json", *reversed(names)):  # and last
        if (ready / name).exists():
            (out / name).parent.mkdir(exist_ok=True)
            os.replace(ready / name, out / name)
    remove(ready)


def write_config(folder: Path, config: Config) -> None:
    """Write `config.json`.

    Raises:
        OSError: the folder cannot be written.
    """
    write_text(folder / "config.json", to_json(to_dict(config)), durable=True)
