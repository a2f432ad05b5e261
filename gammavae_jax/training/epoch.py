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


def shuffled(key: PRNGKeyArray, group: UInt8[Array, "window"]) -> Int[Array, "window"]:
    """Return an order: shuffled training windows, shuffled held-out windows, padding.

    A window's random number depends only on its index and the key, so padding does not
    change the order.
    """
    bits = jax.random.bits(key, group.shape, jnp.uint32) >> 2
    rank = (group - jnp.uint8(TRAIN)) & jnp.uint8(3)  # padding (0) comes last
    return jnp.argsort(bits | (rank.astype(jnp.uint32) << 30))


def gather(
    config: Config,
    data: TrainingArrays,
    order: Int[Array, "window"],
    first: Int[Array, ""] | int,
    count: Int[Array, ""],
    step: Int[Array, ""],
) -> tuple[Float[Array, "batch feature"], Float[Array, "batch"], Int[Array, "batch"]]:
    """Gather batch number `step` from the `count` windows at `first` in the order.

    Return the windows (dB), their weights, which are 0 beyond `count`, and the index of
    each window's first frame. For normalised bands, clips lose their level.
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
    """Means over an epoch's windows, with held-out windows in evaluation mode.

    The training loss uses the KL weight of its epoch, the held-out loss the final one.
    The last two fields show posterior collapse on held-out windows (see `diagnostics`);
    they are NaN without held-out windows and for a stopped model.
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
    group: UInt8[Array, "window"],
) -> tuple[TrainState, EpochInfo]:
    """Train on each training window once, then evaluate on the held-out windows.

    If the loss or a parameter becomes infinite or NaN, the previous state is kept and
    `is_stopped` is set. A stopped state is returned unchanged, with losses of NaN.
    """
    key = jax.random.fold_in(key, epoch)
    order = shuffled(jax.random.fold_in(key, 0), group)
    n_train, n_held_out = (jnp.sum(group == g) for g in (TRAIN, HELD_OUT))
    is_active = ~state.is_stopped
    kl_weight = kl_weight_of(epoch, config.train)

    def train(state, step):
        batch, weight, _ = gather(config, data, order, 0, n_train, step)
        step_key = jax.random.fold_in(key, step + 1)
        state, terms = train_step(config, step_key, state, batch, weight, kl_weight)
        error = weight @ terms.reconstruction / weight.sum()
        errors = state.batch_errors.at[step].set(error)
        return state._replace(batch_errors=errors), terms

    def evaluate(moments, step):
        batch, weight, _ = gather(config, data, order, n_train, n_held_out, step)
        output, terms = evaluate_windows(config, trained, batch)
        return add_windows(moments, output, weight, config.model), terms

    # Batch normalisation cannot train on a single window, as it has no variance.
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
    """Scan `function` over the batches into which `count` windows are divided.

    Return its carry and the windows' mean loss terms, which are NaN without windows. A
    last batch with fewer than `smallest` windows is left out. Only the machine's own
    batches are computed, so small machines are quick where models run in turn.
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


def _epoch_of_model(config, member, epoch, state, data, group):
    key = model_key(member, data.name_hash)
    return train_epoch(config, key, epoch, state, data, group)


@dataclass(frozen=True)
class Trainer:
    """The compiled training programs of all models.

    States and infos are on the devices: placed arrays of kind "model".
    """

    initial: Any
    compiled: Callable[[Any, Any], tuple[Any, Any]]
    place: Callable[[int], Any]  # puts the number of an epoch on the devices

    def epoch(self, number: int, state: Any) -> tuple[Any, Any]:
        """Train one epoch, counted from 1; the state is donated.

        Return the next `TrainState` and the `EpochInfo` without waiting for them: the
        next epoch can start before they are read.
        """
        return self.compiled(self.place(number), state)


def make_trainer(
    config: Config,
    placement: Placement,
    data: Any,
    group: UInt8[np.ndarray, "member machine window"],
) -> Trainer:
    """Initialise all models and compile their training programs.

    Args:
        config: the model and training settings.
        placement: where the models train.
        data: `TrainingArrays`, on the host or placed.
        group: each window's group; see `Split`.
    """
    n_batches = -(-group.shape[-1] // config.train.batch_size)

    def place(number: int) -> Any:
        return placement.put(np.full(config.n_members, number, np.int32), "member")

    placed, groups = placement.put(data, "machine"), placement.put(group, "model")
    members = placement.put(member_numbers(config), "member")
    init = HashablePartial(_init_of_model, (config, n_batches))
    initial = placement.over_models(init, ["member", "machine"])(members, placed)
    kinds: list[Kind] = ["member", "member", "model", "machine", "model"]
    epoch = placement.over_models(
        HashablePartial(_epoch_of_model, (config,)), kinds, donate=[2]
    )
    compiled = epoch.compile(members, place(0), initial, placed, groups)
    return Trainer(
        initial, lambda n, state: compiled(members, n, state, placed, groups), place
    )
