"""The page of a run: what its folder tells, and pictures of some of its clips."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from gammavae_jax.audio import read_clip
from gammavae_jax.config import FeatureConfig
from gammavae_jax.detector import Detector
from gammavae_jax.errors import InputError
from gammavae_jax.files import write_text
from gammavae_jax.log import Log
from gammavae_jax.pages.error_bars import error_bars
from gammavae_jax.pages.pictures import Sound
from gammavae_jax.pages.report import Report, report_html
from gammavae_jax.pages.shown_clips import (
    Loader,
    WantedClip,
    show_clips,
    telling_clips_of_all,
)
from gammavae_jax.run_folder import read_metrics
from gammavae_jax.training_record import code_use, training_curves


def complete_report(report: Report, run: Path) -> Report:
    """With what the folder of a run and the scores tell besides."""
    config, metrics = report.config, read_metrics(run)
    has_posterior = config.model.latent != "deterministic"
    return report._replace(
        curves=training_curves(metrics),
        codes=code_use(metrics) if has_posterior else {},
        error_bars=error_bars(report.machines, config.scores, report.year),
        how_to_show=f"gammavae report {shlex.quote(str(run))} --clips {{clip}}",
    )


def write_run_page(
    path: Path,
    report: Report,
    detector: Detector,
    loaders: Sequence[Sequence[Loader]],
    log: Log,
    first: Sequence[tuple[int, int]] = (),
) -> None:
    """Write a page with pictures of the most telling clips.

    Args:
        path: of the page.
        report: what is on it.
        detector: that gave the scores.
        loaders: how each clip of each machine is had; none: no pictures.
        log: for progress.
        first: machine and clip of what must have pictures, before others.
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
    with log.timed("page_s"), log.progress("clips shown", len(wanted)) as advance:
        shown = show_clips(detector, wanted, on_clip=advance)
    write_text(path, report_html(report, shown))


def read_sound(path: Path, config: FeatureConfig) -> Sound:
    """A recording to be heard; where it is gone, why not."""
    try:
        waveform = read_clip(
            path, sample_rate=config.sample_rate, channel=config.channel
        )
    except InputError:
        return Sound(None, config.sample_rate, "The recording could not be read again.")
    return Sound(waveform, config.sample_rate)
