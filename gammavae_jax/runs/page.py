"""The page of a run, with pictures of some of its clips."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio import read_clip
from gammavae_jax.data.clips import clip_log_mel
from gammavae_jax.data.machines import find_clips, unit_name
from gammavae_jax.data.names import clip_stem
from gammavae_jax.data.synthetic.dataset import is_synthetic
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.evaluation.official import (
    REPORT_TABLE_2,
    is_dcase2024_development_set,
)
from gammavae_jax.evaluation.tables import Published
from gammavae_jax.files import write_text, writing
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


def complete_report(report: Report, run: Path, data_root: Path | None) -> Report:
    """Add what follows from the run's folder, its scores and its recordings."""
    config, metrics = report.config, read_metrics(run)
    has_posterior = config.model.latent != "deterministic"
    return report._replace(
        published=published_results(data_root, report.machines),
        curves=training_curves(metrics),
        codes=code_use(metrics) if has_posterior else {},
        error_bars=error_bars(report.machines, config.scores, report.year),
        how_to_show=f"gammavae report {shlex.quote(str(run))} --clips {{clip}}",
    )


def published_results(
    data_root: Path | None, machines: Sequence[ScoredClips]
) -> Published:
    """The published results on these recordings; empty if there are none."""
    names = {clips.machine for clips in machines}
    if data_root is None or is_synthetic(data_root):
        return {}
    return REPORT_TABLE_2 if is_dcase2024_development_set(data_root, names) else {}


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
        data_root: the folder of the recordings; default: the one that the run used.
        names: clips that must have pictures.
        log: shows messages and progress.

    Raises:
        InputError: see `read_run`; a name matches no clip; requested recordings are
            missing; or the page cannot be written.
    """
    finished = read_run(run)
    first = [find_clip(name, finished.machines) for name in names]
    detector, summary = finished.detector, finished.summary
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
    about = {n: summary[n] for n in ("timing", "environment") if n in summary}
    year, machines = summary.get("year"), finished.machines
    report = Report(
        detector.config, machines, finished.rows, notes, year=year, about=about
    )
    report = complete_report(report, run, root)
    with writing(path):
        write_run_page(path, report, detector, loaders, log, first)


def write_run_page(
    path: Path,
    report: Report,
    detector: Detector,
    loaders: Sequence[Sequence[Loader]],
    log: Log,
    first: Sequence[tuple[int, int]] = (),
) -> None:
    """Write a page with pictures of the most informative clips.

    `loaders` load the clips, by machine and clip; without them there are no pictures.
    `first` has the machine and clip indices of the clips that are shown first.
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
    """Return functions that load each clip of each machine from its recording."""
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
    shortened to a unique prefix. It must match exactly one clip.
    """
    clips = [
        (unit_name(table.machine, table.section), clip, (m, c))
        for m, table in enumerate(machines)
        for c, clip in enumerate(table.names)
    ]
    matches = [
        (unit, place)
        for unit, clip, place in clips
        if name in (clip, f"{unit}/{clip}", clip_stem(clip))
    ] or [
        (unit, place)
        for unit, clip, place in clips
        if clip.startswith(name) or f"{unit}/{clip}".startswith(name)
    ]
    if not matches:
        raise InputError(unknown_name("clip", name, [clip for _, clip, _ in clips]))
    if len(matches) > 1:
        units = " and ".join(unit for unit, _ in matches)
        raise InputError(
            f"the clip {name!r} exists in {units}: give MACHINE_section_ID/{name}"
        )
    return matches[0][1]
