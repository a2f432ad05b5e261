"""Runs a training epoch: shuffles the windows, gathers batches and trains on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import HELD_OUT, TRAIN, TrainingArrays
from gammavae_jax.devices.placement import HashablePartial, Kind, Placement
from gammavae_jax.models.loss import LossTerms, kl_weight_of, total_loss
from gammavae_jax.training.diagnostics import (
    active_units,
    add_windows,
    kl_per_latent,
    no_moments,
)
from gammavae_jax.training.members import member_numbers
from gammavae_jax.training.step import (
    TrainState,
    evaluate_windows,
    init_state,
    model_key,
    train_step,
)


def shuffled(
    key: PRNGKeyArray, window_use: UInt8[Array, "window"]
) -> Int[Array, "window"]:
    """Return a random order of windows: first training, then held-out, then padding.

    A window's position depends on a random number derived from the key and the window's
    index, so the amount of padding does not change the order.
    """
    bits = jax.random.bits(key, window_use.shape, jnp.uint32) >> 2
    rank = (window_use - jnp.uint8(TRAIN)) & jnp.uint8(3)  # padding (0) comes last
    return jnp.argsort(bits | (rank.astype(jnp.uint32) << 30))


def gather(
    config: Config,
    data: TrainingArrays,
    order: Int[Array, "window"],
    first: Int[Array, ""] | int,
    count: Int[Array, ""],
    step: Int[Array, ""],
) -> tuple[Float[Array, "batch feature"], Float[Array, "batch"], Int[Array, "batch"]]:
    """Gather the windows of batch number `step`.

    The `count` windows that start at position `first` of `order` are divided into
    batches. Return the windows (dB), their weights (0 for the padding of the last
    batch), and the index of each window's first frame. If the model normalises bands,
    the level of each clip is subtracted from its windows.
    """
    place = step * config.train.batch_size + jnp.arange(config.train.batch_size)
    start = data.window_start[order.at[first + place].get(mode="clip")]
    log_mel = data.clips.log_mel
    frames = log_mel.reshape(-1, log_mel.shape[-1])
    rows = start[:, None] + jnp.arange(config.features.n_context)
    batch = frames[rows].reshape(len(place), -1)
    if config.model.normalises_bands:
        batch -= data.clips.level[start // log_mel.shape[-2]][:, None]
    return batch, (place < count).astype(batch.dtype), start


class EpochInfo(NamedTuple):
    """The mean losses of an epoch, and diagnostics of posterior collapse.

    The first three fields are means over training windows. The training loss uses the
    epoch's KL weight, and the held-out loss uses the final KL weight. The last two
    fields describe held-out windows (see `diagnostics`). They are NaN if there are no
    such windows or the model has stopped. Held-out windows are evaluated after
    training, in evaluation mode.
    """

    loss: Float[Array, "*model"]
    reconstruction: Float[Array, "*model"]
    kl: Float[Array, "*model"]
    held_out_loss: Float[Array, "*model"]
    is_stopped: Bool[Array, "*model"]
    kl_per_latent: Float[Array, "*model latent"]
    active_units: Float[Array, "*model"]


def train_epoch(
    config: Config,
    key: PRNGKeyArray,
    epoch: Int[Array, ""],
    state: TrainState,
    data: TrainingArrays,
    window_use: UInt8[Array, "window"],
) -> tuple[TrainState, EpochInfo]:
    """Train on each training window once, then evaluate on the held-out windows.

    If the loss or a parameter becomes infinite or NaN, the state before the epoch is
    kept, and `is_stopped` is set. A state that is already stopped is returned
    unchanged, with losses of NaN.
    """
    key = jax.random.fold_in(key, epoch)
    order = shuffled(jax.random.fold_in(key, 0), window_use)
    n_train, n_held_out = (jnp.sum(window_use == g) for g in (TRAIN, HELD_OUT))
    is_active = ~state.is_stopped
    kl_weight = kl_weight_of(epoch, config.train)

    def train(state, step):
        batch, weight, _ = gather(config, data, order, 0, n_train, step)
        step_key = jax.random.fold_in(key, step + 1)
        state, terms = train_step(config, step_key, state, batch, weight, kl_weight)
        error = weight @ terms.reconstruction / weight.sum()
        # With `vmap`, setting one element would be a scatter, in a separate kernel.
        is_batch = jnp.arange(len(state.batch_errors)) == step
        errors = jnp.where(is_batch, error, state.batch_errors)
        return state._replace(batch_errors=errors), terms

    def evaluate(moments, step):
        batch, weight, _ = gather(config, data, order, n_train, n_held_out, step)
        output, terms = evaluate_windows(config, trained, batch)
        return add_windows(moments, output, weight, config.model), terms

    # Batch normalisation cannot train on a single window, which has no variance.
    n_active = n_train * is_active
    trained, terms = _mean_terms(config, train, state, n_active, smallest=2)
    moments, n_active = no_moments(config.model), n_held_out * is_active
    moments, held_out = _mean_terms(config, evaluate, moments, n_active, smallest=1)
    loss = total_loss(terms, kl_weight)
    finite = is_active & _all_finite((loss, trained.params, trained.batch_stats))
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), trained, state)
    return kept._replace(is_stopped=~finite), EpochInfo(
        loss=loss,
        reconstruction=terms.reconstruction,
        kl=terms.kl,
        held_out_loss=total_loss(held_out, config.train.kl_weight),
        is_stopped=~finite,
        kl_per_latent=jnp.where(finite, kl_per_latent(moments), jnp.nan),
        active_units=jnp.where(finite, active_units(moments), jnp.nan),
    )


def _mean_terms(
    config: Config,
    function: Callable,
    carry: Any,
    count: Int[Array, ""],
    smallest: int,
) -> tuple[Any, LossTerms]:
    """Call `function` on every batch and average the loss terms over `count` windows.

    Return the final carry and the mean loss terms, which are NaN if there are no
    windows. If the last batch has fewer than `smallest` windows, it is left out. The
    loop ends after the machine's last batch, so a machine with few windows takes little
    time if models run one after another.
    """
    size = config.train.batch_size
    n_steps = (count + size - smallest) // size

    def body(step, folded):
        carry, sums = folded
        carry, terms = function(carry, step)
        is_window = jnp.arange(size) < count - step * size
        sums = jax.tree.map(lambda s, t: s + jnp.sum(t, where=is_window), sums, terms)
        return carry, sums

    zeros = LossTerms(jnp.zeros(()), jnp.zeros(()))
    carry, sums = jax.lax.fori_loop(0, n_steps, body, (carry, zeros))
    n_used = jnp.minimum(count, n_steps * size)
    return carry, LossTerms(*(s / n_used for s in sums))


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


def _init_of_model(config, n_batches, member, data):
    key = model_key(member, data.name_hash)
    return init_state(config, jax.random.fold_in(key, 0), n_batches)


def _epoch_of_model(config, member, epoch, state, data, window_use):
    key = model_key(member, data.name_hash)
    return train_epoch(config, key, epoch, state, data, window_use)


@dataclass(frozen=True)
class Trainer:
    """The compiled program that trains all models, and the models' initial states.

    Each `TrainState` and `EpochInfo` stays on the devices, as arrays of kind "model".
    """

    initial: Any
    compiled: Callable[[Any, Any], tuple[Any, Any]]
    place: Callable[[int], Any]  # copies an epoch's number to the devices

    def epoch(self, number: int, state: Any) -> tuple[Any, Any]:
        """Run training epoch `number`, counted from 1; the state is donated.

        Return the next `TrainState` and the `EpochInfo` without waiting for them: the
        next epoch can start before they are read.
        """
        return self.compiled(self.place(number), state)


def make_trainer(
    config: Config,
    placement: Placement,
    data: Any,
    window_use: UInt8[np.ndarray, "member machine window"],
) -> Trainer:
    """Initialise all models and compile their training programs.

    Args:
        config: the model and training settings.
        placement: the placement of the models.
        data: the `TrainingArrays`, on the host or already placed.
        window_use: the use of each window; see `Split`.
    """
    n_batches = -(-window_use.shape[-1] // config.train.batch_size)

    def place(number: int) -> Any:
        return placement.put(np.full(config.n_members, number, np.int32), "member")

    placed, use = placement.put(data, "machine"), placement.put(window_use, "model")
    members = placement.put(member_numbers(config), "member")
    init = HashablePartial(_init_of_model, (config, n_batches))
    initial = placement.over_models(init, ["member", "machine"])(members, placed)
    kinds: list[Kind] = ["member", "member", "model", "machine", "model"]
    epoch = placement.over_models(
        HashablePartial(_epoch_of_model, (config,)), kinds, donate=[2]
    )
    compiled = epoch.compile(members, place(0), initial, placed, use)
    return Trainer(
        initial, lambda n, state: compiled(members, n, state, placed, use), place
    )
