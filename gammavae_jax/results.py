"""From test clips to the files and the table of a run."""

from pathlib import Path

import numpy as np
from rich.console import Console

from gammavae_jax.config import Config
from gammavae_jax.dataset import is_anomaly, is_target, stack_machines
from gammavae_jax.detector import Detector, Scores, score_clips
from gammavae_jax.environment import describe_environment
from gammavae_jax.evaluate import Row, evaluate_scores
from gammavae_jax.job import Job, NamedClips
from gammavae_jax.log import Log
from gammavae_jax.parallel import Layout
from gammavae_jax.published import REPORT_TABLE_2, is_dcase2024_development_set
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
    with log.timed("score_s"):
        arrays = stack_machines(test, config.features.n_context)
        scores = score_clips(detector, layout, arrays)
        _write_score_files(detector, scores, test, job.out / "scores")
    rows = _evaluate(detector, scores, test)
    published = {}
    if is_synthetic(job.data_root):
        log.notes.insert(0, SYNTHETIC_NOTE)
    elif is_dcase2024_development_set(job.data_root, job.machines):
        published = REPORT_TABLE_2
    if len(rows) < len(config.scores) * len(config.seeds) * len(test):
        log.note("Clips without a label in their name were scored, not evaluated.")
    about = {"timing": log.seconds, "environment": describe_environment()}
    write_results(job.out, config, rows, about, log.notes, published)
    if rows:
        _print_results(rows, config, log, table, published)
    log.say(f"written to {job.out}")


def _write_score_files(
    detector: Detector, scores: Scores, test: NamedClips, folder: Path
) -> None:
    for (score, seed), (m, (machine, section)) in (
        ((score, s), unit)
        for score in scores
        for s in range(len(detector.config.seeds))
        for unit in enumerate(detector.machines)
    ):
        target = folder / score / f"seed{detector.config.seeds[seed]}"
        target.mkdir(parents=True, exist_ok=True)
        names = [file.path.name for file in test[m][1].files]
        values = scores[score][seed, m, : len(names)]
        decisions = values > detector.thresholds[score][seed, m]
        write_scores(target, machine, section, names, values)
        write_decisions(target, machine, section, names, decisions)


def _evaluate(detector: Detector, scores: Scores, test: NamedClips) -> list[Row]:
    """A row for each seed, score and machine whose test clips are labelled."""
    rows = []
    for s, seed in enumerate(detector.config.seeds):
        for score in detector.config.scores:
            for m, (machine, section) in enumerate(detector.machines):
                files = test[m][1].files
                labels = is_anomaly(files)
                if labels is None:
                    continue
                row = evaluate_scores(
                    scores[score][s, m, : len(files)].astype(np.float64),
                    labels,
                    is_target(files),
                    threshold=float(detector.thresholds[score][s, m]),
                    machine=machine,
                    section=section,
                    score=score,
                    seed=seed,
                )
                rows.append(row)
    return rows


def _print_results(rows, config: Config, log: Log, table: Console, published) -> None:
    kind = "SYNTHETIC data; " if SYNTHETIC_NOTE in log.notes else ""
    title = f"{kind}preset {config.preset}, score {config.score}, in percent"
    table.print(results_table(rows, config.score, title, published))
    official = summarise_rows(rows)["official_score"]
    for score in sorted(official, key=lambda name: name != config.score):
        Log(table).say(f"official score, {score}: {percent(official[score])}")
