"""The windows of an epoch: shuffled, and gathered batch by batch from the log-mels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import TRAIN, MachineArrays


def shuffled(key: PRNGKeyArray, group: UInt8[Array, "window"]) -> Int[Array, "window"]:
    """Indices of the windows: training ones shuffled, held-out ones, padding.

    A window's place among the others depends on its own number and the key alone, so
    padding to another length changes nothing.
    """
    bits = jax.random.bits(key, group.shape, jnp.uint32) >> 2
    rank = (group - jnp.uint8(TRAIN)) & jnp.uint8(3)  # padding, 0, comes last
    return jnp.argsort(bits | (rank.astype(jnp.uint32) << 30))


def gather(
    config: Config,
    data: MachineArrays,
    order: Int[Array, "window"],
    first: Int[Array, ""] | int,
    count: Int[Array, ""],
    step: Int[Array, ""],
) -> tuple[Float[Array, "batch feature"], Float[Array, "batch"], Int[Array, "batch"]]:
    """Batch number `step` of the `count` windows from place `first` of the order.

    Returns the windows, their weights, 0 beyond `count`, and their first frames.
    """
    place = step * config.train.batch_size + jnp.arange(config.train.batch_size)
    start = data.window_start[order.at[first + place].get(mode="clip")]
    frames = data.log_mel.reshape(-1, data.log_mel.shape[-1])
    rows = start[:, None] + jnp.arange(config.features.n_context)
    batch = frames[rows].reshape(len(place), -1)
    return batch, (place < count).astype(batch.dtype), start
