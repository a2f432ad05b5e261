"""A finished run, read back from its folder: to make its page anew."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.data.names import parse_clip_name
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.csv_files import ClipRow, read_clips_csv, read_results_csv
from gammavae_jax.evaluation.scored_clips import ScoredClips
from gammavae_jax.runs.checkpoint import refuse_fleet, restore_detector
from gammavae_jax.scoring.detector import Detector


class FinishedRun(NamedTuple):
    """What the folder of a run or of an evaluation tells."""

    detector: Detector
    machines: list[ScoredClips]
    rows: list[Any]  # of `results.csv`
    summary: Mapping[str, Any]  # `summary.json`
    data_root: Path | None  # where the recordings were


def read_run(folder: Path) -> FinishedRun:
    """Read the folder of a finished run or evaluation.

    Raises:
        InputError: it is none, or its checkpoint is not where it was.
    """
    refuse_fleet(folder)
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        rows = read_results_csv((folder / "results.csv").read_text(encoding="utf-8"))
        if not isinstance(summary, dict):
            raise ValueError
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(folder)!r} is no finished run: give the folder that a run wrote"
        ) from error
    clips = read_clips_csv(folder / "clips.csv")
    detector = restore_detector(_checkpoint_of(folder, summary))
    root = summary.get("data_root")
    return FinishedRun(
        detector,
        _scored_clips(clips, detector, folder),
        rows,
        summary,
        Path(root) if root else None,
    )


def _checkpoint_of(folder: Path, summary: Mapping[str, Any]) -> Path:
    """The run's own, or the one that an evaluation says it read."""
    places = [folder / "checkpoint", Path(summary.get("checkpoint", "checkpoint"))]
    for place in places:
        if (place / "detector.json").is_file():
            return place
    raise InputError(
        f"the checkpoint of {str(folder)!r} is not at {str(places[-1])!r} any more: "
        f"put it to {str(places[0])!r}"
    )


def _scored_clips(
    rows: Sequence[ClipRow], detector: Detector, folder: Path
) -> list[ScoredClips]:
    """The clips of each machine, in the order of the table.

    Raises:
        InputError: the table is of other scores or seeds than the detector's.
    """
    config = detector.config
    tables: dict[tuple[str, str], dict[tuple[str, int], dict[str, ClipRow]]] = {}
    for row in rows:
        of_machine = tables.setdefault((row.machine, row.section), {})
        of_machine.setdefault((row.score, row.seed), {})[row.clip] = row
    found = []
    for unit, table in tables.items():
        names = tuple(next(iter(table.values())))
        try:
            m = detector.machines.index(unit)
            columns = {
                score: [
                    [table[score, seed][name] for name in names]
                    for seed in config.seeds
                ]
                for score in config.scores
            }
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{str(folder / 'clips.csv')!r} is not of the checkpoint beside it: "
                "score the clips anew"
            ) from error
        said = [parse_clip_name(name) for name in names]
        found.append(
            ScoredClips(
                *unit,
                names,
                tuple(name.label for name in said),
                tuple(name.domain for name in said),
                {s: _values(c, "anomaly_score") for s, c in columns.items()},
                {s: detector.thresholds[s][:, m] for s in columns},
                {
                    s: _values(c, "p_value")
                    for s, c in columns.items()
                    if c[0][0].p_value is not None
                },
            )
        )
    return found


def _values(column: Sequence[Sequence[ClipRow]], field: str) -> np.ndarray:
    return np.array([[getattr(row, field) for row in seed] for seed in column])
