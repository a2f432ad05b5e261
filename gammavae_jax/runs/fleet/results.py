"""Combines the results of a fleet's waves.

To save memory, tables are copied in blocks, means are computed for one score at a time,
and only one row per machine is kept in memory.
"""

import csv
import io
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from gammavae_jax.config import Config
from gammavae_jax.config_json import read_json, to_json
from gammavae_jax.evaluation.csv_files import row_of, unescape_formula
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.evaluation.tables import by_seed, percent, summarise_scores
from gammavae_jax.files import atomic_write, open_regular
from gammavae_jax.log import Log
from gammavae_jax.report.fleet_page import MachineLine, write_fleet_page
from gammavae_jax.runs.fleet.plan import WavePlan, wave_folder, wave_folders
from gammavae_jax.runs.folder import last_epoch
from gammavae_jax.runs.publication import Origin
from gammavae_jax.runs.result_files import atomic_results

_STAGES = ("features_s", "compile_s", "train_s", "fit_s", "score_s")


def write_fleet_results(
    config: Config, origin: Origin, plan: WavePlan, out: Path, log: Log
) -> bool:
    """Publish the combined results of all waves and print the official scores.

    Returns:
        Whether all models finished training.
    """
    folders = wave_folders(out, plan)
    with atomic_results(out, config) as results:
        _gather_score_files(folders, results)
        for name in ("results.csv", "clips.csv"):
            join_tables([folder / name for folder in folders], results / name)
        notes = (note for each in _summaries(folders) for note in each["notes"])
        log.notes += dict.fromkeys(note for note in notes if note not in log.notes)
        means = summarise_results(results / "results.csv", config.scores, origin.year)
        about = {
            "year": origin.year,
            **means,
            "notes": log.notes,
            "waves": len(folders),
            **_totals(folders),
            "data_root": str(origin.data_root.resolve()),
        }
        _write_summary(results / "summary.json", about, folders)
        lines = list(_machine_lines(config, results, plan))
        write_fleet_page(results / "report.html", config, lines, means, log.notes)
    for score in sorted(means["official_score"], key=lambda s: s != config.score):
        official = percent(means["official_score"][score])
        log.show(f"official score ({score}): {official}")
    log.say(f"written to {out}")
    return not any(_has_stopped(folder) for folder in folders)


def join_tables(paths: Sequence[Path], target: Path) -> None:
    """Join the waves' tables into the table that a single run would write.

    The first two columns are `seed` and `score`. The rows of each seed and score stay
    together, in the order of the tables.

    Raises:
        OSError: a table is missing, or the target cannot be written.
    """
    blocks: dict[bytes, list[tuple[Path, int, int]]] = {}  # path, first byte and length
    for path in paths:
        with open_regular(path) as file:
            first = len(file.readline())
            # Each line is a row, because names contain no line breaks.
            for key, lines in groupby(file, lambda n: b",".join(n.split(b",", 2)[:2])):
                length = sum(map(len, lines))
                blocks.setdefault(key, []).append((path, first, length))
                first += length
    with atomic_write(target) as joined:
        with open_regular(paths[0]) as file:
            joined.write(file.readline())
        for path, first, length in chain.from_iterable(blocks.values()):
            with open_regular(path) as file:
                file.seek(first)
                joined.write(file.read(length))


def summarise_results(
    path: Path, scores: Sequence[str], year: int | None
) -> dict[str, Any]:
    """Apply `summarise_scores` to a table of results, reading it once per score."""
    parts = summarise_scores({}, year)
    for score in scores:
        seeds = by_seed(_rows(path, score), score)
        if seeds:
            for name, of_score in summarise_scores({score: seeds}, year).items():
                parts[name] |= of_score
    return parts


def _rows(path: Path, score: str) -> Iterator[Row]:
    with io.TextIOWrapper(open_regular(path), "utf-8", newline="") as file:
        for fields in csv.DictReader(file):
            if fields["score"] == score:
                yield row_of(fields)


def _gather_score_files(folders: Sequence[Path], out: Path) -> None:
    """Collect all waves' score files in one folder, as the challenge requires.

    They are hard-linked if the file system allows it, which saves disk space.
    """
    for folder in folders:
        for path in sorted((folder / "scores").rglob("*.csv")):
            target = out / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            with suppress(OSError):
                os.link(path, target)
                continue
            shutil.copyfile(path, target)


def _summaries(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield the content of each wave's `summary.json`, read one at a time."""
    for folder in folders:
        yield read_json(folder / "summary.json")


def _totals(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the total times of all waves, and the environment of the last wave."""
    timing: dict[str, float] = dict.fromkeys(_STAGES, 0.0)
    n_windows, environment = 0.0, None
    for summary in _summaries(folders):
        seconds, environment = summary["timing"], summary["environment"]
        for stage in _STAGES:
            timing[stage] += seconds.get(stage, 0.0)
        n_windows += seconds.get("windows_per_s", 0.0) * seconds.get("train_s", 0.0)
    timing["windows_per_s"] = n_windows / max(timing["train_s"], 1e-9)
    return {"timing": timing, "environment": environment}


def _write_summary(path: Path, about: dict[str, Any], folders: Sequence[Path]) -> None:
    """Write `summary.json`, reading the entries of the machines wave by wave."""
    head = to_json(about).rstrip().removesuffix("}").rstrip()
    with atomic_write(path) as file:
        file.write((head + ',\n  "machines": {').encode())
        comma = ""
        for summary in _summaries(folders):
            for machine, of_machine in summary.get("machines", {}).items():
                text = json.dumps(of_machine, indent=2).replace("\n", "\n    ")
                file.write(f"{comma}\n    {json.dumps(machine)}: {text}".encode())
                comma = ","
        file.write(b"\n  }\n}\n")


def _machine_lines(config: Config, out: Path, plan: WavePlan) -> Iterator[MachineLine]:
    """Yield each machine's row for the page; unlabelled machines have no metrics."""
    wave_of = {m: number for number, wave in enumerate(plan.waves) for m in wave}
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in _rows(out / "results.csv", config.score):
        rows[row.machine, row.section].append(row)
    n_clips, n_alarms = Counter(), Counter()
    path = out / "clips.csv"
    with io.TextIOWrapper(open_regular(path), "utf-8", newline="") as file:
        for fields in csv.DictReader(file):
            if (fields["score"], int(fields["seed"])) == (config.score, config.seed):
                unit = fields["machine"], fields["section"]
                n_clips[unit] += 1
                n_alarms[unit] += int(fields["decision"])
    for cells, n in n_clips.items():
        unit = unescape_formula(cells[0]), unescape_formula(cells[1])
        folder = wave_folder(out, wave_of[unit[0]])
        link = (folder / "report.html").relative_to(out).as_posix()
        yield MachineLine(*unit, link, n, n_alarms[cells], rows[unit])


def _has_stopped(folder: Path) -> bool:
    """Return whether any model in a wave stopped training early."""
    last = last_epoch(folder) if (folder / "metrics.jsonl").exists() else {}
    return any(any(entry["is_stopped"]) for entry in last.values())
