"""Writes, reads and evaluates the challenge's score and decision files.

`anomaly_score_<machine>_section_<id>_test.csv` and `decision_result_...csv` hold
`name,value` lines without a header. `name_value_files` finds and parses them;
`ground_truth` supplies labels.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.config_json import with_none
from gammavae_jax.data.names import clip_stem, require_names
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.ground_truth import (
    GroundTruth,
    read_truth,
    truth_from_names,
)
from gammavae_jax.evaluation.metrics import METRICS, Row, SectionScores, validate
from gammavae_jax.evaluation.name_value_files import (
    Section,
    file_name,
    find_files,
    flags_by_clip,
    join_paths,
    read_rows,
    refuse_duplicates,
    require_files,
    values_by_clip,
)
from gammavae_jax.evaluation.official import (
    arithmetic_means,
    harmonic_means,
    official_score,
)
from gammavae_jax.files import write_text


def write_scores(
    folder: str | Path,
    machine: str,
    section: str,
    names: Sequence[str],
    scores: Float[np.ndarray, "clip"],
) -> Path:
    """Write an anomaly-score file atomically and return its path.

    `names` are the clips' base names, including the suffix. A score is written as the
    shortest text that reads back as the same float32.

    Raises:
        InputError: a name is invalid or listed twice, or a score is not finite in
            float32.
    """
    with np.errstate(over="ignore"):
        singles = scores.astype(np.float32)
    for name, single in zip(names, singles, strict=True):
        if not np.isfinite(single):
            raise InputError(f"the score of {name!r} is {single}: it must be finite")
    texts = [str(single) for single in singles]
    return _write(Path(folder), "anomaly_score", machine, section, names, texts)


def write_decisions(
    folder: str | Path,
    machine: str,
    section: str,
    names: Sequence[str],
    decisions: Bool[np.ndarray, "clip"],
) -> Path:
    """Write a decision file (1: anomalous) in the same way as `write_scores`."""
    texts = [str(int(decision)) for decision in decisions]
    return _write(Path(folder), "decision_result", machine, section, names, texts)


def read_score_files(
    scores_dir: str | Path, ground_truth: str | Path | None = None
) -> list[SectionScores]:
    """Read the score files in a folder, sorted by machine and section.

    Labels and domains come from the clips' names, or from `ground_truth` (see
    `read_truth`). With `ground_truth`, score files may use the original names of clips
    or their new names, which include the labels. A clip without a domain is treated as
    source. Other files and subfolders are ignored.

    Raises:
        InputError: a file or clip is missing, duplicate, unknown or unreadable, or a
            section lacks normal or anomalous clips.
    """
    scores_dir = Path(scores_dir)
    score_files = find_files(scores_dir, "anomaly_score")
    if not score_files:
        raise InputError(
            f"{scores_dir} has no anomaly_score_*.csv files: pass the folder that "
            "contains them"
        )
    truths: dict[Section, GroundTruth] = {}
    if ground_truth is not None:
        truths = read_truth(Path(ground_truth))
        for machine, section in sorted(score_files.keys() - truths.keys()):
            raise InputError(
                f"{ground_truth} does not cover {machine} section {section}: remove "
                + join_paths(score_files[machine, section])
            )
        for key in sorted(truths.keys() - score_files.keys()):
            raise InputError(
                f"{scores_dir} has no {file_name('anomaly_score', *key)}, but "
                f"{ground_truth} covers that section: add the file"
            )
    decision_files = find_files(scores_dir, "decision_result")
    if decision_files:
        require_files(score_files, scores_dir, "decision_result", decision_files)
        require_files(decision_files, scores_dir, "anomaly_score", score_files)
    return [
        _read_section(*key, paths, decision_files.get(key), truths.get(key))
        for key, paths in score_files.items()
    ]


def summarise(rows: Sequence[Row], year: int | None = None) -> dict[str, Any]:
    """Return the official score, each section's metrics and their means.

    The result has JSON types; a value that cannot be computed is None.
    """
    tree = {
        "official_score": official_score(rows, year),
        "machines": {
            f"{row.machine}_section_{row.section}": {
                m: getattr(row, m) for m in METRICS
            }
            for row in rows
        },
        "arithmetic_means": arithmetic_means(rows),
        "harmonic_means": harmonic_means(rows),
    }
    return with_none(tree)


def _write(
    folder: Path,
    kind: str,
    machine: str,
    section: str,
    names: Sequence[str],
    texts: Sequence[str],
) -> Path:
    require_names(machine, section, names)
    path = folder / file_name(kind, machine, section)
    refuse_duplicates(path, map(clip_stem, names))
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(zip(names, texts, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, lines.getvalue())
    return path


def _read_section(
    machine: str,
    section: str,
    score_paths: tuple[Path, ...],
    decision_paths: tuple[Path, ...] | None,
    truth: GroundTruth | None,
) -> SectionScores:
    where, rows = join_paths(score_paths), read_rows(*score_paths)
    if truth is None:
        truth = truth_from_names(where, rows, section)
    scores = values_by_clip(where, rows, truth.clip_of)
    decisions = None
    if decision_paths is not None:
        rows = read_rows(*decision_paths)
        flags = flags_by_clip(join_paths(decision_paths), rows, truth.clip_of)
        decisions = np.array([flags[clip] for clip in truth.is_anomaly])
    result = SectionScores(
        machine,
        section,
        np.array([scores[clip] for clip in truth.is_anomaly]),
        np.array(list(truth.is_anomaly.values())),
        np.array([truth.is_target[clip] for clip in truth.is_anomaly]),
        decisions,
    )
    validate(result.scores, result.is_anomaly, result.is_target, where)
    return result
