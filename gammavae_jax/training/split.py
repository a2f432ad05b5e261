"""Who learns from what: windows to train on and clips to hold out, for each model."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.cluster.hierarchy
import scipy.spatial.distance
from jaxtyping import Array, Bool, Float, Int, UInt8

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import HELD_OUT, TRAIN, AnyArray, TrainingArrays
from gammavae_jax.data.statistics import spectrum
from gammavae_jax.devices.placement import in_float32
from gammavae_jax.errors import InputError

_FEWEST_WINDOWS = 2  # of a training: one has no variance to be normalised by
_SAME = 1e-2  # dB, in each band: nothing that was recorded twice is as near


class Split(NamedTuple):
    """What each window is used for, and the clips that are held out whole.

    Members are seeds, or the folds of each seed in turn. What is padding, or extra, is
    no clip to compare others with.
    """

    group: UInt8[np.ndarray, "member machine window"]
    is_held_out: Bool[np.ndarray, "member machine clip"]
    is_clip: Bool[np.ndarray, "machine clip"]
    is_target: Bool[np.ndarray, "machine clip"]


def split_windows(
    arrays: TrainingArrays,
    config: Config,
    is_extra: Bool[np.ndarray, "machine clip"] | None = None,
    recordings: Int[np.ndarray, "machine clip"] | None = None,
) -> Split:
    """Decide, for each member, what is trained on and what is held out.

    Args:
        arrays: the clips.
        config: of the split.
        is_extra: clips that are not held out whole: no threshold is made of them.
        recordings: the number of the recording that each clip was cut from, where
            they were cut: folds keep a recording together.
    """
    if is_extra is None:
        is_extra = np.zeros(arrays.clips.n_frames.shape, bool)
    n_windows = np.maximum(arrays.clips.n_frames - config.features.n_context + 1, 0)
    n_folds, (n_machines, n_clips) = config.n_folds, arrays.clips.n_frames.shape
    n_members = len(config.seeds) * n_folds
    split = Split(
        group=np.zeros((n_members, *arrays.window_start.shape), np.uint8),  # PADDING
        is_held_out=np.zeros((n_members, n_machines, n_clips), bool),
        is_clip=(np.asarray(arrays.clips.n_frames) > 0) & ~is_extra,
        is_target=np.asarray(arrays.is_target),
    )
    groups = _groups(arrays, split.is_clip, config, recordings)
    for s, m in np.ndindex(len(config.seeds), n_machines):
        rng = np.random.default_rng([config.seeds[s], int(arrays.name_hash[m])])
        members = slice(s * n_folds, (s + 1) * n_folds)
        group = split.group[members, m, : n_windows[m].sum()]
        if config.train.split == "window":
            group[:] = TRAIN
            n_held_out = math.ceil(config.train.held_out_fraction * group.shape[1])
            group[:, rng.permutation(group.shape[1])[:n_held_out]] = HELD_OUT
            continue
        if config.train.split == "folds":
            folds = np.full(n_clips, n_folds)
            folds[split.is_clip[m]] = deal_groups(rng, groups[m], n_folds)
            held_out = folds == np.arange(n_folds)[:, None]
        else:
            held_out = _held_out_clips(
                rng,
                split.is_clip[m],
                arrays.is_target[m],
                config.train.held_out_fraction,
            )[None]
        split.is_held_out[members, m] = held_out
        use = np.where(held_out, HELD_OUT, TRAIN)
        group[:] = np.repeat(use, n_windows[m], axis=1)
    return split


def require_windows(split: Split, names: Sequence[str]) -> None:
    """Refuse machines of which a model would have too few windows to learn from.

    Raises:
        InputError: the machine.
    """
    fewest = (split.group == TRAIN).sum(-1).min(0)
    for name, count in zip(names, fewest, strict=True):
        if count < _FEWEST_WINDOWS:
            raise InputError(
                f"{name}: a model would learn from {count} of its windows, and needs "
                f"{_FEWEST_WINDOWS} or more: give longer training clips, or more"
            )


def split_notes(
    arrays: TrainingArrays, split: Split, names: Sequence[str], config: Config
) -> list[str]:
    """What a user should know of the training clips, a line each.

    Args:
        arrays: the clips, on the host.
        split: of them.
        names: of the machines.
        config: of the run.
    """
    notes = []
    alike = [name for m, name in enumerate(names) if _all_alike(arrays, split, m)]
    if alike:
        notes.append(
            f"The training clips of {', '.join(alike)} all sound the same, such as "
            "silence or copies: how much normal clips differ is not known, and any "
            "other sound is an alarm. Check the recordings."
        )
    if config.train.split == "folds":
        by_fold = split.is_held_out[: config.n_folds].any(-1)
        few = [
            f"{name} ({n})"
            for name, n in zip(names, by_fold.sum(0), strict=True)
            if n < config.n_folds
        ]
        if few:
            notes.append(
                f"Fewer training clips that sound different than the {config.n_folds} "
                f"folds: {', '.join(few)}. The other models learn from all clips, and "
                "thresholds are made without them."
            )
    return notes


def _all_alike(arrays: TrainingArrays, split: Split, machine: int) -> bool:
    """Whether the mean spectra of all clips are one; ends at the first that is not."""
    log_mel, n_frames = arrays.clips.log_mel[machine], arrays.clips.n_frames[machine]
    means = (
        np.asarray(log_mel[clip, : n_frames[clip]]).mean(0)
        for clip in np.flatnonzero(split.is_clip[machine])
    )
    first = next(means, np.zeros(0))
    return all(np.abs(mean - first).max() < _SAME for mean in means)


def _groups(
    arrays: TrainingArrays,
    is_clip: Bool[np.ndarray, "machine clip"],
    config: Config,
    recordings: Int[np.ndarray, "machine clip"] | None,
) -> list[Int[np.ndarray, "_"]]:
    """The groups of each machine's clips, where they are wanted; no padding."""
    if config.train.split != "folds":
        return []
    groups = []
    for m, of_machine in enumerate(is_clip):
        spectra = np.asarray(
            _spectra(arrays.clips.log_mel[m], arrays.clips.n_frames[m])[of_machine],
            np.float64,
        )
        each = np.arange(len(spectra))
        if recordings is not None:
            _, each = np.unique(recordings[m, of_machine], return_inverse=True)
            spectra = np.stack(
                [spectra[each == r].mean(0) for r in range(max(each) + 1)]
            )
        of_recording = groups_of_clips(
            spectra, config.train.group_distance, config.train.n_folds
        )
        groups.append(of_recording[each])
    return groups


@jax.jit
@in_float32
def _spectra(
    log_mels: Float[AnyArray, "clip frame mel"], n_frames: Int[AnyArray, "clip"]
) -> Float[Array, "clip feature"]:
    """What the clips of a machine sound like."""
    frames = jnp.arange(log_mels.shape[1])
    return jax.lax.map(
        lambda clip: spectrum(clip[0], (frames < clip[1]) * 1.0),
        (jnp.asarray(log_mels), jnp.asarray(n_frames)),
    )


def _held_out_clips(
    rng: np.random.Generator,
    is_clip: Bool[AnyArray, "clip"],
    is_target: Bool[AnyArray, "clip"],
    fraction: float,
) -> Bool[np.ndarray, "clip"]:
    """Whole clips of each domain: windows of one clip share frames.

    The count is rounded down, but one clip is held out in any case, of the larger
    domain.
    """
    held_out = np.zeros(len(is_clip), bool)
    domains = [np.flatnonzero(is_clip & (is_target == d)) for d in (False, True)]
    larger = max(domains, key=len)
    for clips in domains:
        count = max(int(fraction * len(clips)), int(clips is larger))
        held_out[rng.permutation(clips)[:count]] = True
    return held_out


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
