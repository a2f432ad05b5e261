"""Read a finished run from its folder, to create its page again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.data.names import parse_clip_name
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.csv_files import ClipRow, read_clips_csv, read_results_csv
from gammavae_jax.runs.checkpoint import load_detector, refuse_fleet
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.scored_clips import ScoredClips


class FinishedRun(NamedTuple):
    """The content of the folder of a run or an evaluation."""

    detector: Detector
    machines: list[ScoredClips]
    rows: list[Any]  # `results.csv`
    summary: Mapping[str, Any]  # `summary.json`
    data_root: Path | None  # where the recordings were


def read_run(folder: Path) -> FinishedRun:
    """Read the folder of a finished run or evaluation, with its checkpoint."""
    refuse_fleet(folder)
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        rows = read_results_csv((folder / "results.csv").read_text(encoding="utf-8"))
        if not isinstance(summary, dict):
            raise ValueError
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(folder)!r} is not a finished run: give the folder that a run wrote"
        ) from error
    clips = read_clips_csv(folder / "clips.csv")
    detector = load_detector(_checkpoint_of(folder, summary))
    root = summary.get("data_root")
    return FinishedRun(
        detector,
        _scored_clips(clips, detector, folder),
        rows,
        summary,
        Path(root) if root else None,
    )


def _checkpoint_of(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Return the run's own checkpoint, or the one that an evaluation used."""
    places = [folder / "checkpoint", Path(summary.get("checkpoint", "checkpoint"))]
    for place in places:
        if (place / "detector.json").is_file():
            return place
    raise InputError(
        f"the checkpoint of {str(folder)!r} is no longer at {str(places[-1])!r}: "
        f"copy it to {str(places[0])!r}"
    )


def _scored_clips(
    rows: Sequence[ClipRow], detector: Detector, folder: Path
) -> list[ScoredClips]:
    """Return the clips of each machine, in the order of the table."""
    config = detector.config
    tables: dict[tuple[str, str], dict[tuple[str, int], dict[str, ClipRow]]] = {}
    for row in rows:
        of_machine = tables.setdefault((row.machine, row.section), {})
        of_machine.setdefault((row.score, row.seed), {})[row.clip] = row
    machines = []
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
                f"{str(folder / 'clips.csv')!r} does not match the checkpoint: score "
                "the clips again"
            ) from error
        parsed = [parse_clip_name(name) for name in names]
        machines.append(
            ScoredClips(
                *unit,
                names,
                tuple(name.label for name in parsed),
                tuple(name.domain for name in parsed),
                {s: _values(c, "anomaly_score") for s, c in columns.items()},
                {s: detector.thresholds[s][:, m] for s in columns},
                {
                    s: _values(c, "p_value")
                    for s, c in columns.items()
                    if c[0][0].p_value is not None
                },
                config.seeds,
            )
        )
    return machines


def _values(column: Sequence[Sequence[ClipRow]], field: str) -> np.ndarray:
    return np.array([[getattr(row, field) for row in seed] for seed in column])
