"""From test clips to the files and the table of a run."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from gammavae_jax.clip_table import ClipRow, clips_csv
from gammavae_jax.config import Config
from gammavae_jax.dataset import is_anomaly, is_target, stack_machines
from gammavae_jax.detector import Detector, clip_p_values, compile_scores
from gammavae_jax.environment import describe_environment
from gammavae_jax.evaluate import Row, evaluate_scores
from gammavae_jax.files import write_text
from gammavae_jax.fusion import Scores
from gammavae_jax.job import Job, NamedClips
from gammavae_jax.layout import Layout
from gammavae_jax.log import Log
from gammavae_jax.published import (
    PUBLISHED_SCORE,
    REPORT_TABLE_2,
    is_dcase2024_development_set,
)
from gammavae_jax.report import percent, results_table, summarise_rows
from gammavae_jax.run_folder import write_results
from gammavae_jax.score_files import write_decisions, write_scores
from gammavae_jax.synthetic import is_synthetic

SYNTHETIC_NOTE = (
    "Synthetic data: seven made-up machines, no recordings. These numbers show that "
    "the program works, not how well it hears."
)


def score_and_report(
    detector: Detector,
    layout: Layout,
    test: NamedClips,
    job: Job,
    log: Log,
    table: Console,
) -> None:
    """Everything from the test clips on; the same for a run and an evaluation."""
    config = detector.config
    arrays = stack_machines(test, config.features.n_context)
    with log.timed("compile_s"):
        score = compile_scores(detector, layout, arrays)
    with log.timed("score_s"):
        scores = score()
    usable = _usable_machines(scores, test, log)
    _write_score_files(detector, scores, test, usable, job.out)
    rows = _evaluate(detector, scores, test, usable, job.year)
    published = {}
    if is_synthetic(job.data_root):
        log.notes.insert(0, SYNTHETIC_NOTE)
    elif is_dcase2024_development_set(job.data_root, job.machines):
        published = REPORT_TABLE_2
    for name, clips in test:
        if is_anomaly(clips.files) is None:
            log.note(
                f"{name} was scored, not evaluated, for not every test clip's name has "
                f"a label: see {job.out / 'scores'}."
            )
    about = {"timing": log.seconds, "environment": describe_environment()}
    write_results(job.out, config, rows, about, log.notes, published, job.year)
    if rows:
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


def _write_score_files(
    detector: Detector,
    scores: Scores,
    test: NamedClips,
    usable: Sequence[int],
    out: Path,
) -> None:
    """The challenge's files of each score and seed, and one table of all clips."""
    seeds, rows = detector.config.seeds, []
    for score, s, m in itertools.product(scores, range(len(seeds)), usable):
        machine, section = detector.machines[m]
        target = out / "scores" / score / f"seed{seeds[s]}"
        target.mkdir(parents=True, exist_ok=True)
        names = [file.path.name for file in test[m][1].files]
        values = scores[score][s, m, : len(names)]
        decisions = values > detector.thresholds[score][s, m]
        write_scores(target, machine, section, names, values)
        write_decisions(target, machine, section, names, decisions)
        chances = clip_p_values(detector, score, s, m, values)
        rows += [
            ClipRow(
                seeds[s],
                score,
                machine,
                section,
                name,
                float(values[c]),
                None if chances is None else float(chances[c]),
                int(decisions[c]),
            )
            for c, name in enumerate(names)
        ]
    write_text(out / "clips.csv", clips_csv(rows))


def _evaluate(
    detector: Detector,
    scores: Scores,
    test: NamedClips,
    usable: Sequence[int],
    year: int | None,
) -> list[Row]:
    """A row for each seed, score and machine whose test clips are labelled."""
    rows = []
    for s, seed in enumerate(detector.config.seeds):
        for score in detector.config.scores:
            for m in usable:
                machine, section = detector.machines[m]
                files = test[m][1].files
                labels = is_anomaly(files)
                if labels is None:
                    continue
                row = evaluate_scores(
                    scores[score][s, m, : len(files)].astype(np.float64),
                    labels,
                    is_target(files),
                    threshold=float(detector.thresholds[score][s, m]),
                    year=year,
                    machine=machine,
                    section=section,
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
