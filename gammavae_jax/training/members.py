"""The members (models) of each seed, one per fold, and the clips that each describes.

The member axis has the folds of the first seed, then those of the next. NumPy only.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from gammavae_jax.config import Config

NO_FOLD = -1  # of a clip that every member was trained on
_SIZES_CHOSEN = 8  # different numbers of chosen clips that programs are compiled for


def member_numbers(config: Config) -> UInt32[np.ndarray, "member 2"]:
    """Return each member's seed and fold, which determine its random numbers."""
    folds = range(config.n_folds)
    pairs = [(seed, fold) for seed in config.seeds for fold in folds]
    return np.array(pairs, np.uint32)


def assign_member(
    is_held_out: Bool[np.ndarray, "member machine clip"],
    is_clip: Bool[np.ndarray, "machine clip"],
    n_folds: int,
) -> Bool[np.ndarray, "member machine clip"]:
    """Mark the member of each seed that describes each clip.

    It is the member that was not trained on the clip, or the first if all were.
    """
    by_seed = is_held_out.reshape(-1, n_folds, *is_clip.shape).copy()
    by_seed[:, 0] |= is_clip & ~by_seed.any(1)
    return by_seed.reshape(is_held_out.shape)


def folds_of_clips(
    is_held_out: Bool[np.ndarray, "member machine clip"], n_folds: int
) -> Int[np.ndarray, "seed machine clip"]:
    """Return the fold that holds out each clip; `NO_FOLD` if there is none."""
    by_seed = is_held_out.reshape(-1, n_folds, *is_held_out.shape[1:])
    return np.where(by_seed.any(1), by_seed.argmax(1), NO_FOLD)


def chosen_indices(
    is_wanted: Bool[np.ndarray, "member machine clip"],
) -> tuple[
    Int[np.ndarray, "member machine chosen"], Bool[np.ndarray, "member machine chosen"]
]:
    """Return each model's indices of wanted clips, padded, and a mask of real indices.

    All models get the same number of indices, rounded up to one of a few sizes, because
    each size needs its own compiled program; the mask excludes the padding.
    """
    step = -(-is_wanted.shape[-1] // _SIZES_CHOSEN)
    n_chosen = max(1, -(-int(is_wanted.sum(-1).max()) // step) * step)
    chosen = np.argsort(~is_wanted, axis=-1, kind="stable")[..., :n_chosen]
    return chosen.astype(np.int32), np.take_along_axis(is_wanted, chosen, axis=-1)


def by_clip(
    values: Float[np.ndarray, "member machine chosen *rest"],
    chosen: Int[np.ndarray, "member machine chosen"],
    is_used: Bool[np.ndarray, "member machine chosen"],
    n_clips: int,
    config: Config,
) -> Float[np.ndarray, "seed machine clip *rest"]:
    """Put the values of chosen clips at the clips' own indices, with NaN elsewhere."""
    n_machines, rest = values.shape[1], values.shape[3:]
    out = np.full((len(config.seeds), n_machines, n_clips, *rest), np.nan)
    for member, machine in np.ndindex(*values.shape[:2]):
        used = is_used[member, machine]
        place = out[member // config.n_folds, machine]
        place[chosen[member, machine, used]] = values[member, machine, used]
    return out
