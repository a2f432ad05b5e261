"""Numbers the members (combinations of a seed and a fold) and assigns clips to them.

On the member axis, the first seed's folds come first, then the second seed's folds.
This module uses only NumPy.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from gammavae_jax.config import Config

NO_FOLD = -1  # the fold of a clip that every member was trained on
_SIZES_CHOSEN = 8  # the padded number of chosen clips takes at most this many values


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
    """Mark, for each clip and seed, the member that computes the clip's statistics.

    This is the member that was not trained on the clip or, if all members were trained
    on it, the first one.
    """
    by_seed = is_held_out.reshape(-1, n_folds, *is_clip.shape).copy()
    by_seed[:, 0] |= is_clip & ~by_seed.any(1)
    return by_seed.reshape(is_held_out.shape)


def folds_of_clips(
    is_held_out: Bool[np.ndarray, "member machine clip"], n_folds: int
) -> Int[np.ndarray, "seed machine clip"]:
    """Return the fold that holds out each clip, or `NO_FOLD` if no fold does."""
    by_seed = is_held_out.reshape(-1, n_folds, *is_held_out.shape[1:])
    return np.where(by_seed.any(1), by_seed.argmax(1), NO_FOLD)


def chosen_indices(
    is_wanted: Bool[np.ndarray, "member machine clip"],
) -> tuple[
    Int[np.ndarray, "member machine chosen"], Bool[np.ndarray, "member machine chosen"]
]:
    """Return the indices of the clips chosen for each model, and a mask for padding.

    The indices are padded to the same number for every model. This number is rounded up
    to one of a few sizes, because each size needs its own compiled program.
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
    """Place the values of the chosen clips in an array that covers all clips.

    The values of all other clips are NaN.
    """
    n_machines, rest = values.shape[1], values.shape[3:]
    out = np.full((len(config.seeds), n_machines, n_clips, *rest), np.nan)
    for member, machine in np.ndindex(*values.shape[:2]):
        used = is_used[member, machine]
        place = out[member // config.n_folds, machine]
        place[chosen[member, machine, used]] = values[member, machine, used]
    return out
