"""Defines a model's training state and the training step, a pure function.

Random numbers depend only on the seed, the fold, the machine's name, the epoch and the
step. A machine's models are therefore the same whether it is trained alone or with
other machines, and a resumed run draws the same numbers as an uninterrupted one.
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
    """The state of a model in training; `is_stopped` is set once it has diverged.

    `batch_errors` are the mean squared errors (dB^2) of the last epoch's batches, each
    computed before the step on that batch, and NaN where there was no batch. The
    official baseline fits its threshold to these errors.
    """

    params: Any
    batch_stats: Any
    opt_state: Any
    batch_errors: Float[Array, "*model batch"]
    is_stopped: Bool[Array, "*model"]


def init_state(config: Config, key: PRNGKeyArray, n_batches: int = 1) -> TrainState:
    """Initialise a model's state, with room for the errors of `n_batches` batches."""
    dummy = jnp.zeros((2, config.features.n_features))
    model = AutoEncoder(config.model, config.features.n_context)
    variables = model.init(key, dummy, jnp.ones(2), None)
    return TrainState(
        variables["params"],
        variables["batch_stats"],
        optimizer(config).init(variables["params"]),
        batch_errors=jnp.full(n_batches, jnp.nan),
        is_stopped=jnp.array(False),
    )


def with_room_for(state: TrainState, n_batches: int) -> TrainState:
    """Return a state on the host with `batch_errors` resized to `n_batches` batches."""
    stored = state.batch_errors[..., :n_batches]
    errors = np.full((*stored.shape[:-1], n_batches), np.nan, np.float32)
    errors[..., : stored.shape[-1]] = stored
    return state._replace(batch_errors=errors)


def optimizer(config: Config) -> optax.GradientTransformation:
    """Return Adam with a constant learning rate, as in the official baseline."""
    return optax.adam(config.train.learning_rate)


def train_step(
    config: Config,
    key: PRNGKeyArray,
    state: TrainState,
    windows: Float[Array, "window feature"],
    weight: Float[Array, "window"],
    kl_weight: float | Float[Array, ""] | None = None,
) -> tuple[TrainState, LossTerms]:
    """Take one Adam step on the mean loss over the windows whose weight is 1.

    `kl_weight` defaults to `train.kl_weight`. Return the next state, and each window's
    loss terms from before the step.
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
    """Apply the model in evaluation mode; return its output and loss terms."""
    params, batch_stats = state.params, state.batch_stats
    n_context = config.features.n_context
    output = reconstruct(config.model, params, batch_stats, windows, n_context)
    return output, loss_terms(output, config.model)


def model_key(
    member: UInt32[AnyArray, "2"], name_hash: UInt32[AnyArray, ""]
) -> PRNGKeyArray:
    """Return the random key from which all other keys of a model are derived.

    `member` holds a seed and a fold; see `members.member_numbers`.
    """
    seed, fold = jnp.asarray(member)
    key = jax.random.fold_in(jax.random.key(seed), jnp.asarray(name_hash))
    return jax.random.fold_in(key, fold)
