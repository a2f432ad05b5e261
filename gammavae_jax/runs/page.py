"""Write the HTML page of a run, with pictures of some of its clips."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio import read_clip
from gammavae_jax.data.clips import clip_log_mel
from gammavae_jax.data.machines import find_clips, unit_name
from gammavae_jax.data.names import clip_stem
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.evaluation.official import (
    REPORT_TABLE_2,
    is_dcase2024_development_set,
)
from gammavae_jax.files import write_text
from gammavae_jax.log import Log
from gammavae_jax.report.clips import (
    Loader,
    WantedClip,
    show_clips,
    telling_clips_of_all,
)
from gammavae_jax.report.figures import code_use, training_curves
from gammavae_jax.report.page import Report, report_html
from gammavae_jax.report.payload import error_bars
from gammavae_jax.report.pictures import Sound
from gammavae_jax.runs.finished import FinishedRun, read_run
from gammavae_jax.runs.folder import read_metrics
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.scored_clips import ScoredClips


def complete_report(report: Report, run: Path) -> Report:
    """Add what follows from the run's folder and its scores."""
    config, metrics = report.config, read_metrics(run)
    has_posterior = config.model.latent != "deterministic"
    return report._replace(
        curves=training_curves(metrics),
        codes=code_use(metrics) if has_posterior else {},
        error_bars=error_bars(report.machines, config.scores, report.year),
        how_to_show=f"gammavae report {shlex.quote(str(run))} --clips {{clip}}",
    )


def report_run(
    run: Path,
    path: Path,
    data_root: Path | None,
    names: Sequence[str],
    log: Log,
) -> None:
    """Create the page of a finished run again.

    If the recordings are missing, the page has no pictures and a note says so, unless
    `data_root` or `names` ask for them.

    Args:
        run: the folder of the run.
        path: the page to write.
        data_root: the folder of the recordings; None for the one that the run used.
        names: clips that must have pictures.
        log: receives messages and progress.

    Raises:
        InputError: see `read_run`; a name matches no clip; requested recordings are
            missing; or the page cannot be written.
    """
    finished = read_run(run)
    first = [find_clip(name, finished.machines) for name in names]
    config, summary = finished.detector.config, finished.summary
    notes = list(summary.get("notes", []))
    root = data_root or finished.data_root
    try:
        loaders = _loaders_from_files(finished, root)
    except InputError as error:
        if data_root is not None or names:
            raise
        log.say(f"without pictures: {error}")
        notes.append("There are no pictures of clips: the recordings are missing.")
        loaders = []
    names_of_machines = {clips.machine for clips in finished.machines}
    is_published = root and is_dcase2024_development_set(root, names_of_machines)
    report = Report(
        config,
        finished.machines,
        finished.rows,
        notes,
        REPORT_TABLE_2 if is_published else {},
        summary.get("year"),
        about={n: summary[n] for n in ("timing", "environment") if n in summary},
    )
    report = complete_report(report, run)
    try:
        write_run_page(path, report, finished.detector, loaders, log, first)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} cannot be written: {error.strerror}: give another --out"
        ) from error


def write_run_page(
    path: Path,
    report: Report,
    detector: Detector,
    loaders: Sequence[Sequence[Loader]],
    log: Log,
    first: Sequence[tuple[int, int]] = (),
) -> None:
    """Write a page with pictures of the most informative clips.

    Args:
        path: the page to write.
        report: its content.
        detector: the detector that gave the scores.
        loaders: by machine and clip, functions that load the clip; empty: no pictures.
        log: receives progress.
        first: machine and clip indices of the clips that are shown first.
    """
    config = report.config
    chosen = telling_clips_of_all(report.machines, config.score, 0) if loaders else []
    wanted = [
        WantedClip(
            m,
            c,
            detector.machines.index(
                (report.machines[m].machine, report.machines[m].section)
            ),
            loaders[m][c],
        )
        for m, c in dict.fromkeys([*first, *chosen])
    ]
    with log.progress("clips shown", len(wanted)) as advance:
        shown = show_clips(detector, wanted, on_clip=advance)
    write_text(path, report_html(report, shown))


def read_sound(path: Path, config: FeatureConfig) -> Sound:
    """Read a recording to play on the page; without samples if it is missing."""
    try:
        waveform = read_clip(
            path, sample_rate=config.sample_rate, channel=config.channel
        )
    except InputError:
        return Sound(None, config.sample_rate, "The recording could not be read again.")
    return Sound(waveform, config.sample_rate)


def _loaders_from_files(finished: FinishedRun, root: Path | None) -> list[list[Loader]]:
    """Return functions that load each clip of each machine from its recording.

    Raises:
        InputError: the recordings are missing.
    """
    if root is None:
        raise InputError(
            "the run does not record where its recordings were: give --data-root"
        )
    found = {
        (files.machine, files.section): files.test
        for machine in dict.fromkeys(clips.machine for clips in finished.machines)
        for files in find_clips(root, machine, ["test"])
    }
    loaders = []
    for clips in finished.machines:
        files = found.get((clips.machine, clips.section), ())
        paths = {file.path.name: file.path for file in files}
        missing = [name for name in clips.names if name not in paths]
        if missing:
            raise InputError(
                f"the recording {missing[0]!r} is not in {str(root)!r}: give the "
                "--data-root that the run was scored on"
            )
        loaders.append(
            [_loader(finished.detector, paths[name]) for name in clips.names]
        )
    return loaders


def _loader(detector: Detector, path: Path) -> Loader:
    features = detector.config.features

    def load():
        return (
            clip_log_mel(path, detector.filterbank, features),
            read_sound(path, features),
        )

    return load


def find_clip(name: str, machines: Sequence[ScoredClips]) -> tuple[int, int]:
    """Return the machine and clip indices of a clip.

    The name may be `machine/name` if several machines have such a clip, and may be
    shortened to a unique prefix.

    Raises:
        InputError: no clip matches, or several do.
    """
    clips_by_name = {
        (unit_name(clips.machine, clips.section), clip): (m, c)
        for m, clips in enumerate(machines)
        for c, clip in enumerate(clips.names)
    }
    places = [
        place
        for (unit, clip), place in clips_by_name.items()
        if name in (clip, f"{unit}/{clip}", clip_stem(clip))
    ] or [
        place
        for (unit, clip), place in clips_by_name.items()
        if clip.startswith(name) or f"{unit}/{clip}".startswith(name)
    ]
    if not places:
        raise InputError(unknown_name("clip", name, [c for _, c in clips_by_name]))
    if len(places) > 1:
        units = " and ".join(
            u for (u, _), place in clips_by_name.items() if place in places
        )
        raise InputError(
            f"the clip {name!r} exists in {units}: give MACHINE_section_ID/{name}"
        )
    return places[0]
