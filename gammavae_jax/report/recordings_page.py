"""A page of recordings that were scored and nothing else: no labels, no run."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gammavae_jax.data.machines import unit_name
from gammavae_jax.data.recording_clips import LoadedRecordings
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.files import write_text
from gammavae_jax.report.clips import WantedClip, show_clips, telling_clips_of_all
from gammavae_jax.report.page import Report, report_html
from gammavae_jax.report.pictures import Sound
from gammavae_jax.scoring.detector import Detector, clip_p_values
from gammavae_jax.scoring.scored_clips import ScoredClips

_PARTS_NOTE = (
    "Recordings longer than a clip were cut. The decision on such a recording is by "
    "the mean of its parts; here each part is judged by itself."
)


class ScoredClip(NamedTuple):
    """A recording and what the headline score says of it."""

    name: str
    machine: str  # a machine type of the detector, or `<machine>_section_<id>`
    log_mel: Float[np.ndarray, "frame mel"]
    waveform: Float[np.ndarray, "sample"] | None  # None: it cannot be heard
    sample_rate: int  # Hz
    score: float
    p_value: float  # NaN where there is none
    threshold: float


def write_recordings_report(
    path: Path,
    detector: Detector,
    scored: Sequence[tuple[int, LoadedRecordings, Float[np.ndarray, "_"]]],
) -> None:
    """The page of recordings: of each machine its number, these, and clips' scores.

    Raises:
        InputError: a page that cannot be written.
    """
    is_cut = any(len(found.recording) > len(found.names) for _, found, _ in scored)
    clips = [clip for of in scored for clip in _clips_of_recordings(detector, *of)]
    notes = [_PARTS_NOTE] if is_cut else []
    write_scored_report(path, detector, clips, notes=notes)


def _clips_of_recordings(
    detector: Detector,
    number: int,
    found: LoadedRecordings,
    of_clip: Float[np.ndarray, "_"],
) -> list[ScoredClip]:
    """Each clip of a machine's recordings by itself, with its sound.

    Args:
        detector: whose first seed scored.
        number: of the machine.
        found: the recordings, with their sounds.
        of_clip: the score of each clip; what is beyond them is padding.
    """
    score = detector.config.score
    threshold = float(detector.thresholds[score][0, number])
    chances = clip_p_values(detector, score, 0, number, of_clip)
    return [
        ScoredClip(
            name=found.clip_name(clip),
            machine=unit_name(*detector.machines[number]),
            log_mel=found.clips.log_mels[clip],
            waveform=sound,
            sample_rate=detector.config.features.sample_rate,
            score=float(of_clip[clip]),
            p_value=math.nan if chances is None else float(chances[clip]),
            threshold=threshold,
        )
        for clip, sound in enumerate(found.sounds)
    ]


def write_scored_report(
    path: Path,
    detector: Detector,
    clips: Sequence[ScoredClip],
    *,
    seed: int = 0,
    title: str = "Anomalous sound detection",
    notes: Sequence[str] = (),
) -> None:
    """Write a page with every clip's score, and why the telling ones have theirs.

    Args:
        path: of the page.
        detector: that gave the scores.
        clips: of any of its machines, in any order.
        seed: the number of the seed whose models explain the scores.
        title: of the page.
        notes: sentences that must be read with the scores.

    Raises:
        InputError: no clips, a machine that the detector does not know, or a page
            that cannot be written.
    """
    if not clips:
        raise InputError("there are no clips to report on: give at least one")
    numbers = {}
    for clip in clips:
        numbers.setdefault(_number(clip.machine, detector), []).append(clip)
    config = replace(
        detector.config,
        scores=(detector.config.score,),
        n_seeds=1,
        seed=detector.config.seeds[seed],
    )
    machines = [_scored(detector, m, of) for m, of in numbers.items()]
    groups = list(numbers.items())
    wanted = [
        WantedClip(
            place,
            c,
            groups[place][0],
            lambda clip=groups[place][1][c]: (
                clip.log_mel,
                Sound(clip.waveform, clip.sample_rate),
            ),
        )
        for place, c in telling_clips_of_all(machines, config.score, 0)
    ]
    shown = show_clips(detector, wanted, seed)
    page = report_html(Report(config, machines, notes=notes, title=title), shown)
    try:
        write_text(path, page)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} cannot be written: {error.strerror}: give another path"
        ) from error


def _number(machine: str, detector: Detector) -> int:
    units = detector.machines
    found = [
        m for m, unit in enumerate(units) if machine in (unit[0], unit_name(*unit))
    ]
    if len(found) == 1:
        return found[0]
    known = [unit_name(*unit) for unit in units]
    if found:
        raise InputError(f"{machine!r} has sections: say one of {', '.join(known)}")
    raise InputError(unknown_name("machine", machine, known))


def _scored(detector: Detector, m: int, clips: Sequence[ScoredClip]) -> ScoredClips:
    score = detector.config.score
    p_values = np.array([[clip.p_value for clip in clips]])
    unknown = ("",) * len(clips)
    return ScoredClips(
        *detector.machines[m],
        tuple(clip.name for clip in clips),
        unknown,
        unknown,
        {score: np.array([[clip.score for clip in clips]])},
        {score: np.array([clips[0].threshold])},
        {} if np.isnan(p_values).all() else {score: p_values},
        detector.config.seeds,
    )
