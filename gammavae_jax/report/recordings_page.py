"""The page for recordings that were scored outside a run; a notebook can show it."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.data.states import State
from gammavae_jax.errors import InputError, names_text
from gammavae_jax.files import read_text, write_text
from gammavae_jax.report.page import Report, report_html
from gammavae_jax.report.pictures import Sound
from gammavae_jax.report.shown_clips import WantedClip, show_clips, telling_clips_of_all
from gammavae_jax.scoring.decision import Scored, clip_states
from gammavae_jax.scoring.detector import Detector, clip_p_values, machine_names
from gammavae_jax.scoring.scored_clips import ScoredClips
from gammavae_jax.scoring.verdict import Verdict

_PARTS_NOTE = (
    "Recordings longer than a clip were cut into parts. Each recording has one "
    "verdict, based on the scores of all its parts. This page shows the parts one by "
    "one, compared with the threshold of a single part."
)


def write_recordings_report(
    path: Path,
    detector: Detector,
    scored: Sequence[Scored],
) -> None:
    """Write a page that shows all scores and explains the most informative clips.

    Args:
        path: where to write the page.
        detector: the detector; its first seed computed the scores.
        scored: for each machine, its index in the detector, its recordings, loaded
            with their sounds, and the scores of all their clips.

    Raises:
        InputError: there are no clips, or the page cannot be written.
    """
    if not any(recordings.sounds for _, recordings, _ in scored):
        raise InputError("there are no clips to report on: pass at least one recording")
    config = replace(detector.config, scores=(detector.config.score,), n_seeds=1)
    states = [clip_states(detector, *of[:2]) for of in scored]
    running = [np.flatnonzero([s == State.RUNNING for s in of]) for of in states]
    notes = _not_judged(scored, states)
    kept = [place for place, clips in enumerate(running) if len(clips)]
    if kept:
        scored, running = [scored[p] for p in kept], [running[p] for p in kept]
    else:  # a page of all clips is better than none
        running = [np.arange(len(recordings.sounds)) for _, recordings, _ in scored]
    machines = [
        _scored_clips(detector, *of, clips)
        for of, clips in zip(scored, running, strict=True)
    ]
    wanted = [
        _wanted_clip(
            detector, place, *scored[place][:2], clip, int(running[place][clip])
        )
        for place, clip in telling_clips_of_all(machines, config.score, 0)
    ]
    is_cut = any(len(r.recording) > len(r.names) for _, r, _ in scored)
    notes += [_PARTS_NOTE] if is_cut else []
    report = Report(
        config,
        machines,
        notes=notes,
        least_p=_least_p_values(detector, scored),
        is_evaluated=False,
    )
    page = report_html(report, show_clips(detector, wanted))
    try:
        write_text(path, page)
    except OSError as error:
        problem = f"{str(path)!r} cannot be written: {error.strerror}"
        raise InputError(f"{problem}: choose another path") from error


def _scored_clips(
    detector: Detector,
    number: int,
    recordings: LoadedRecordings,
    scores: Float[np.ndarray, "_"],
    clips: Int[np.ndarray, "_"],
) -> ScoredClips:
    """Return the scores of the given clips of a machine, without labels."""
    score = detector.config.score
    p_values = clip_p_values(detector, score, 0, number, scores[clips])
    unknown = ("",) * len(clips)
    return ScoredClips(
        machine_names(detector)[number],
        "",
        tuple(map(recordings.clip_name, clips.tolist())),
        unknown,
        unknown,
        {score: scores[None, clips].astype(float)},
        {score: detector.thresholds[score][:1, number].astype(float)},
        {} if p_values is None else {score: p_values[None]},
        detector.config.seeds[:1],
    )


def _least_p_values(detector: Detector, scored: Sequence[Scored]) -> dict[str, float]:
    """Return the p-value of a clip that scores higher than all held-out clips."""
    names, score = machine_names(detector), detector.config.score
    highest = np.array([np.inf])
    found = {n: clip_p_values(detector, score, 0, n, highest) for n, _, _ in scored}
    return {names[n]: float(p[0]) for n, p in found.items() if p is not None}


def _wanted_clip(
    detector: Detector,
    place: int,
    number: int,
    recordings: LoadedRecordings,
    shown: int,
    clip: int,
) -> WantedClip:
    """Return the clip with index `clip`, which has the index `shown` on the page."""
    rate = detector.config.features.sample_rate
    log_mel, sound = recordings.clips.log_mels[clip], recordings.sounds[clip]
    return WantedClip(place, shown, number, lambda: (log_mel, Sound(sound, rate)))


def _not_judged(
    scored: Sequence[Scored], states: Sequence[Sequence[State]]
) -> list[str]:
    """Return a note on the clips that are not judged because of their state."""
    named = [
        f"{recordings.clip_name(clip)} ({state})"
        for (_, recordings, _), of_machine in zip(scored, states, strict=True)
        for clip, state in enumerate(of_machine)
        if state != State.RUNNING
    ]
    if not named:
        return []
    return [f"Not judged because of their states: {names_text(named)}."]


_MOST_BYTES = 20_000_000  # a notebook that contains larger pages opens slowly
# Otherwise, links within the page would lead to the notebook. This must precede the
# page's security policy, which would forbid it.
_BASE = '<base href="about:srcdoc">'
# Scripts on the page may run, but cannot reach the notebook.
_FRAME = (
    '<iframe srcdoc="{page}" sandbox="allow-scripts" title="{title}" '
    'style="width: 100%; height: 700px; border: 0"></iframe>'
)


class ReportedVerdicts(list[Verdict]):
    """The verdicts on recordings, with the page that explains them.

    A notebook shows the page if a cell ends with this list.

    Args:
        verdicts: one per recording.
        path: the page.
    """

    def __init__(self, verdicts: Sequence[Verdict], path: Path):
        super().__init__(verdicts)
        self.path = path

    def __repr__(self) -> str:
        verdicts = "1 verdict" if len(self) == 1 else f"{len(self)} verdicts"
        return f"<{verdicts}; page: {self.path}>"

    def _repr_html_(self) -> str | None:
        """Return the page in a frame or, if the page is too large, where to find it."""
        try:
            size = self.path.stat().st_size
            page = read_text(self.path) if size <= _MOST_BYTES else None
        except (OSError, UnicodeDecodeError):  # moved, deleted or replaced since
            return None
        if page is None:
            return f"Open {escape(str(self.path))} in a browser."
        page = page.replace("<head>", f"<head>{_BASE}", 1)
        return _FRAME.format(page=escape(page), title=escape(self.path.name))
