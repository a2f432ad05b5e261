"""Writes the results and the report page of a run or an evaluation."""

import contextlib
import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.config import Config, FeatureConfig
from gammavae_jax.data.audio.files import read_clip
from gammavae_jax.data.clips import Clips, NamedClips
from gammavae_jax.data.machines import unit_name
from gammavae_jax.data.synthetic.dataset import is_synthetic
from gammavae_jax.devices.cluster import on_first
from gammavae_jax.errors import InputError, writing
from gammavae_jax.evaluation.csv_files import ClipRow, clips_csv
from gammavae_jax.evaluation.official import (
    PUBLISHED_SCORE,
    REPORT_TABLE_2,
    is_dcase2024_development_set,
)
from gammavae_jax.evaluation.score_files import write_decisions, write_scores
from gammavae_jax.evaluation.tables import (
    PublishedResults,
    evaluate_scores,
    percent,
    results_table,
    summarise_rows,
)
from gammavae_jax.files import write_text
from gammavae_jax.log import Log
from gammavae_jax.report.figures import code_use, training_curves
from gammavae_jax.report.page import Report, error_bars, report_html
from gammavae_jax.report.pictures import Sound
from gammavae_jax.report.shown_clips import (
    Loader,
    WantedClip,
    show_clips,
    telling_clips_of_all,
)
from gammavae_jax.runs.checkpoint import save_detector
from gammavae_jax.runs.folder import read_metrics
from gammavae_jax.runs.result_files import (
    atomic_results,
    describe_environment,
    write_results,
)
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.scored_clips import ScoredClips

SYNTHETIC_NOTE = (
    "Synthetic data: made-up machines, not recordings. These numbers show that the "
    "package works, but not how well it detects anomalies."
)


class Origin(NamedTuple):
    """What results were computed from: recordings, checkpoint, and year of metrics."""

    data_root: Path
    year: int | None  # challenge year whose metrics are used; None: those since 2022
    checkpoint: Path | None = None  # the one evaluated; None: the run's own


def publish(
    out: Path,
    detector: Detector,
    test: NamedClips,
    tables: list[ScoredClips],
    origin: Origin,
    log: Log,
) -> None:
    """Evaluate scored clips, publish all results atomically, and print them.

    A run's detector is saved with the results; an evaluation's is not. In a cluster,
    all processes save the detector together, and the first one writes the rest.

    Raises:
        InputError: the folder cannot be written; earlier results are kept.
    """
    if is_synthetic(origin.data_root):
        log.notes.insert(0, SYNTHETIC_NOTE)
    rows = evaluate_scores(tables, origin.year)
    published = published_results(origin.data_root, tables)
    report = Report(detector.config, tables, rows, log.notes, published, origin.year)
    for clips in tables:
        if clips.is_anomaly is None:
            log.note(
                f"{unit_name(clips.machine, clips.section)} was scored but not "
                "evaluated, because not every test clip has a label in its name: see "
                f"{out / 'scores'}."
            )
    with contextlib.ExitStack() as stack:
        new = atomic_results(out, detector.config)
        folder = Path(on_first(lambda: str(stack.enter_context(new))))
        if origin.checkpoint is None:
            with writing(out, resumable=True):
                save_detector(folder / "checkpoint", detector)
        on_first(lambda: _write(folder, out, detector, test, report, origin, log))
        on_first(stack.close)  # publishes, or raises an error in every process
    _print(report, log)
    log.say(f"written to {out}")


def _write(
    folder: Path,
    out: Path,
    detector: Detector,
    test: NamedClips,
    report: Report,
    origin: Origin,
    log: Log,
) -> None:
    """Write score files, tables, summary and page to the folder for new results."""
    environment = describe_environment(report.config.model.sampler)
    about = {"timing": log.seconds, "environment": environment}
    sources = {
        "data_root": str(origin.data_root.resolve()),
        "checkpoint": str((origin.checkpoint or out / "checkpoint").resolve()),
    }
    report, tables = complete_report(report._replace(about=about), out), report.machines
    _write_score_files(report.config, tables, folder)
    write_results(folder, report.rows, {**about, **sources}, log.notes, report.year)
    clips_of = dict(zip(detector.machines, (clips for _, clips in test), strict=True))
    loaders = [_loaders(detector, clips_of[t.machine, t.section]) for t in tables]
    write_run_page(folder / "report.html", report, detector, loaders, log)


def complete_report(report: Report, run: Path) -> Report:
    """Add training curves, latent use, error bars and a command to a report.

    The command adds pictures of another clip to the page.
    """
    config, metrics = report.config, read_metrics(run)
    has_posterior = config.model.latent != "deterministic"
    return report._replace(
        curves=training_curves(metrics),
        codes=code_use(metrics) if has_posterior else {},
        error_bars=error_bars(report.machines, config.scores, report.year),
        how_to_show=f"gammavae report {shlex.quote(str(run))} --clips {{clip}}",
    )


def published_results(
    data_root: Path | None, machines: Sequence[ScoredClips]
) -> PublishedResults:
    """Return the published results for these recordings, if any."""
    names = {clips.machine for clips in machines}
    if data_root is None or is_synthetic(data_root):
        return {}
    return REPORT_TABLE_2 if is_dcase2024_development_set(data_root, names) else {}


def write_run_page(
    path: Path,
    report: Report,
    detector: Detector,
    loaders: Sequence[Sequence[Loader]],
    log: Log,
    first: Sequence[tuple[int, int]] = (),
) -> None:
    """Write the report page, with pictures of the most informative clips.

    `loaders` are indexed by machine and clip; if there are none, the page has no
    pictures. `first` lists the clips to show first, as (machine, clip) indices.
    """
    config = report.config
    chosen = telling_clips_of_all(report.machines, config.score, 0) if loaders else []
    units = [(clips.machine, clips.section) for clips in report.machines]
    wanted = [
        WantedClip(m, c, detector.machines.index(units[m]), loaders[m][c])
        for m, c in dict.fromkeys([*first, *chosen])
    ]
    with log.progress("clips shown", len(wanted)) as advance:
        shown = show_clips(detector, wanted, on_clip=advance)
    write_text(path, report_html(report, shown))


def _loaders(detector: Detector, clips: Clips) -> list[Loader]:
    """Make loaders that take log-mels from memory, but read the sounds from files."""
    features = detector.config.features
    return [
        lambda file=file, log_mel=log_mel: (log_mel, read_sound(file.path, features))
        for file, log_mel in zip(clips.files, clips.log_mels, strict=True)
    ]


def read_sound(path: Path, config: FeatureConfig) -> Sound:
    """Read a recording for playback; if that fails, return a remark instead."""
    rate = config.sample_rate
    try:
        return Sound(read_clip(path, sample_rate=rate, channel=config.channel), rate)
    except InputError:
        return Sound(None, rate, "The recording could not be read for playback.")


def _write_score_files(
    config: Config, tables: Sequence[ScoredClips], out: Path
) -> None:
    """Write the challenge's score files for each score and seed, and `clips.csv`."""
    rows = []
    for score, (s, seed), clips in itertools.product(
        config.scores, enumerate(config.seeds), tables
    ):
        target = out / "scores" / score / f"seed{seed}"
        target.mkdir(parents=True, exist_ok=True)
        values, decisions = clips.scores[score][s], clips.decisions(score)[s]
        where = target, clips.machine, clips.section, clips.names
        write_scores(*where, values)
        write_decisions(*where, decisions)
        p_values = [None] * len(clips.names)
        if score in clips.p_values:
            p_values = clips.p_values[score][s].tolist()
        columns = values.tolist(), p_values, decisions.astype(int).tolist()
        rows += [
            ClipRow(seed, score, clips.machine, clips.section, *of_clip)
            for of_clip in zip(clips.names, *columns, strict=True)
        ]
    write_text(out / "clips.csv", clips_csv(rows))


def _print(report: Report, log: Log) -> None:
    """Print the table of results if any machine was evaluated."""
    if not report.rows:
        return
    config = report.config
    kind = "SYNTHETIC data; " if SYNTHETIC_NOTE in log.notes else ""
    title = f"{kind}preset {config.preset}, score {config.score}, in percent"
    beside = report.published if config.score == PUBLISHED_SCORE else {}
    log.show(results_table(report.rows, config.score, title, beside))
    official = summarise_rows(report.rows, report.year)["official_score"]
    for score in sorted(official, key=lambda name: name != config.score):
        log.show(f"official score ({score}): {percent(official[score])}")
