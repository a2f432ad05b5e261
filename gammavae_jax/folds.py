"""Folds of training clips that tell how a model does on recordings it has not heard.

Recordings of a machine are seldom independent: clips cut from one recording, or with
the same background, are near copies. If some are trained on and others held out, the
held-out ones tell nothing of a new recording, and thresholds made of them flag far more
normal clips than promised. So clips that sound alike are held out together. Nothing is
asked of the names; where clips are independent, each is a group of its own, and folds
are drawn at random.
"""

import numpy as np
import scipy.cluster.hierarchy
import scipy.spatial.distance
from jaxtyping import Float, Int

_LARGEST_SHARE = 2.0  # of a group, in folds, and never more than half of the clips
_SMALLEST_SPREAD = 1e-4  # of a feature, as a share of the mean one: less is rounding


def groups_of_clips(
    statistic: Float[np.ndarray, "clip feature"], distance: float, n_folds: int
) -> Int[np.ndarray, "clip"]:
    """The number of the group of each clip.

    Clips are joined by average linkage while the groups are nearer to each other than
    `distance` times the median distance of two clips. A group too large for two folds
    is cut again, by its own median.
    """
    n_clips = len(statistic)
    largest = max(1.0, n_clips * min(0.5, _LARGEST_SHARE / n_folds))
    spread = statistic.std(0)
    known = spread > _SMALLEST_SPREAD * spread.mean()
    return _cut(
        (statistic[:, known] - statistic[:, known].mean(0)) / spread[known],
        distance,
        largest,
    )


def deal_groups(
    rng: np.random.Generator, groups: Int[np.ndarray, "clip"], n_folds: int
) -> Int[np.ndarray, "clip"]:
    """The fold of each clip: whole groups, the largest first to the smallest fold."""
    numbers, sizes = np.unique(groups, return_counts=True)
    fold_of_group, load = np.zeros(len(numbers), int), np.zeros(n_folds)
    for group in np.lexsort((rng.random(len(numbers)), -sizes)):
        fold_of_group[group] = load.argmin()
        load[fold_of_group[group]] += sizes[group]
    return fold_of_group[np.searchsorted(numbers, groups)]


def _cut(
    points: Float[np.ndarray, "clip feature"], distance: float, largest: float
) -> Int[np.ndarray, "clip"]:
    n_clips = len(points)
    alone = np.arange(n_clips)
    if n_clips < 2:
        return alone
    gaps = scipy.spatial.distance.pdist(points)
    tree = scipy.cluster.hierarchy.average(gaps)
    limit = distance * np.median(gaps)
    groups = scipy.cluster.hierarchy.fcluster(tree, limit, "distance")
    if groups.max() == 1:
        return alone  # nothing tells them apart
    out, n_groups = np.zeros(n_clips, int), 0
    for group in range(1, groups.max() + 1):
        inside = groups == group
        parts = np.zeros(inside.sum(), int)
        if inside.sum() > largest:
            parts = _cut(points[inside], distance, largest)
        out[inside] = n_groups + parts
        n_groups += parts.max() + 1
    return out
