"""Reads the folder of a finished run and rebuilds its report page."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gammavae_jax.config_json import read_json
from gammavae_jax.data.clips import clip_spectrogram
from gammavae_jax.data.machines import find_clips, unit_name
from gammavae_jax.data.names import clip_stem, parse_clip_name
from gammavae_jax.errors import InputError, unknown_name, writing
from gammavae_jax.evaluation.csv_files import ClipRow, read_clips_csv, read_results_csv
from gammavae_jax.files import read_text
from gammavae_jax.log import Log
from gammavae_jax.report.page import Report
from gammavae_jax.report.pictures import Sound
from gammavae_jax.report.shown_clips import Loader
from gammavae_jax.runs.checkpoint import load_detector, refuse_fleet
from gammavae_jax.runs.publication import (
    complete_report,
    published_results,
    read_sound,
    write_run_page,
)
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.domains import rate_by_domain
from gammavae_jax.scoring.scored_clips import ScoredClips


def report_run(
    run: Path,
    path: Path,
    data_root: Path | None,
    names: Sequence[str],
    log: Log,
) -> None:
    """Rebuild the report page of a finished run and write it to `path`.

    The page shows pictures of the clips `names`, besides those chosen automatically.
    `data_root` is the folder of the recordings; by default, the one that the run used.
    If recordings are missing, the page shows a note instead of pictures, unless
    `data_root` or `names` was given; in that case, missing recordings are an error.

    Raises:
        InputError: the run is not finished, a name matches no clip, requested
            recordings are missing, or the page cannot be written.
    """
    detector, report, root = _read_run(run)
    first = [find_clip(name, report.machines) for name in names]
    root = data_root or root
    loaders, notes = [], list(report.notes)
    try:
        loaders = _loaders_from_files(detector, report.machines, root)
    except InputError as error:
        if data_root is not None or names:
            raise
        log.say(f"the page will have no pictures: {error}")
        notes.append("The recordings are missing, so there are no pictures of clips.")
    published = published_results(root, report.machines)
    report = complete_report(report._replace(notes=notes, published=published), run)
    with writing(path):
        write_run_page(path, report, detector, loaders, log, first)


def _read_run(folder: Path) -> tuple[Detector, Report, Path | None]:
    """Read a run's detector and report, and find the folder of its recordings."""
    refuse_fleet(folder)
    path = folder / "summary.json"
    try:
        summary = read_json(path)
        rows = read_results_csv(read_text(folder / "results.csv"))
        if not isinstance(summary, dict):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise InputError(
            f"{str(folder)!r} is not a finished run: pass the folder of a run that "
            "has finished"
        ) from error
    clips = read_clips_csv(folder / "clips.csv")
    detector = load_detector(_checkpoint_of(folder, summary))
    report = Report(
        detector.config,
        _scored_clips(clips, detector, folder),
        rows,
        summary.get("notes", []),
        year=summary.get("year"),
        about={n: summary[n] for n in ("timing", "environment") if n in summary},
    )
    root = summary.get("data_root")
    return detector, report, Path(root) if root else None


def _checkpoint_of(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Find a run's own checkpoint, or the checkpoint that an evaluation used."""
    places = [folder / "checkpoint", Path(summary.get("checkpoint", "checkpoint"))]
    for place in places:
        if (place / "detector.json").is_file():
            return place
    raise InputError(
        f"the checkpoint of {str(folder)!r} was not found at {str(places[-1])!r}: "
        f"if it was moved, copy it to {str(places[0])!r}"
    )


def _scored_clips(
    rows: Sequence[ClipRow], detector: Detector, folder: Path
) -> list[ScoredClips]:
    """Group the rows of a clip table by machine, keeping their order."""
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
        has_p_values = [s for s, c in columns.items() if c[0][0].p_value is not None]
        machines.append(
            ScoredClips(
                *unit,
                names,
                tuple(name.label for name in parsed),
                tuple(name.domain for name in parsed),
                {s: _values(c, "anomaly_score") for s, c in columns.items()},
                {s: detector.thresholds[s][:, m] for s in columns},
                {s: _values(columns[s], "p_value") for s in has_p_values},
                config.seeds,
                rate_by_domain(detector, m),
            )
        )
    return machines


def _values(column: Sequence[Sequence[ClipRow]], field: str) -> np.ndarray:
    return np.array([[getattr(row, field) for row in seed] for seed in column])


def _loaders_from_files(
    detector: Detector, machines: Sequence[ScoredClips], root: Path | None
) -> list[list[Loader]]:
    """Return, for each machine and clip, a function that loads the recording."""
    if root is None:
        raise InputError(
            "the run did not store the path of its recordings: pass --data-root"
        )
    features = detector.config.features

    def load(path: Path) -> tuple[np.ndarray, Sound]:
        of_clip = clip_spectrogram(path, detector.filterbank, features)
        return of_clip.log_mel, read_sound(path, features)

    paths = {
        (files.machine, files.section, file.path.name): file.path
        for machine in dict.fromkeys(clips.machine for clips in machines)
        for files in find_clips(root, machine, ["test"])
        for file in files.test
    }
    try:
        return [
            [partial(load, paths[t.machine, t.section, name]) for name in t.names]
            for t in machines
        ]
    except KeyError as error:
        raise InputError(
            f"the recording {error.args[0][-1]!r} is not in {str(root)!r}: set "
            "--data-root to the folder of the recordings that the run scored"
        ) from error


def find_clip(name: str, machines: Sequence[ScoredClips]) -> tuple[int, int]:
    """Find a clip by name; return the index of its machine and of the clip itself.

    A unique prefix of the name is enough. The machine may be given as well, as
    `machine/name`, and must be given if several machines have a clip of that name.
    """
    places = {
        (unit_name(table.machine, table.section), clip): (m, c)
        for m, table in enumerate(machines)
        for c, clip in enumerate(table.names)
    }
    names = {place: (place[1], "/".join(place)) for place in places}
    matches = [p for p in places if name in (*names[p], clip_stem(p[1]))]
    matches = matches or [
        p for p in places if any(n.startswith(name) for n in names[p])
    ]
    if not matches:
        raise InputError(unknown_name("clip", name, [clip for _, clip in places]))
    if len(matches) > 1:
        units = " and ".join(unit for unit, _ in matches)
        raise InputError(
            f"the clip {name!r} exists in {units}: pass MACHINE_section_ID/{name}"
        )
    return places[matches[0]]
