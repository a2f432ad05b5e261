"""From test clips to the files and the table of a run."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import Capacity, stack_machines
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.loading import Job, NamedClips
from gammavae_jax.data.machines import unit_name
from gammavae_jax.data.synthetic.dataset import is_synthetic
from gammavae_jax.devices.cluster import on_first
from gammavae_jax.devices.placement import Placement
from gammavae_jax.evaluation.csv_files import ClipRow, clips_csv
from gammavae_jax.evaluation.metrics import Row, ScoredClips, evaluate_scores
from gammavae_jax.evaluation.official import (
    PUBLISHED_SCORE,
    REPORT_TABLE_2,
    is_dcase2024_development_set,
)
from gammavae_jax.evaluation.score_files import write_decisions, write_scores
from gammavae_jax.evaluation.tables import percent, results_table, summarise_rows
from gammavae_jax.files import write_text, writing
from gammavae_jax.log import Log
from gammavae_jax.report.page import Report
from gammavae_jax.runs.checkpoint import save_detector
from gammavae_jax.runs.environment import describe_environment
from gammavae_jax.runs.folder import write_results
from gammavae_jax.runs.page import Loader, complete_report, read_sound, write_run_page
from gammavae_jax.runs.publish import atomic_results
from gammavae_jax.scoring.detector import Detector, clip_p_values, compile_scores
from gammavae_jax.scoring.fusion import Scores

SYNTHETIC_NOTE = (
    "Synthetic data: made-up machines, no recordings. These numbers show that "
    "the program works, not how well it hears."
)


def score_and_report(
    detector: Detector,
    placement: Placement,
    test: NamedClips,
    job: Job,
    log: Log,
    table: Console,
    checkpoint: Path | None = None,
    room: Capacity | None = None,
) -> None:
    """Everything from the test clips on; the same for a run and an evaluation.

    All files are there before any takes its place. The detector is saved with them,
    unless it comes from a checkpoint. The clips' arrays have at least the given room.

    Raises:
        InputError: the folder cannot be written; what was there before is still there.
    """
    config = detector.config
    arrays = stack_machines(test, config.features.n_context, room)
    with log.timed("compile_s"):
        score = compile_scores(detector, placement, arrays)
    with log.timed("score_s"):
        scores = score()
    del arrays
    usable = _usable_machines(scores, test, log)
    scored = [_scored_clips(detector, scores, test, m) for m in usable]
    rows = _evaluate(config, scored, job.year)
    published = {}
    if is_synthetic(job.data_root):
        log.notes.insert(0, SYNTHETIC_NOTE)
    elif is_dcase2024_development_set(job.data_root, job.machines):
        published = REPORT_TABLE_2
    for clips in scored:
        if clips.is_anomaly is None:
            name = unit_name(clips.machine, clips.section)
            log.note(
                f"{name} was scored, not evaluated, for not every test clip's name has "
                f"a label: see {job.out / 'scores'}."
            )
    about = {"timing": log.seconds, "environment": describe_environment()}
    sources = {
        "data_root": str(job.data_root.resolve()),
        "checkpoint": str((checkpoint or job.out / "checkpoint").resolve()),
    }
    report = complete_report(
        Report(config, scored, rows, log.notes, published, job.year, about=about),
        job.out,
    )
    load = [_loaders(detector, *test[m]) for m in usable]

    def write(results: Path) -> None:
        _write_score_files(config, scored, results)
        write_results(results, rows, {**about, **sources}, log.notes, job.year)
        write_run_page(results / "report.html", report, detector, load, log)

    with contextlib.ExitStack() as stack:
        new = atomic_results(job.out, config)
        results = Path(on_first(lambda: str(stack.enter_context(new))))
        if checkpoint is None:
            with writing(job.out):
                save_detector(results / "checkpoint", detector)
        on_first(lambda: write(results))
        on_first(stack.close)  # each in its place, or all processes hear that not
    if rows:  # last, for whoever reads it may go
        _print_results(rows, config, log, table, published, job.year)
    log.say(f"written to {job.out}")


def _usable_machines(scores: Scores, test: NamedClips, log: Log) -> list[int]:
    """Machines whose scores are all finite; one that diverged spoils no other."""
    usable = []
    for m, (name, clips) in enumerate(test):
        n = len(clips.files)
        if all(np.isfinite(values[:, m, :n]).all() for values in scores.values()):
            usable.append(m)
        else:
            log.note(f"{name}: its scores are not finite; it is left out.")
    return usable


def _scored_clips(
    detector: Detector, scores: Scores, test: NamedClips, m: int
) -> ScoredClips:
    """The test clips of one machine."""
    machine, section = detector.machines[m]
    files = test[m][1].files
    of_machine = {name: values[:, m, : len(files)] for name, values in scores.items()}
    chances = {
        name: [clip_p_values(detector, name, s, m, v) for s, v in enumerate(values)]
        for name, values in of_machine.items()
        if name in detector.calibration
    }
    return ScoredClips(
        machine,
        section,
        tuple(file.path.name for file in files),
        tuple(file.name.label for file in files),
        tuple(file.name.domain for file in files),
        of_machine,
        {name: detector.thresholds[name][:, m] for name in of_machine},
        {name: np.array(values) for name, values in chances.items()},
    )


def _loaders(detector: Detector, name: str, clips: Clips) -> list[Loader]:
    """How each clip of a machine is had: its log-mel is there, its sound is not."""
    features = detector.config.features
    return [
        lambda file=file, log_mel=log_mel: (log_mel, read_sound(file.path, features))
        for file, log_mel in zip(clips.files, clips.log_mels, strict=True)
    ]


def _write_score_files(
    config: Config, scored: Sequence[ScoredClips], out: Path
) -> None:
    """The challenge's files of each score and seed, and one table of all clips."""
    rows = []
    for score, s, clips in itertools.product(
        config.scores, range(len(config.seeds)), scored
    ):
        target = out / "scores" / score / f"seed{config.seeds[s]}"
        target.mkdir(parents=True, exist_ok=True)
        values, decisions = clips.scores[score][s], clips.decisions(score)[s]
        where = target, clips.machine, clips.section, clips.names
        write_scores(*where, values)
        write_decisions(*where, decisions)
        chances = clips.p_values[score][s] if score in clips.p_values else None
        rows += [
            ClipRow(
                config.seeds[s],
                score,
                clips.machine,
                clips.section,
                name,
                float(values[c]),
                None if chances is None else float(chances[c]),
                int(decisions[c]),
            )
            for c, name in enumerate(clips.names)
        ]
    write_text(out / "clips.csv", clips_csv(rows))


def _evaluate(
    config: Config, scored: Sequence[ScoredClips], year: int | None
) -> list[Row]:
    """A row for each seed, score and machine whose test clips are labelled."""
    rows = []
    for s, seed in enumerate(config.seeds):
        for score in config.scores:
            for clips in scored:
                labels = clips.is_anomaly
                if labels is None:
                    continue
                row = evaluate_scores(
                    clips.scores[score][s].astype(np.float64),
                    labels,
                    clips.is_target,
                    threshold=float(clips.thresholds[score][s]),
                    year=year,
                    machine=clips.machine,
                    section=clips.section,
                    score=score,
                    seed=seed,
                )
                rows.append(row)
    return rows


def _print_results(
    rows, config: Config, log: Log, table: Console, published, year: int | None
) -> None:
    kind = "SYNTHETIC data; " if SYNTHETIC_NOTE in log.notes else ""
    title = f"{kind}preset {config.preset}, score {config.score}, in percent"
    beside = published if config.score == PUBLISHED_SCORE else {}
    table.print(results_table(rows, config.score, title, beside))
    official = summarise_rows(rows, year)["official_score"]
    for score in sorted(official, key=lambda name: name != config.score):
        Log(table).say(f"official score, {score}: {percent(official[score])}")
