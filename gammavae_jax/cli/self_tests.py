"""Small sums with known answers, to see whether this computer does them right."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gammavae_jax.config_json import override
from gammavae_jax.models.distributions import MIN_PARAMETER, Gamma
from gammavae_jax.presets import preset
from gammavae_jax.training.step import init_state, train_step

SHAPES = (MIN_PARAMETER, 0.1, 1.0, 10.0)
_N_DRAWS = 2_000  # more would take longer to compile
_MOST_SIGMAS = 6.0  # of the mean: by chance, once in many millions of runs
_SMALLEST = 1.0  # shape; below it, so few draws say little of a mean


class SelfTestError(ArithmeticError):
    """A sum came out wrong; the message says which and how."""


def gamma_gradient() -> str:
    """Draw Gammas of several shapes `a`: how a draw `z` moves with its shape.

    As `E[z] = a` at rate 1, `E[dz/da]` must be 1, whatever the shape.

    Returns:
        What was found, in a line.

    Raises:
        SelfTestError: a derivative that is not finite, or a mean too far from 1.
    """
    shape = jnp.repeat(jnp.array(SHAPES), _N_DRAWS)

    @jax.jit
    def slopes(key):
        def draw(a):
            return Gamma(a, jnp.ones_like(a)).sample(key)

        return jax.jvp(draw, (shape,), (jnp.ones_like(shape),))[1]

    moves = np.asarray(slopes(jax.random.key(0)), np.float64).reshape(len(SHAPES), -1)
    if not np.isfinite(moves).all():
        raise SelfTestError("a derivative of a draw is not finite")
    means = moves.mean(1)
    errors = moves.std(1) / np.sqrt(_N_DRAWS)
    for a, mean, error in zip(SHAPES, means, errors, strict=True):
        if a >= _SMALLEST and abs(mean - 1) > _MOST_SIGMAS * error:
            raise SelfTestError(
                f"at shape {a:g} the mean of dz/da is {mean:.4f} +- {error:.4f}, not 1"
            )
    return (
        f"finite at shapes {SHAPES[0]:g} to {SHAPES[-1]:g}; mean of dz/da "
        f"{means[-1]:.3f} at {SHAPES[-1]:g}, to be 1"
    )


def training_step() -> str:
    """One step of a tiny model on noise; that of the VAE, which compiles soonest.

    Returns:
        What was found, in a line.

    Raises:
        SelfTestError: a loss or parameter is not finite, or no parameter moved.
    """
    loss, before, after = one_step()
    if not np.isfinite(loss) or not np.isfinite(after).all():
        raise SelfTestError("a step of training gives what is not finite")
    if np.array_equal(before, after):
        raise SelfTestError("a step of training changes nothing")
    return f"finite, {np.count_nonzero(before != after)} parameters moved"


def one_step() -> tuple[
    Float[np.ndarray, ""],
    Float[np.ndarray, "parameter"],
    Float[np.ndarray, "parameter"],
]:
    """A loss before a step of training, and the parameters before and after it."""
    config = override(preset("vae"), ["model.hidden=[8]", "model.n_latent=2"])
    shape = (64, config.features.n_features)

    @jax.jit
    def learn(key):
        windows = -60 + 3 * jax.random.normal(key, shape)
        before = init_state(config, key)
        after, terms = train_step(config, key, before, windows, jnp.ones(shape[0]))
        return terms.reconstruction.mean(), before.params, after.params

    loss, before, after = jax.device_get(learn(jax.random.key(0)))
    return loss, _flat(before), _flat(after)


def _flat(tree: Any) -> Float[np.ndarray, "parameter"]:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
