"""Selects the clips to show on a page and explains each clip's score."""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.data.clips import in_threads
from gammavae_jax.report.explanation import explain_clip
from gammavae_jax.report.pictures import Sound, picture_payload
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.scored_clips import ScoredClips

MAX_BYTES = 18_000_000  # for all pictures and sounds on a page together
_MAX_CLIPS_OF_MACHINE = 12
_MAX_CLIPS = 96

# A function that loads a clip's log-mel and its sound.
Loader = Callable[[], tuple[Float[np.ndarray, "frame mel"], Sound]]


class WantedClip(NamedTuple):
    """A clip for which a page should show pictures."""

    machine: int  # index of the machine on the page
    clip: int  # index of the clip within the machine
    of_detector: int  # index of the machine in the detector
    load: Loader


def telling_clips(
    scores: Float[np.ndarray, "clip"],
    threshold: float,
    is_anomaly: Bool[np.ndarray, "clip"] | None,
    n_most: int,
) -> list[int]:
    """Return the indices of the most informative clips, up to `n_most` of them.

    Clips are taken round-robin from these groups: the highest scores; if there are
    labels, the false alarms with the highest scores and the missed anomalies with the
    lowest; the scores nearest to the threshold, above and below it; and scores in the
    middle of the ranking, for comparison.
    """
    order = np.argsort(-scores, kind="stable")
    is_alarm = scores[order] > threshold
    above, below = order[is_alarm], order[~is_alarm]
    piles = [order, above[::-1], below, order[len(order) // 2 :]]
    if is_anomaly is not None:
        false_alarms, misses = above[~is_anomaly[above]], below[is_anomaly[below]]
        piles[1:1] = [false_alarms, misses[::-1]]
    chosen: dict[int, None] = {}
    for rank in range(len(order)):
        for pile in piles:
            if rank < len(pile) and len(chosen) < n_most:
                chosen.setdefault(int(pile[rank]))
    return list(chosen)


def telling_clips_of_all(
    machines: Sequence[ScoredClips], score: str, seed: int
) -> list[tuple[int, int]]:
    """Select informative clips round-robin over machines, as (machine, clip) pairs."""
    n_most = max(1, min(_MAX_CLIPS_OF_MACHINE, _MAX_CLIPS // max(len(machines), 1)))
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


def show_clips(
    detector: Detector,
    wanted: Sequence[WantedClip],
    on_clip: Callable[[], None] = lambda: None,
    max_bytes: int = MAX_BYTES,
) -> list[tuple[int, int, str]]:
    """Explain clips in order, until the byte budget is used up.

    The explained score is the headline score of the first seed.

    Args:
        detector: the detector that scored the clips.
        wanted: the clips to explain, with the most informative ones first.
        on_clip: called after each clip, for a progress bar.
        max_bytes: the budget for all clips together; the first clip is always shown.

    Returns:
        For each clip shown, the index of its machine, the index of the clip, and its
        `picture_payload` as JSON text.
    """
    config = detector.config

    def show(clip: WantedClip) -> tuple[int, int, str]:
        log_mel, sound = clip.load()
        explanation = explain_clip(detector, 0, clip.of_detector, log_mel)
        payload = picture_payload(explanation, log_mel, sound, config)
        return clip.machine, clip.clip, json.dumps(payload, allow_nan=False)

    shown, n_bytes = [], 0
    for clip in in_threads(show, wanted):
        on_clip()
        n_bytes += len(clip[-1])
        if n_bytes > max_bytes and shown:
            break
        shown.append(clip)
    return shown
