"""Computes a clip's anomaly scores from the residuals of its windows.

A residual is the target minus the reconstruction in dB (`window feature`) or, with a
power likelihood, the deviance residual in standard deviations. Reshaped to `row mel`,
it has one row for each reconstructed frame. `weight` is 1 for a window and 0 for
padding. Higher scores are more anomalous.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from gammavae_jax.config import ScoringConfig

VARIANCE_FLOOR = 1e-6  # in squared residual units; needed if all residuals are zero


class Scatter(NamedTuple):
    """The count, mean and scatter matrices of rows, accumulated over batches."""

    count: Float[Array, ""]
    mean: Float[Array, "mel"]
    within: Float[Array, "mel mel"]  # around the mean of each batch
    total: Float[Array, "mel mel"]  # around the mean of all rows


class WindowErrors(NamedTuple):
    """Each window's mean squared residual, KL divergence (nats) and training loss."""

    squared: Float[Array, "window"]
    kl: Float[Array, "window"]
    negative_elbo: Float[Array, "window"]


class GaussianFit(NamedTuple):
    """A normal distribution: its mean, and the Cholesky factor of its covariance."""

    location: Float[Array, "*model mel"]
    factor: Float[Array, "*model mel mel"]


def _one_by_one(function: Callable[..., Array]) -> Callable[..., Array]:
    """Wrap a function of matrices so that `vmap` on a CPU calls it once per matrix.

    JAX before 0.11.2 divides a batch of LAPACK calls among the threads of XLA's pool,
    and waits for them in a thread of the same pool. With as many simultaneous batches
    as the pool has threads, all of them would wait forever. A single matrix is computed
    in the calling thread.
    """
    in_turn = jax.custom_batching.sequential_vmap(function)

    def call(*matrices: Array) -> Array:
        return jax.lax.platform_dependent(*matrices, cpu=in_turn, default=function)

    return call


_cholesky = _one_by_one(jnp.linalg.cholesky)
_forward_substitution = _one_by_one(
    lambda factor, rows: solve_triangular(factor, rows, lower=True)
)


def rows_of(
    residual: Float[Array, "window feature"], n_mels: int
) -> Float[Array, "row mel"]:
    """Reshape windows into rows, one for each frame."""
    return residual.reshape(-1, n_mels)


def empty_scatter(n_mels: int) -> Scatter:
    """Return the moments of an empty set of rows."""
    square = jnp.zeros((n_mels, n_mels))
    return Scatter(jnp.zeros(()), jnp.zeros(n_mels), square, square)


def add_batch(
    scatter: Scatter, rows: Float[Array, "row mel"], weight: Float[Array, "row"]
) -> Scatter:
    """Add a batch of rows to the moments, ignoring rows whose weight is 0.

    Source: `within` is accumulated as in `calc_inv_cov` of the official baseline,
    and `total` is merged as in Chan, Golub and LeVeque (1979).
    """
    count = weight.sum()
    mean = weight @ rows / jnp.maximum(count, 1.0)
    centred = (rows - mean) * weight[:, None]
    batch = centred.T @ centred
    both = scatter.count + count
    shift = mean - scatter.mean
    between = jnp.outer(shift, shift) * (scatter.count * count / jnp.maximum(both, 1.0))
    return Scatter(
        count=both,
        mean=scatter.mean + shift * count / jnp.maximum(both, 1.0),
        within=scatter.within + batch,
        total=scatter.total + batch + between,
    )


def covariance(
    scatter: Scatter, n_rows: int, config: ScoringConfig
) -> Float[Array, "mel mel"]:
    """Return the covariance of the accumulated rows, in squared residual units.

    The "official" covariance centres each batch on its own mean and divides by the
    number of windows minus 1, although a window has `n_rows` rows. The "pooled" one
    centres all rows on their common mean and divides by the number of rows minus 1.
    """
    if config.covariance == "official":
        return scatter.within / jnp.maximum(scatter.count / n_rows - 1.0, 1.0)
    return scatter.total / jnp.maximum(scatter.count - 1.0, 1.0)


def fit_gaussian(scatter: Scatter, n_rows: int, config: ScoringConfig) -> GaussianFit:
    """Fit a normal distribution to the accumulated rows.

    The location is 0 for the official covariance, and the mean residual for the pooled
    one. If the Cholesky factorisation fails in float32, for example because there are
    fewer rows than mel bands, it is repeated with ten times the jitter until it
    succeeds.
    """
    matrix = covariance(scatter, n_rows, config)
    unit = (jnp.trace(matrix) / len(matrix) + VARIANCE_FLOOR) * jnp.eye(len(matrix))

    def factorise(jitter):
        return jitter, _cholesky(matrix + jitter * unit)

    def has_failed(state):
        return (state[0] < 1.0) & ~jnp.isfinite(state[1]).all()

    _, factor = jax.lax.while_loop(
        has_failed,
        lambda state: factorise(10.0 * state[0]),
        factorise(jnp.asarray(config.jitter, matrix.dtype)),
    )
    is_official = config.covariance == "official"
    location = jnp.zeros_like(scatter.mean) if is_official else scatter.mean
    return GaussianFit(location, factor)


def squared_distance(
    rows: Float[Array, "row mel"], fit: GaussianFit
) -> Float[Array, "row"]:
    """Return each row's squared Mahalanobis distance to a fitted distribution."""
    whitened = _forward_substitution(fit.factor, (rows - fit.location).T)
    return jnp.sum(whitened**2, axis=0)


def mahalanobis(
    residual: Float[Array, "window feature"],
    weight: Float[Array, "window"],
    source: GaussianFit,
    target: GaussianFit,
) -> Float[Array, ""]:
    """Return the squared Mahalanobis distance from the mean row to the nearer domain.

    Source: the official baseline, which obtains the same value by weighting the product
    of two rows by the inverse covariance and averaging over all pairs of rows. If the
    residuals of a fault cancel out in the mean row, the fault is missed.
    """
    rows = rows_of(residual, len(source.location))
    of_row = _row_weight(weight, residual, len(source.location))
    mean = of_row @ rows / jnp.maximum(of_row.sum(), 1.0)
    return jnp.minimum(
        squared_distance(mean[None], source)[0],
        squared_distance(mean[None], target)[0],
    )


def mahalanobis_framewise(
    residual: Float[Array, "window feature"],
    weight: Float[Array, "window"],
    source: GaussianFit,
    target: GaussianFit,
) -> Float[Array, ""]:
    """Return the mean, over rows, of the squared distance to the nearer domain.

    Source: the selective Mahalanobis distance as the challenge describes it.
    """
    rows = rows_of(residual, len(source.location))
    distance = jnp.minimum(
        squared_distance(rows, source), squared_distance(rows, target)
    )
    return mean(distance, _row_weight(weight, residual, len(source.location)))


def clip_scores(
    errors: WindowErrors,
    residual: Float[Array, "window feature"],
    weight: Float[Array, "window"],
    source: GaussianFit,
    target: GaussianFit,
) -> dict[str, Float[Array, ""]]:
    """Compute the scores that need no reference clips; `jit` removes unused scores."""
    return {
        "mse": mean(errors.squared, weight),
        "mse_top": top(errors.squared, weight),
        "mse_max": largest(errors.squared, weight),
        "mse_ranked": ranked(errors.squared, weight),
        "kl": mean(errors.kl, weight),
        "negative_elbo": mean(errors.negative_elbo, weight),
        "mahalanobis": mahalanobis(residual, weight, source, target),
        "mahalanobis_framewise": mahalanobis_framewise(
            residual, weight, source, target
        ),
    }


def _row_weight(
    weight: Float[Array, "window"],
    residual: Float[Array, "window feature"],
    n_mels: int,
) -> Float[Array, "row"]:
    """Repeat each window's weight for each of its rows."""
    return jnp.repeat(weight, residual.shape[1] // n_mels)


TOP_FRACTION = 0.1  # the share of windows that `top` averages
RANK_DECAY = 0.98  # each rank's weight in `ranked`, relative to the rank before


def mean(values: Float[Array, "window"], weight: Float[Array, "window"]) -> Array:
    """Return the mean over windows, or 0 if there are none."""
    return weight @ values / jnp.maximum(weight.sum(), 1.0)


def largest(values: Float[Array, "window"], weight: Float[Array, "window"]) -> Array:
    """Return the largest value, or 0 if there are no windows."""
    most = jnp.max(jnp.where(weight > 0, values, -jnp.inf))
    return jnp.where(jnp.any(weight > 0), most, 0.0)


def top(values: Float[Array, "window"], weight: Float[Array, "window"]) -> Array:
    """Return the mean of the largest tenth of the values (at least one value)."""
    count = jnp.maximum(jnp.ceil(TOP_FRACTION * weight.sum()), 1.0)
    return _by_rank(values, weight, (jnp.arange(values.shape[0]) < count) * 1.0)


def ranked(values: Float[Array, "window"], weight: Float[Array, "window"]) -> Array:
    """Return a weighted mean, with weights that decay from the largest value down.

    Source: global weighted rank pooling (Kolesnikov and Lampert 2016). A decay of 1
    would give the mean, and a decay of 0 the maximum.
    """
    return _by_rank(values, weight, RANK_DECAY ** jnp.arange(values.shape[0]))


def _by_rank(
    values: Float[Array, "window"],
    weight: Float[Array, "window"],
    weight_of_rank: Float[Array, "window"],
) -> Array:
    """Return the mean over windows, weighted by rank; padding ranks last."""
    order = jnp.argsort(jnp.where(weight > 0, -values, jnp.inf))
    ranked_weight = weight_of_rank * weight[order]
    return ranked_weight @ values[order] / jnp.maximum(ranked_weight.sum(), 1e-12)
