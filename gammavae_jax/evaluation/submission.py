"""Builds a challenge submission from a run folder.

The folder `<label>/` holds the files `anomaly_score_<machine>_section_<id>_test.csv`
and `decision_result_...csv` of one score and one seed, and `<label>.meta.yaml`. The
challenge expects these files in a zip file, together with the technical report.
"""

import csv
import io
import os
import re
import shutil
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.config import OFFICIAL_SCORES, Config
from gammavae_jax.config_json import from_dict, parse_json, read_json
from gammavae_jax.data.names import machine_and_section
from gammavae_jax.errors import InputError, unknown_name, writing
from gammavae_jax.evaluation.name_value_files import (
    Section,
    file_name,
    find_files,
    flags_by_clip,
    read_rows,
    require_files,
    values_by_clip,
)
from gammavae_jax.files import atomic_folder, open_regular, read_bytes, write_text

_KINDS = ("anomaly_score", "decision_result")
_LABEL = re.compile(r"[A-Za-z0-9-]+_[A-Za-z0-9-]+_task2_[1-4]")
_CLIP = re.compile(r"section_(?P<section>\d\d)_[^/\\]+\.wav")
_METHODS = {"deterministic": "AE", "gamma": "VAE", "gaussian": "VAE"}  # official tags
_FILL_IN = "FILL IN"


class Submission(NamedTuple):
    """A submission package that has been written."""

    folder: Path
    score: str
    seed: int
    n_sections: int


def write_submission(
    run: Path, out: Path, label: str, score: str | None = None, seed: int | None = None
) -> Submission:
    """Build a run's submission package and write it to `out/label` atomically.

    The score defaults to the run's headline score, and the seed to its first seed.

    Raises:
        InputError: the label is malformed, the run lacks the score or seed,
            `check_package` rejects a file, or the package cannot be written.
    """
    if not _LABEL.fullmatch(label):
        raise InputError(
            f"the label {label!r} is not of the form Author_Affiliation_task2_1 (the "
            "corresponding author's last name, the institute, an index from 1 to 4; "
            "names have only letters, digits and hyphens): pass a label of this form "
            "with --label"
        )
    target = out / label
    if os.path.lexists(target):
        raise InputError(
            f"{target} exists: choose another label, or another folder for --out"
        )
    config = _read_config(run)
    score, seed = _choose(config, score, seed)
    source, sections = run / "scores" / score / f"seed{seed}", _sections_of_run(run)
    check_package(source, sections)  # first, so that errors name the original files
    meta = meta_yaml(label, config, score, seed)
    with writing(target), atomic_folder(target) as package:
        for kind in _KINDS:
            for key, (path, *_) in find_files(source, kind).items():
                shutil.copyfile(path, package / file_name(kind, *key))
        write_text(package / f"{label}.meta.yaml", meta)
        check_package(package, sections)  # check the copies, too
    return Submission(target, score, seed, len(sections))


def check_package(folder: Path, sections: Collection[Section]) -> None:
    """Validate score and decision files as the organisers would.

    Every section of the run needs a score file and a decision file with the same clips.
    Clips must be named `section_<id>_*.wav` and be listed only once. Scores must be
    finite, and decisions must be 0 or 1.

    Raises:
        InputError: a file is missing or breaks a rule; the message names it.
    """
    scores, decisions = (find_files(folder, kind) for kind in _KINDS)
    require_files(scores, folder, "decision_result", decisions)
    require_files(decisions, folder, "anomaly_score", scores)
    for key in sorted(set(sections) - scores.keys()):
        problem = f"{folder} has no {file_name('anomaly_score', *key)}"
        raise InputError(
            f"{problem}, but the run includes {key[0]} section {key[1]}: score its "
            "test clips"
        )
    if not scores:
        raise InputError(f"{folder} has no anomaly_score_*.csv: finish the run first")
    for (machine, section), (path, *more) in scores.items():
        if more:
            raise InputError(
                f"{folder} has one file per domain for {machine} section {section}: "
                "put the clips of both domains into one file"
            )
        decision_path = decisions[machine, section][0]
        rows = read_rows(path)
        flags = read_rows(decision_path)
        for checked in (path, decision_path):
            _check_names(checked, section)
        clip_of = {clip: clip for clip in rows}
        values_by_clip(path, rows, clip_of)
        flags_by_clip(decision_path, flags, clip_of)


def _sections_of_run(run: Path) -> set[Section]:
    """Return all sections for which a run has trained models or scored clips."""
    folders = filter(Path.is_dir, (run / "scores").glob("*/seed*"))
    scored = {key for f in folders for key in find_files(f, "anomaly_score")}
    path = run / "metrics.jsonl"
    if not path.exists():
        return scored
    try:
        with io.TextIOWrapper(open_regular(path), "utf-8") as lines:
            first = next(lines, '{"machines": {}}')
        names = list(parse_json(first)["machines"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        problem = f"{path} was not written by a run"
        raise InputError(f"{problem}: pass another folder as RUN_OUT") from error
    trained = (machine_and_section(f"anomaly_score_{name}.csv") for name in names)
    return scored | {key for key in trained if key}


def meta_yaml(label: str, config: Config, score: str, seed: int) -> str:
    """Return the text of the meta file, with "FILL IN" where the run has no value."""
    n_models = str(config.n_folds) if config.n_folds > 1 else None
    is_mean = score in OFFICIAL_SCORES  # a mean over windows or rows
    # The fields of the Task 2 template of 2020; later templates were not available.
    template = files("gammavae_jax.evaluation").joinpath("submission_meta.yaml")
    return template.read_text(encoding="utf-8").format(
        source=f"preset {_scalar(config.preset)}, score {_scalar(score)}, seed {seed}",
        label=_scalar(label),
        sample_rate=_scalar(f"{config.features.sample_rate / 1000:g}kHz"),
        method=_scalar(_METHODS[config.model.latent]),
        aggregation=_scalar("average" if is_mean else _FILL_IN),
        subsystems=_scalar(n_models if is_mean else _FILL_IN),
    )


def _scalar(value: str | None) -> str:
    """Quote a value as a one-line YAML scalar, escaping special characters."""
    if value is None:
        return "!!null"
    characters = (
        c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value
    )
    return '"' + "".join(characters) + '"'


def _read_config(run: Path) -> Config:
    path = run / "config.json"
    try:
        return from_dict(read_json(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        remedy = "pass a run folder"
        raise InputError(f"{path} cannot be read: {remedy}") from error


def _choose(config: Config, score: str | None, seed: int | None) -> tuple[str, int]:
    """Choose the score and seed to submit."""
    score = config.score if score is None else score
    seed = config.seed if seed is None else seed
    if score not in config.scores:
        raise InputError(unknown_name("score of this run", score, config.scores))
    if seed not in config.seeds:
        raise InputError(unknown_name("seed of this run", seed, map(str, config.seeds)))
    return score, seed


def _check_names(path: Path, section: str) -> None:
    """Check the exact text of the clip names, including any byte order mark."""
    text = io.StringIO(read_bytes(path).decode("utf-8"), newline="")
    for line in filter(None, csv.reader(text)):
        match = _CLIP.fullmatch(line[0])
        if not match or match["section"] != section:
            raise InputError(
                f"{path}: the clip {line[0]!r} is not named section_{section}_*.wav: "
                "use the name that the challenge gave it"
            )
