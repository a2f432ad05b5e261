"""Training: one machine's pure step and epoch, and all machines and seeds at once.

Randomness is a function of seed and fold, the machine's name, the epoch and the step,
so a machine learns the same beside others as alone, and a resumed run draws what an
unbroken one would have drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8, UInt32

from gammavae_jax.batches import gather, shuffled
from gammavae_jax.config import Config
from gammavae_jax.data.arrays import HELD_OUT, TRAIN, AnyArray, MachineArrays
from gammavae_jax.devices.placement import Kind, Layout, Settled
from gammavae_jax.diagnostics import (
    active_units,
    add_windows,
    kl_per_latent,
    no_moments,
)
from gammavae_jax.members import member_numbers
from gammavae_jax.models.autoencoder import AutoEncoder, ModelOutput, reconstruct
from gammavae_jax.models.loss import LossTerms, kl_weight_of, loss_terms, total_loss


class TrainState(NamedTuple):
    """A model in training; `is_stopped` once it could not stay finite.

    `batch_errors` are the mean squared errors of the batches of its last epoch, each
    as the model then was, NaN where there was no batch: the official baseline makes
    its threshold of them.
    """

    params: Any
    batch_stats: Any
    opt_state: Any
    batch_errors: Float[Array, "*run batch"]
    is_stopped: Bool[Array, "*run"]


class EpochInfo(NamedTuple):
    """Means over the windows of an epoch; held-out ones in evaluation mode.

    The training loss has the KL weight of its epoch, the held-out loss the full one.
    The last two say whether the code has collapsed (see `diagnostics`), of the
    held-out windows: NaN where there are none, or once a run is stopped.
    """

    loss: Float[Array, "*run"]
    reconstruction: Float[Array, "*run"]
    kl: Float[Array, "*run"]
    held_out_loss: Float[Array, "*run"]
    is_stopped: Bool[Array, "*run"]
    kl_per_latent: Float[Array, "*run latent"]
    active_units: Float[Array, "*run"]


def init_state(config: Config, key: PRNGKeyArray, n_batches: int = 1) -> TrainState:
    """A model before its first step, and room for the errors of so many batches."""
    dummy = jnp.zeros((2, config.features.n_features))
    model = AutoEncoder(config.model, config.features.n_context)
    variables = model.init(key, dummy, jnp.ones(2), None)
    params = variables["params"]
    opt_state = optimizer(config).init(params)
    return TrainState(
        params,
        variables["batch_stats"],
        opt_state,
        batch_errors=jnp.full(n_batches, jnp.nan),
        is_stopped=jnp.array(False),
    )


def with_room_for(state: TrainState, n_batches: int) -> TrainState:
    """A state on the host, in arrays as others need them that train beside it."""
    known = state.batch_errors[..., :n_batches]
    errors = np.full((*known.shape[:-1], n_batches), np.nan, np.float32)
    errors[..., : known.shape[-1]] = known
    return state._replace(batch_errors=errors)


def optimizer(config: Config) -> optax.GradientTransformation:
    """Adam at a constant rate, as the official baseline."""
    return optax.adam(config.train.learning_rate)


def train_step(
    config: Config,
    key: PRNGKeyArray,
    state: TrainState,
    windows: Float[Array, "window feature"],
    weight: Float[Array, "window"],
    kl_weight: float | Float[Array, ""] | None = None,
) -> tuple[TrainState, LossTerms]:
    """One step of Adam on the mean loss of the windows of weight 1.

    Without a KL weight it is the configuration's full one. Returns the next state and
    the terms of each window before the step.
    """
    if kl_weight is None:
        kl_weight = config.train.kl_weight
    model = AutoEncoder(config.model, config.features.n_context)

    def mean_loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        output, updates = model.apply(
            variables, windows, weight, key, mutable=["batch_stats"]
        )
        terms = loss_terms(cast(ModelOutput, output), config.model)
        loss = total_loss(terms, kl_weight)
        return weight @ loss / weight.sum(), (terms, updates["batch_stats"])

    gradients, (terms, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = optimizer(config).update(gradients, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    return state._replace(
        params=params, batch_stats=batch_stats, opt_state=opt_state
    ), terms


def evaluate_windows(
    config: Config,
    state: TrainState,
    windows: Float[Array, "window feature"],
) -> tuple[ModelOutput, LossTerms]:
    """What the model makes of windows in evaluation mode, and each one's loss terms."""
    params, batch_stats = state.params, state.batch_stats
    n_context = config.features.n_context
    output = reconstruct(config.model, params, batch_stats, windows, n_context)
    return output, loss_terms(output, config.model)


def train_epoch(
    config: Config,
    key: PRNGKeyArray,
    epoch: Int[Array, ""],
    state: TrainState,
    data: MachineArrays,
    group: UInt8[Array, "window"],
) -> tuple[TrainState, EpochInfo]:
    """Train on each training window once, then look at the held-out ones.

    If the loss or a parameter does not stay finite, the state of before the epoch is
    kept and `is_stopped` is set; a stopped state is returned as it is, its losses NaN.
    """
    key = jax.random.fold_in(key, epoch)
    order = shuffled(jax.random.fold_in(key, 0), group)
    n_train, n_held_out = (jnp.sum(group == g) for g in (TRAIN, HELD_OUT))
    is_active = ~state.is_stopped
    kl_weight = kl_weight_of(epoch, config.train)

    def train_on(carry, step):
        batch, weight, _ = gather(config, data, order, 0, n_train, step)
        step_key = jax.random.fold_in(key, step + 1)
        carry, terms = train_step(config, step_key, carry, batch, weight, kl_weight)
        error = weight @ terms.reconstruction / weight.sum()
        errors = carry.batch_errors.at[step].set(error)
        return carry._replace(batch_errors=errors), terms

    def look_at(moments, step):
        batch, weight, _ = gather(config, data, order, n_train, n_held_out, step)
        output, terms = evaluate_windows(config, trained, batch)
        return add_windows(moments, output, weight, config.model), terms

    # Of a single window, which has no variance, batch normalisation makes nothing.
    trained, terms = _mean_terms(
        config, train_on, state, n_train * is_active, smallest=2
    )
    moments, held_out = _mean_terms(
        config, look_at, no_moments(config.model), n_held_out * is_active, smallest=1
    )
    loss = total_loss(terms, kl_weight)
    finite = is_active & _all_finite((loss, trained.params, trained.batch_stats))
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), trained, state)
    kept = kept._replace(is_stopped=~finite)
    return kept, EpochInfo(
        loss=loss,
        reconstruction=terms.reconstruction,
        kl=terms.kl,
        held_out_loss=total_loss(held_out, config.train.kl_weight),
        is_stopped=kept.is_stopped,
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
    """Fold `function` over the batches of `count` windows.

    Returns its carry and the mean terms of the windows, NaN of none. A last batch of
    fewer than `smallest` windows is left out. The number of batches is the machine's
    own: where runs follow each other, a short machine takes a short time.
    """
    size = config.train.batch_size
    n_steps = (count + size - smallest) // size

    def body(step, folded):
        carry, sums = folded
        carry, terms = function(carry, step)
        is_window = jnp.arange(size) < count - step * size
        sums = jax.tree.map(lambda s, t: s + jnp.sum(t, where=is_window), sums, terms)
        return carry, sums

    nothing = LossTerms(jnp.zeros(()), jnp.zeros(()))
    carry, sums = jax.lax.fori_loop(0, n_steps, body, (carry, nothing))
    n_used = jnp.minimum(count, n_steps * size)
    return carry, LossTerms(*(s / n_used for s in sums))


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


def run_key(
    member: UInt32[AnyArray, "2"], name_hash: UInt32[AnyArray, ""]
) -> PRNGKeyArray:
    """The key from which all of a run's randomness is folded.

    `member` is a seed and a fold (see `members.member_numbers`).
    """
    seed, fold = jnp.asarray(member)
    key = jax.random.fold_in(jax.random.key(seed), jnp.asarray(name_hash))
    return jax.random.fold_in(key, fold)


def _init_of_run(config, n_batches, member, data):
    key = run_key(member, data.name_hash)
    return init_state(config, jax.random.fold_in(key, 0), n_batches)


def _epoch_of_run(config, member, epoch, state, data, group):
    key = run_key(member, data.name_hash)
    return train_epoch(config, key, epoch, state, data, group)


@dataclass(frozen=True)
class Trainer:
    """A training of every machine and member, compiled.

    Its states and infos are placed as a `Layout` places arrays of kind "run".
    """

    initial: Any
    compiled: Callable[[Any, Any], tuple[Any, Any]]
    place: Callable[[int], Any]  # the number of an epoch, on the devices

    def epoch(self, number: int, state: Any) -> tuple[Any, Any]:
        """Train one epoch, numbered from 1; the state that is given is donated.

        Returns the next `TrainState` and the `EpochInfo`, which may still be in the
        making: the next epoch can be asked for already.
        """
        return self.compiled(self.place(number), state)


def make_trainer(
    config: Config,
    layout: Layout,
    data: Any,
    group: UInt8[np.ndarray, "member machine window"],
) -> Trainer:
    """Initialise and compile the training of every machine and member.

    Args:
        config: of model and training.
        layout: which device works on which runs.
        data: `MachineArrays`, on the host or placed.
        group: what each window is used for.
    """
    n_batches = -(-group.shape[-1] // config.train.batch_size)

    def place(number: int) -> Any:
        return layout.put(np.full(config.n_members, number, np.int32), "member")

    placed, groups = layout.put(data, "machine"), layout.put(group, "run")
    members = layout.put(member_numbers(config), "member")
    init = Settled(_init_of_run, (config, n_batches))
    initial = layout.over_runs(init, ["member", "machine"])(members, placed)
    kinds: list[Kind] = ["member", "member", "run", "machine", "run"]
    epoch = layout.over_runs(Settled(_epoch_of_run, (config,)), kinds, donate=[2])
    compiled = epoch.compile(members, place(0), initial, placed, groups)
    return Trainer(
        initial, lambda n, state: compiled(members, n, state, placed, groups), place
    )
