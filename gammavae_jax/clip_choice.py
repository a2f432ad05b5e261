"""Which clips of a machine are worth a picture, the most telling ones first."""

import numpy as np
from jaxtyping import Bool, Float


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
