"""The package of a challenge entry: checked, copied from a run's folder, described.

`<label>/` holds `anomaly_score_<machine>_section_<id>_test.csv` and
`decision_result_...csv` of one score and seed, and `<label>.meta.yaml`. The challenge
wants them in a zip file, beside the technical report.
"""

import csv
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.config import OFFICIAL_SCORES, Config
from gammavae_jax.config_json import from_dict
from gammavae_jax.data.score_file_names import machine_and_section
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.evaluation.rows import (
    find_files,
    flags_by_clip,
    read_rows,
    require_files,
    values_by_clip,
)
from gammavae_jax.files import write_text

_KINDS = ("anomaly_score", "decision_result")
_LABEL = re.compile(r"[A-Za-z0-9-]+_[A-Za-z0-9-]+_task2_[1-4]")
_CLIP = re.compile(r"section_(?P<section>\d\d)_[^/\\]+\.wav")
_METHODS = {"deterministic": "AE", "gamma": "VAE", "gaussian": "VAE"}  # challenge tags
_MEANS = OFFICIAL_SCORES  # over windows or rows
_FILL_IN = "FILL IN"

# The fields of Task 2's own template of 2020; the later ones were not at hand.
_META = """\
# Written by `gammavae submit`: {source}.
# Replace every "FILL IN"; !!null says that there is none. Compare the fields with the
# template of this year's challenge.
submission:
  label: {label}
  name: "FILL IN"  # of the system, for the tables of results
  abbreviation: "FILL IN"  # of the name, 10 characters at most
  authors:  # in the report's order; one of them is the corresponding one
    - lastname: "FILL IN"
      firstname: "FILL IN"
      email: "FILL IN"
      corresponding: true
      affiliation:
        institution: "FILL IN"
        department: "FILL IN"
        location: "FILL IN"  # city, country
system:
  description:
    input_sampling_rate: {sample_rate}
    data_augmentation: !!null
    front_end: !!null
    acoustic_features: "log-mel energies"
    embeddings: !!null
    machine_learning_method: {method}
    aggregation_method: {aggregation}
    ensemble_method_subsystem_count: {subsystems}
    decision_making: {subsystems}  # in an ensemble
    external_data_usage: !!null
    development_data_usage: "FILL IN"  # such as development, pre-training
  complexity:
    total_parameters: "FILL IN"  # a number
  external_datasets: !!null  # or a list of name and url
  source_code: "FILL IN"  # a URL, or !!null
results:
  # For each machine of the development set, in percent: `results.csv` of a run there.
  development_dataset: "FILL IN"
"""


class Submission(NamedTuple):
    """A package that was written."""

    folder: Path
    score: str
    seed: int
    n_sections: int


def write_submission(
    run: Path, out: Path, label: str, score: str | None = None, seed: int | None = None
) -> Submission:
    """Write the package `out/label` from a run's folder, whole or not at all.

    The run's headline score and first seed are taken unless others are named.

    Raises:
        InputError: a label of another form, a package that exists, a folder that no
            run wrote, a score or seed that it lacks, files that `check_package`
            refuses, or a package that cannot be written.
    """
    _check_label(label)
    target = out / label
    if os.path.lexists(target):
        raise InputError(f"{target} exists: give another --label or --out")
    config = _read_config(run)
    score, seed = _choose(config, score, seed)
    source, sections = run / "scores" / score / f"seed{seed}", sections_of_run(run)
    check_package(source, sections)  # first: messages name files that last
    meta = meta_yaml(label, config, score, seed)
    try:
        _write_package(target, source, sections, meta)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{target} cannot be written ({reason}): give another --out"
        ) from error
    return Submission(target, score, seed, len(sections))


def check_package(folder: Path, sections: Collection[tuple[str, str]]) -> None:
    """Check score and decision files as the organisers would.

    Every score file must have its decision file, with the same clips in it, and the
    other way round; clips are called `section_<id>_*.wav` and come once; scores are
    finite, and decisions 0 or 1.

    Args:
        folder: of the files.
        sections: machines and sections that must be there.

    Raises:
        InputError: the first file in which this is not so.
    """
    scores, decisions = (find_files(folder, kind) for kind in _KINDS)
    require_files(scores, folder, "decision_result", decisions)
    require_files(decisions, folder, "anomaly_score", scores)
    for machine, section in sorted(set(sections) - scores.keys()):
        raise InputError(
            f"{folder} has no anomaly_score_{machine}_section_{section}_test.csv, but "
            "the run has that machine: score its test clips again"
        )
    if not scores:
        raise InputError(f"{folder} has no anomaly_score_*.csv: let the run end")
    for (machine, section), (path, *more) in scores.items():
        if more:
            raise InputError(
                f"{folder} has a file for each domain of {machine} section {section}: "
                "put the clips of both into one"
            )
        _check_section(section, path, decisions[machine, section][0])


def sections_of_run(run: Path) -> set[tuple[str, str]]:
    """Machines and sections that a run trained, or scored under any score and seed.

    Raises:
        InputError: `metrics.jsonl` is there and cannot be read, or a score file's name
            does not tell its section.
    """
    found = {
        key
        for folder in filter(Path.is_dir, (run / "scores").glob("*/seed*"))
        for key in find_files(folder, "anomaly_score")
    }
    names = (machine_and_section(f"anomaly_score_{n}.csv") for n in _trained(run))
    return found | {key for key in names if key}


def meta_yaml(label: str, config: Config, score: str, seed: int) -> str:
    """The meta file: what the run tells is filled in, the rest marked "FILL IN"."""
    is_mean = score in _MEANS
    return _META.format(
        source=f"preset {_scalar(config.preset)}, score {_scalar(score)}, seed {seed}",
        label=_scalar(label),
        sample_rate=_scalar(f"{config.features.sample_rate / 1000:g}kHz"),
        method=_scalar(_METHODS[config.model.latent]),
        aggregation=_scalar("average" if is_mean else _FILL_IN),
        subsystems=_scalar(_subsystems(config) if is_mean else _FILL_IN),
    )


def _subsystems(config: Config) -> str | None:
    """How many models a score is the mean over; None of one."""
    return str(config.n_folds) if config.n_folds > 1 else None


def _scalar(value: str | None) -> str:
    """A YAML scalar on one line, also inside a comment: no name can end it."""
    if value is None:
        return "!!null"
    characters = (
        c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value
    )
    return '"' + "".join(characters) + '"'


def _check_label(label: str) -> None:
    if not _LABEL.fullmatch(label):
        raise InputError(
            f"the label {label!r} has not the form Author_Affiliation_task2_1 (the "
            "corresponding author's last name, the institute, an index from 1 to 4; "
            "letters, digits and hyphens): give another --label"
        )


def _read_config(run: Path) -> Config:
    path = run / "config.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: give the folder that a run wrote"
        ) from error
    try:
        return from_dict(tree)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _choose(config: Config, score: str | None, seed: int | None) -> tuple[str, int]:
    """The score and seed to hand in."""
    score = config.score if score is None else score
    seed = config.seed if seed is None else seed
    if score not in config.scores:
        raise InputError(unknown_name("score of this run", score, config.scores))
    if seed not in config.seeds:
        raise InputError(unknown_name("seed of this run", seed, map(str, config.seeds)))
    return score, seed


def _trained(run: Path) -> list[str]:
    """`<machine>_section_<id>` of what was trained; an evaluation trains nothing."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8") as lines:
            return list(json.loads(next(lines, '{"machines": {}}'))["machines"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not as a run writes it: give another RUN_OUT"
        ) from error


def _write_package(
    target: Path, source: Path, sections: Collection[tuple[str, str]], meta: str
) -> None:
    unfinished = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    try:
        unfinished.mkdir(parents=True)
        for kind in _KINDS:
            for (machine, section), (path, *_) in find_files(source, kind).items():
                name = f"{kind}_{machine}_section_{section}_test.csv"
                shutil.copyfile(path, unfinished / name)
        write_text(unfinished / f"{target.name}.meta.yaml", meta)
        check_package(unfinished, sections)  # what is handed in is what was checked
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_section(section: str, score_path: Path, decision_path: Path) -> None:
    rows, decisions = read_rows(score_path), read_rows(decision_path)
    for path in (score_path, decision_path):
        _check_names(path, section)
    clip_of = {clip: clip for clip in rows}
    values_by_clip(score_path, rows, clip_of)
    flags_by_clip(decision_path, decisions, clip_of)


def _check_names(path: Path, section: str) -> None:
    """Refuse clips of other names; a byte order mark would be part of the first."""
    text = io.StringIO(path.read_bytes().decode("utf-8"), newline="")
    for line in filter(None, csv.reader(text)):
        match = _CLIP.fullmatch(line[0])
        if not match or match["section"] != section:
            raise InputError(
                f"{path}: the clip {line[0]!r} is not called section_{section}_*.wav: "
                "give it the challenge's name"
            )
