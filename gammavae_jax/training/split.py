"""Splits each machine's clips into training windows and held-out clips."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int, UInt8

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import HELD_OUT, PADDING, TRAIN, AnyArray, TrainingArrays
from gammavae_jax.data.features import edge_frames
from gammavae_jax.data.recordings.clips import parts_held_together
from gammavae_jax.data.statistics import spectrum
from gammavae_jax.devices.placement import in_float32
from gammavae_jax.errors import InputError
from gammavae_jax.training.links import link_clips, link_groups

_FEWEST_WINDOWS = 2  # for batch normalisation: a single window has no variance
_SAME = 1e-2  # dB in each band; separate recordings of one sound differ by more
_LARGEST_SHARE = (
    2.0  # the size of the largest cluster, in folds; at most half the clips
)
_SMALLEST_SPREAD = 1e-4  # relative to the mean spread; smaller ones are rounding errors


class Split(NamedTuple):
    """The use of each window (training, held-out or padding), and the held-out clips.

    A member is a seed or, if there are folds, one fold of a seed. `is_clip` excludes
    padding and clips that are never held out (`is_extra` of `split_windows`).
    """

    window_use: UInt8[np.ndarray, "member machine window"]  # PADDING, TRAIN or HELD_OUT
    is_held_out: Bool[np.ndarray, "member machine clip"]
    is_clip: Bool[np.ndarray, "machine clip"]
    is_target: Bool[np.ndarray, "machine clip"]
    is_linked: Bool[np.ndarray, "machine clip clip"]  # see `links`
    is_excluded: Bool[np.ndarray, "machine clip clip"]  # pairs that are not compared


def split_windows(
    arrays: TrainingArrays,
    config: Config,
    is_extra: Bool[np.ndarray, "machine clip"] | None = None,
    recordings: Sequence[Int[np.ndarray, "_"]] | None = None,
    attributes: Sequence[Int[np.ndarray, "_"]] | None = None,
    folds: Sequence[Int[np.ndarray, "_"]] | None = None,
) -> Split:
    """Choose each member's training windows and held-out clips.

    Args:
        arrays: the training clips.
        config: the configuration; `train.split` selects the kind of split.
        is_extra: marks clips that are trained on but never held out; default: none.
        recordings: for each machine, each clip's recording number or group number.
            Clips of one recording go into the same fold, unless there are fewer
            recordings than folds. Default: each clip is a recording.
        attributes: for each machine, a number for each clip. Clips with the same number
            have the same attributes and are never compared. Default: unknown.
        folds: for each machine, the fold that holds out each clip. Default: similar
            clips are clustered, and the clusters are assigned to the folds.
    """
    if is_extra is None:
        is_extra = np.zeros(arrays.clips.n_frames.shape, bool)
    n_windows = np.maximum(arrays.clips.n_frames - config.features.n_context + 1, 0)
    n_folds, (n_machines, n_clips) = config.n_folds, arrays.clips.n_frames.shape
    n_members, fraction = config.n_members, config.train.held_out_fraction
    is_linked = _links(arrays, config, recordings)
    split = Split(
        window_use=np.full((n_members, *arrays.window_start.shape), PADDING, np.uint8),
        is_held_out=np.zeros((n_members, n_machines, n_clips), bool),
        is_clip=(np.asarray(arrays.clips.n_frames) > 0) & ~is_extra,
        is_target=np.asarray(arrays.is_target),
        is_linked=is_linked,
        is_excluded=link_groups(is_linked, attributes),
    )
    if folds is None:
        clusters = _clusters(arrays, split.is_clip, config, recordings)
    for s, m in np.ndindex(len(config.seeds), n_machines):
        rng = np.random.default_rng([config.seeds[s], int(arrays.name_hash[m])])
        members = slice(s * n_folds, (s + 1) * n_folds)
        use = split.window_use[members, m, : n_windows[m].sum()]
        held_out, is_clip = split.is_held_out[members, m], split.is_clip[m]
        if config.train.split == "window":
            n_held_out = math.ceil(fraction * use.shape[1])
            use[:] = TRAIN
            use[:, rng.permutation(use.shape[1])[:n_held_out]] = HELD_OUT
            continue
        if config.train.split == "folds":
            of_clip = (
                deal_clusters(rng, clusters[m], n_folds)
                if folds is None
                else folds[m][np.flatnonzero(is_clip)]
            )
            held_out[:, is_clip] = of_clip == np.arange(n_folds)[:, None]
        else:
            held_out[0] = _held_out_clips(rng, is_clip, split.is_target[m], fraction)
        use[:] = np.repeat(np.where(held_out, HELD_OUT, TRAIN), n_windows[m], axis=1)
    return split


def _links(
    arrays: TrainingArrays,
    config: Config,
    recordings: Sequence[Int[np.ndarray, "_"]] | None,
) -> Bool[np.ndarray, "machine clip clip"]:
    """Return the links between clips.

    If the split is not `folds`, a clip is linked only to itself. If all clips come from
    one recording, its parts are treated as recordings, so that each clip can be
    compared with others.
    """
    if config.train.split == "folds":
        if recordings is not None:
            n = config.n_folds
            recordings = [
                each if len(np.unique(each)) > 1 else parts_held_together(each, n)
                for each in recordings
            ]
        return link_clips(arrays.clips, recordings, edge_frames(config.features))
    n_machines, n_clips = arrays.clips.n_frames.shape
    return np.tile(np.eye(n_clips, dtype=bool), (n_machines, 1, 1))


def require_windows(split: Split, names: Sequence[str]) -> None:
    """Check that each model has enough training windows.

    Raises:
        InputError: a model has too few windows; the message names its machine.
    """
    fewest = (split.window_use == TRAIN).sum(-1).min(0)
    for name, count in zip(names, fewest, strict=True):
        if count < _FEWEST_WINDOWS:
            raise InputError(
                f"{name}: too few windows to train a model ({count}; at least "
                f"{_FEWEST_WINDOWS} are needed): add training clips, or use longer ones"
            )


def split_notes(
    arrays: TrainingArrays, split: Split, names: Sequence[str], config: Config
) -> list[str]:
    """Return one-line warnings about the machines' training clips."""
    notes = []
    same = [
        name for m, name in enumerate(names) if _all_sound_the_same(arrays, split, m)
    ]
    if same:
        notes.append(
            "Some machines have training clips that all sound the same, like silence "
            f"or copies: {', '.join(same)}. How much normal sounds vary is unknown for "
            "these machines, so any other sound raises an alarm. Check the recordings."
        )
    if config.train.split == "folds":
        n_used = split.is_held_out[: config.n_folds].any(-1).sum(0)
        few = [
            f"{name} ({n})"
            for name, n in zip(names, n_used, strict=True)
            if n < config.n_folds
        ]
        if few:
            notes.append(
                "Some machines have fewer clusters of similar training clips than "
                f"folds ({config.n_folds}): {', '.join(few)}. The models for the "
                "remaining folds train on all clips and do not affect thresholds."
            )
    return notes


def _all_sound_the_same(arrays: TrainingArrays, split: Split, machine: int) -> bool:
    """Return whether all of a machine's clips have the same mean spectrum."""
    log_mel, n_frames = arrays.clips.log_mel[machine], arrays.clips.n_frames[machine]
    means = (
        np.asarray(log_mel[clip, : n_frames[clip]]).mean(0)
        for clip in np.flatnonzero(split.is_clip[machine])
    )
    first = next(means, np.zeros(0))
    return all(np.abs(mean - first).max() < _SAME for mean in means)


def _clusters(
    arrays: TrainingArrays,
    is_clip: Bool[np.ndarray, "machine clip"],
    config: Config,
    recordings: Sequence[Int[np.ndarray, "_"]] | None,
) -> list[Int[np.ndarray, "_"]]:
    """Return each machine's clusters of clips, or [] if the split is not `folds`."""
    if config.train.split != "folds":
        return []
    clusters = []
    for m, used in enumerate(is_clip):
        spectra = np.asarray(
            _spectra(arrays.clips.log_mel[m], arrays.clips.n_frames[m])[used],
            np.float64,
        )
        recording = np.arange(len(spectra))
        if recordings is not None:
            parts = parts_held_together(recordings[m], config.n_folds)
            numbers = parts[np.flatnonzero(used)]
            _, recording = np.unique(numbers, return_inverse=True)
            spectra = np.stack(
                [spectra[recording == r].mean(0) for r in range(max(recording) + 1)]
            )
        of_recording = clusters_of_clips(
            spectra, config.train.group_distance, config.train.n_folds
        )
        clusters.append(of_recording[recording])
    return clusters


@jax.jit
@in_float32
def _spectra(
    log_mels: Float[AnyArray, "clip frame mel"], n_frames: Int[AnyArray, "clip"]
) -> Float[Array, "clip feature"]:
    """Compute the `spectrum` statistic of each clip of a machine."""
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
    """Hold out whole clips from each domain, because a clip's windows share frames.

    The number of clips is rounded down, but is at least one in the larger domain.
    """
    held_out = np.zeros(len(is_clip), bool)
    domains = [np.flatnonzero(is_clip & (is_target == d)) for d in (False, True)]
    larger = max(domains, key=len)
    for clips in domains:
        count = max(int(fraction * len(clips)), int(clips is larger))
        held_out[rng.permutation(clips)[:count]] = True
    return held_out


def clusters_of_clips(
    statistic: Float[np.ndarray, "clip feature"], distance: float, n_folds: int
) -> Int[np.ndarray, "clip"]:
    """Cluster similar clips; return the number of each clip's cluster.

    Average linkage joins clusters whose mean distance is at most `distance` times the
    median distance between clips. A cluster larger than two folds, or than half of all
    clips, is split again, based on the median distance within the cluster.
    """
    n_clips = len(statistic)
    largest = max(1.0, n_clips * min(0.5, _LARGEST_SHARE / n_folds))
    spread = statistic.std(0)
    varies = spread > _SMALLEST_SPREAD * spread.mean()
    points = (statistic[:, varies] - statistic[:, varies].mean(0)) / spread[varies]
    return _cut(points, distance, largest)


def deal_clusters(
    rng: np.random.Generator, clusters: Int[np.ndarray, "clip"], n_folds: int
) -> Int[np.ndarray, "clip"]:
    """Assign each cluster, largest first, to the fold with the fewest clips so far.

    Return each clip's fold.
    """
    numbers, sizes = np.unique(clusters, return_counts=True)
    fold_of_cluster, load = np.zeros(len(numbers), int), np.zeros(n_folds)
    for cluster in np.lexsort((rng.random(len(numbers)), -sizes)):
        fold_of_cluster[cluster] = load.argmin()
        load[fold_of_cluster[cluster]] += sizes[cluster]
    return fold_of_cluster[np.searchsorted(numbers, clusters)]


def _cut(
    points: Float[np.ndarray, "clip feature"], distance: float, largest: float
) -> Int[np.ndarray, "clip"]:
    """Cluster points by average linkage; split clusters larger than `largest`."""
    alone = np.arange(len(points))
    if len(points) < 2:
        return alone
    gaps = scipy.spatial.distance.pdist(points)
    tree = scipy.cluster.hierarchy.average(gaps)
    limit = distance * np.median(gaps)
    clusters = scipy.cluster.hierarchy.fcluster(tree, limit, "distance")
    if clusters.max() == 1:
        return alone  # the points are indistinguishable
    out, n_clusters = np.zeros(len(points), int), 0
    for cluster in range(1, clusters.max() + 1):
        inside = clusters == cluster
        parts = np.zeros(inside.sum(), int)
        if inside.sum() > largest:
            parts = _cut(points[inside], distance, largest)
        out[inside] = n_clusters + parts
        n_clusters += parts.max() + 1
    return out
