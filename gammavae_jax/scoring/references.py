"""Fits the reference sets: the training clips that new clips are compared with.

The statistics of the log-mels themselves need no model. Their reference sets hold all
training clips, and are the same for every member. For the statistics of a model's
residual or code, each training clip is described by the member that was not trained on
it, and a member's reference set holds the training clips of the other folds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from gammavae_jax.config import MODEL_FREE_STATISTICS, Config
from gammavae_jax.data.arrays import hash_name
from gammavae_jax.devices.placement import HashablePartial, Placement
from gammavae_jax.scoring.neighbours import Reference, fit_reference, places_enough
from gammavae_jax.scoring.scorer import describe_machine, wanted_statistics
from gammavae_jax.training.members import (
    NO_FOLD,
    assign_member,
    by_clip,
    chosen_indices,
    folds_of_clips,
)
from gammavae_jax.training.split import Split

# Accelerators are fastest with many clips at a time; a CPU's cache holds only one clip.
# None means one by one. A value of 1 would mean batches of one clip.
CLIPS_AT_ONCE = {"map": None, "vmap": 16}


def fit_references(
    config: Config,
    machines: Sequence[tuple[str, str]],
    placement: Placement,
    scorer: Any,
    data: Any,
    split: Split,
) -> dict[str, Reference]:
    """Fit a reference set for each statistic that the configured scores need.

    Args:
        config: the configuration.
        machines: each machine's type and section.
        placement: the placement of the models.
        scorer: the placed `FittedModel`.
        data: the placed training clips, `ClipArrays`.
        split: the split, with the links between training clips.

    Returns:
        A reference set for each statistic, with the axes `member machine ...`.
    """
    names, n_clips = wanted_statistics(config), split.is_clip.shape[1]
    if not names:
        return {}
    held_out = split.is_held_out
    chosen, is_used = chosen_indices(
        assign_member(held_out, split.is_clip, config.n_folds)
    )
    of_clips = HashablePartial(
        describe_machine, (config, CLIPS_AT_ONCE[placement.batching])
    )
    describe = placement.over_models(of_clips, ["model", "machine", "model"])
    described = placement.get(describe(scorer, data, placement.put(chosen, "model")))
    fit = {
        name: _fitting(
            config,
            machines,
            split,
            by_clip(described[name], chosen, is_used, n_clips, config),
            name in MODEL_FREE_STATISTICS,
        )
        for name in names
    }
    models = config.n_members, len(machines)
    return {name: _stack_models(models, fit[name]) for name in names}


def _fitting(
    config: Config,
    machines: Sequence[tuple[str, str]],
    split: Split,
    statistic: Float[np.ndarray, "seed machine clip feature"],
    is_model_free: bool,
) -> Callable[[int, int], Reference]:
    """Return a function that fits the reference set of one member and machine."""
    folds = folds_of_clips(split.is_held_out, config.n_folds)
    if is_model_free:
        folds = np.full_like(folds, NO_FOLD)
    n_places = places_enough(split.is_clip.shape[1], config.scoring)

    def fit(member: int, machine: int) -> Reference:
        seed, fold = divmod(member, config.n_folds)
        fold_of_clip, is_clip = folds[seed, machine], split.is_clip[machine]
        is_other = is_clip & (fold_of_clip != fold)
        is_same = (fold_of_clip[:, None] == fold_of_clip) & (fold_of_clip != NO_FOLD)
        name_hash = hash_name("_".join(machines[machine]))
        return fit_reference(
            statistic[seed, machine],
            split.is_excluded[machine] | is_same,
            # If this fold holds all clips, the reference set must use them.
            is_other if is_other.any() else is_clip,
            split.is_target[machine],
            config.scoring,
            n_places,
            np.random.default_rng([config.seeds[seed], fold, name_hash]),
        )

    return fit


def _stack_models(shape: tuple[int, int], make: Callable[[int, int], Any]) -> Any:
    """Call `make` for each index of an array of this shape; stack the results."""
    trees = [make(*model) for model in np.ndindex(*shape)]
    return jax.tree.map(
        lambda *leaves: np.stack(leaves).reshape(*shape, *leaves[0].shape), *trees
    )
