"""Computes power likelihoods: the Gamma and the heavier-tailed F distribution.

A cell is one mel band of one frame. The model predicts its mean power `m`; the measured
power is `x`, and `log_ratio` is `log(x / m)`. If the cell's band has concentration `k`,
the ratio `r = x / m` has a Gamma distribution with concentration and rate `k`. The
machine's own loudness may also fluctuate, by a factor whose reciprocal has a Gamma
distribution with concentration and rate `a`. The ratio then has an F distribution with
`2 k` and `2 a` degrees of freedom, which tends to the Gamma distribution as `a` grows.

Densities refer to the log power, in nats, so that they do not depend on the level of a
recording. With `s(z) = log Gamma(z) - z log z + z`,

    -log p = s(k) + s(a) - s(k + a) + d / 2
    d / 2 = (k + a) log((k r + a) / (k + a)) - k log r

where `d`, the deviance, is 0 for `r = 1` and positive elsewhere. The derivative of
`-log p` with respect to `log m` lies between `-a` and `k`: no cell can dominate a
batch. For the Gamma, `-log p = s(k) + d / 2` with `d / 2 = k (r - 1 - log r)`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float


class Concentrations(NamedTuple):
    """A likelihood's parameters: the concentrations of the power and of its scale.

    `power` describes the power at a given scale. `scale` is None for a Gamma
    likelihood, whose scale does not fluctuate.
    """

    power: Float[Array, "*cell"]  # k
    scale: Float[Array, "*cell"] | None  # a


class Bounds(NamedTuple):
    """The range of a trained concentration, and its initial value."""

    least: float
    most: float
    initial: float

    @property
    def start(self) -> float:
        """The parameter that yields the initial concentration."""
        return math.log(math.expm1(self.initial - self.least)) / _SPEED

    def bounded(
        self, parameter: Float[Array | np.ndarray, "*cell"]
    ) -> Float[Array, "*cell"]:
        """Convert a parameter to the concentration that it represents."""
        return jnp.minimum(self.least + nn.softplus(_SPEED * parameter), self.most)


# Power in one frequency bin of a steady noise has concentration 1; a band that averages
# several bins has more. Without bounds, it would keep growing for constant bands.
POWER = Bounds(least=0.2, most=50.0, initial=1.0)
SCALE = Bounds(least=1.0, most=200.0, initial=10.0)
# Parameters are multiplied by this before softplus. Adam changes a parameter by at most
# about 0.001 per step, and a concentration must keep up with the reconstruction.
_SPEED = 10.0

LARGEST_LOG_RATIO = 20.0  # nepers (87 dB); above it, the Gamma likelihood is linear
FAR = 30.0  # nepers; above it, another formula of the F likelihood is used
_SERIES_FROM = 8.0  # here, the first omitted term of Stirling's series is 3e-10


class TrainedConcentrations(nn.Module):
    """The layer that holds the trained concentrations of all bands."""

    n_mels: int
    has_scale: bool  # whether the scale fluctuates, as in the F likelihood

    @nn.compact
    def __call__(self) -> Concentrations:
        """Return the concentrations of each band."""
        bounds = {"power": POWER} | ({"scale": SCALE} if self.has_scale else {})
        return concentrations_of(
            {name: self._parameter(name, of.start) for name, of in bounds.items()}
        )

    def _parameter(self, name: str, start: float) -> Float[Array, "mel"]:
        initial = nn.initializers.constant(start)
        return self.param(name, initial, (self.n_mels,), jnp.float32)


def concentrations_of(params: Mapping[str, Any]) -> Concentrations:
    """Convert a trained layer's parameters to concentrations."""
    scale = SCALE.bounded(params["scale"]) if "scale" in params else None
    return Concentrations(POWER.bounded(params["power"]), scale)


def negative_log_likelihood(
    log_ratio: Float[Array, "*window cell"], concentrations: Concentrations
) -> Float[Array, "*window cell"]:
    """Return `-log p` of each cell's log power, in nats.

    Source: `-logpdf(r) - log r` of `scipy.stats.gamma` and `scipy.stats.f`.
    """
    return _normaliser(concentrations) + half_deviance(log_ratio, concentrations)


def half_deviance(
    log_ratio: Float[Array, "*window cell"], concentrations: Concentrations
) -> Float[Array, "*window cell"]:
    """Return half of each cell's deviance, in nats.

    This is how far the cell's log likelihood lies below its maximum, which is reached
    where `log_ratio` is 0. Near 0, rounding may give a slightly negative number.
    """
    k, a = concentrations
    if a is None:
        near = jnp.minimum(log_ratio, LARGEST_LOG_RATIO)
        growth = jnp.expm1(near)
        return k * (growth - near + growth * (log_ratio - near))
    total = k + a
    near, far = jnp.minimum(log_ratio, FAR), jnp.maximum(log_ratio, FAR)
    return jnp.where(
        log_ratio < FAR,
        total * jnp.log1p(k / total * jnp.expm1(near)) - k * near,
        total * jnp.log1p(a / total * jnp.expm1(-far)) + a * far,
    )


def deviance_residual(
    log_ratio: Float[Array, "*window cell"], concentrations: Concentrations
) -> Float[Array, "*window cell"]:
    """Return each cell's signed root deviance, which is about N(0, 1) in every band.

    It has no gradient at 0, so it is not meant for training.
    """
    deviance = 2.0 * jnp.maximum(half_deviance(log_ratio, concentrations), 0.0)
    return jnp.sign(log_ratio) * jnp.sqrt(deviance)


def _normaliser(concentrations: Concentrations) -> Float[Array, "*cell"]:
    k, a = concentrations
    if a is None:
        return _remainder(k)
    return _remainder(k) + _remainder(a) - _remainder(k + a)


def _remainder(z: Float[Array, "*cell"]) -> Float[Array, "*cell"]:
    """Return `log Gamma(z) - z log z + z`, without cancellation for large `z`."""
    small, large = jnp.minimum(z, _SERIES_FROM), jnp.maximum(z, _SERIES_FROM)
    square = 1.0 / large**2
    series = (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0)) / large
    return jnp.where(
        z < _SERIES_FROM,
        gammaln(small) - small * jnp.log(small) + small,
        0.5 * jnp.log(2.0 * math.pi / large) + series,
    )
