"""The clips that a page shows with pictures, explained within a budget of bytes."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.evaluation.metrics import ScoredClips
from gammavae_jax.process import available_cores
from gammavae_jax.report.explanation import explain_clip
from gammavae_jax.report.pictures import Sound, picture_payload
from gammavae_jax.scoring.detector import Detector


def telling_clips(
    scores: Float[np.ndarray, "clip"],
    threshold: float,
    is_anomaly: Bool[np.ndarray, "clip"] | None,
    n_most: int,
) -> list[int]:
    """Numbers of at most `n_most` clips.

    Dealt in turn from: the highest scores; with labels, the highest false alarms and
    the misses that are furthest below the threshold; what is next to the threshold;
    and a clip of a middling score, for comparison.
    """
    order = np.argsort(-scores, kind="stable")
    is_alarm = scores > threshold
    above, below = order[is_alarm[order]], order[~is_alarm[order]]
    piles = [order, above[::-1], below, order[len(order) // 2 :]]
    if is_anomaly is not None:
        normal, faulty = ~is_anomaly, is_anomaly
        false_alarms = above[normal[above]]
        misses = below[faulty[below]][::-1]
        piles[1:1] = [false_alarms, misses]
    chosen: dict[int, None] = {}
    for rank in range(len(order)):
        for pile in piles:
            if rank < len(pile) and len(chosen) < n_most:
                chosen.setdefault(int(pile[rank]))
    return list(chosen)


MOST_BYTES = 18_000_000  # of all pictures and sounds of a page
MOST_OF_MACHINE = 12
_MOST_CLIPS = 96


# Gives a clip's log-mel and its sound, or says that both cannot be had any more.
Loader = Callable[[], tuple[Float[np.ndarray, "frame mel"], Sound]]


class WantedClip(NamedTuple):
    """A clip that is to be shown: of which machine, which one, and how it is had."""

    machine: int  # among those of the page
    clip: int  # among the machine's
    of_detector: int  # the machine's number in the detector
    load: Loader


class ShownClip(NamedTuple):
    """A clip of a page with its pictures, as `picture_payload` makes them, in JSON."""

    machine: int
    clip: int
    payload: str


def telling_clips_of_all(
    machines: Sequence[ScoredClips], score: str, seed: int
) -> list[tuple[int, int]]:
    """Machine and clip of what is worth a picture: each machine's first one first."""
    n_most = clips_a_machine(len(machines))
    chosen = [
        telling_clips(
            clips.scores[score][seed],
            float(clips.thresholds[score][seed]),
            clips.is_anomaly,
            n_most,
        )
        for clips in machines
    ]
    return [
        (m, clips[rank])
        for rank in range(n_most)
        for m, clips in enumerate(chosen)
        if rank < len(clips)
    ]


def clips_a_machine(n_machines: int) -> int:
    """How many clips of each machine have a place on a page."""
    return max(1, min(MOST_OF_MACHINE, _MOST_CLIPS // max(n_machines, 1)))


def show_clips(
    detector: Detector,
    wanted: Sequence[WantedClip],
    seed: int = 0,
    score: str | None = None,
    on_clip: Callable[[], None] = lambda: None,
    most_bytes: int = MOST_BYTES,
) -> list[ShownClip]:
    """Explain clips in their order, until there is no more room.

    Args:
        detector: of the machines.
        wanted: the clips, the most telling ones of all machines first.
        seed: the number of the seed whose members are asked.
        score: that is explained; the headline score unless given.
        on_clip: called after each clip, for a progress bar.
        most_bytes: of all clips together.
    """
    config = detector.config
    name = config.score if score is None else score

    def show(clip: WantedClip) -> ShownClip:
        log_mel, sound = clip.load()
        explanation = explain_clip(detector, seed, clip.of_detector, log_mel, name)
        payload = picture_payload(
            explanation,
            log_mel,
            sound,
            config.features,
            name,
            config.seeds[seed],
        )
        return ShownClip(clip.machine, clip.clip, json.dumps(payload, allow_nan=False))

    shown, n_bytes = [], 0
    for made in _in_threads(show, wanted):
        on_clip()
        n_bytes += len(made.payload)
        if n_bytes > most_bytes and shown:
            break
        shown.append(made)
    return shown


def _in_threads(
    show: Callable[[WantedClip], ShownClip], wanted: Iterable[WantedClip]
) -> Iterator[ShownClip]:
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            yield from pool.map(show, wanted)
        finally:
            pool.shutdown(cancel_futures=True)
