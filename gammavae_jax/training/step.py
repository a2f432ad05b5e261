"""Training: one machine's pure step and epoch, and all machines and seeds at once.

Randomness is a function of seed and fold, the machine's name, the epoch and the step,
so a machine learns the same beside others as alone, and a resumed run draws what an
unbroken one would have drawn.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import AnyArray
from gammavae_jax.models.autoencoder import AutoEncoder, ModelOutput, reconstruct
from gammavae_jax.models.loss import LossTerms, loss_terms, total_loss


class TrainState(NamedTuple):
    """A model in training; `is_stopped` once it could not stay finite.

    `batch_errors` are the mean squared errors of the batches of its last epoch, each
    as the model then was, NaN where there was no batch: the official baseline makes
    its threshold of them.
    """

    params: Any
    batch_stats: Any
    opt_state: Any
    batch_errors: Float[Array, "*model batch"]
    is_stopped: Bool[Array, "*model"]


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


def model_key(
    member: UInt32[AnyArray, "2"], name_hash: UInt32[AnyArray, ""]
) -> PRNGKeyArray:
    """The key from which all of a run's randomness is folded.

    `member` is a seed and a fold (see `members.member_numbers`).
    """
    seed, fold = jnp.asarray(member)
    key = jax.random.fold_in(jax.random.key(seed), jnp.asarray(name_hash))
    return jax.random.fold_in(key, fold)
