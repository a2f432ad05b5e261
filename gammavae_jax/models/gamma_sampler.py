"""Draws Gamma samples, and differentiates them with respect to their concentration.

A built-in sampler or TensorFlow Probability (TFP) draws the samples in log space, where
those of small concentrations do not underflow. The distribution and the gradient do not
depend on the sampler, but the samples do. No other module imports TFP, because some
releases of TFP are broken. If TFP is selected but cannot be imported,
`jax.random.loggamma` draws the samples.

A sample `z` at concentration `a` and rate 1 is the `u`-quantile of its distribution for
some `u`, which stays fixed when `a` changes. Implicit differentiation of the
distribution function `F`, with density `p`, therefore gives (Figurnov et al. 2018,
"Implicit reparameterization gradients"):

    d log z / da = -(dF(z; a) / da) / (z p(z; a))

JAX has `lax.random_gamma_grad`, which iterates until every sample of a batch has
converged. That takes about forty rounds of small kernels, and more time than a whole
layer of the model. Here the number of terms is fixed, so that one kernel suffices.
This is also more accurate: in float32, for concentrations from 1e-3 to 1e3, its
relative error is 2e-5 (8e-6 up to 100), compared with 5e-5 for JAX's iteration.
"""

import functools
import importlib.metadata
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import erf_inv
from jax.scipy.special import digamma
from jaxtyping import Array, Bool, Float, PRNGKeyArray

# For each sample. With probability 6e-6 or less, all four are rejected.
_N_PROPOSALS = 4


class GammaSampler(NamedTuple):
    """A library that draws Gamma samples.

    Attributes:
        library: the library's name.
        log_draw: draws the logarithm of one sample at rate 1 for each concentration.
        why_not_tfp: the error that TFP raises when it is imported, or "".
    """

    library: str
    log_draw: Callable[[PRNGKeyArray, Float[Array, "*batch"]], Float[Array, "*batch"]]
    why_not_tfp: str = ""


@functools.cache
def gamma_sampler(name: str) -> GammaSampler:
    """Return the sampler that `model.sampler` selects by name.

    TFP is not imported until it is needed, because the import takes a third of a
    second.
    """
    return GammaSampler("gammavae-jax", log_draw) if name == "built_in" else _tfp()


def _tfp() -> GammaSampler:
    """Return TFP's sampler or, if TFP cannot be imported, that of JAX."""
    try:
        from tensorflow_probability.substrates.jax import distributions as tfd
    except Exception as error:  # a broken release may raise any error
        return jax_sampler(f"{type(error).__name__}: {error}".splitlines()[0])

    def log_draw(
        key: PRNGKeyArray, concentration: Float[Array, "*batch"]
    ) -> Float[Array, "*batch"]:
        log_gamma = tfd.ExpGamma(concentration, rate=jnp.ones_like(concentration))
        return jnp.asarray(log_gamma.sample(seed=key))

    return GammaSampler("tensorflow-probability", log_draw)


def jax_sampler(why_not_tfp: str) -> GammaSampler:
    """Return the sampler that uses JAX."""

    def log_draw(
        key: PRNGKeyArray, concentration: Float[Array, "*batch"]
    ) -> Float[Array, "*batch"]:
        return jax.random.loggamma(key, concentration, dtype=concentration.dtype)

    return GammaSampler("jax", log_draw, why_not_tfp)


def sampler_note(name: str) -> str:
    """Return a one-line warning if the sampler needs TFP, which is broken; else ""."""
    why_not_tfp = gamma_sampler(name).why_not_tfp
    if not why_not_tfp:
        return ""
    installed = [
        f"{distribution.name} {distribution.version}"
        for package in ("tensorflow-probability", "tfp-nightly")
        for distribution in importlib.metadata.distributions(name=package)
    ]
    return (
        "TensorFlow Probability cannot be imported (installed: "
        f"{' and '.join(dict.fromkeys(installed)) or 'none'}; {why_not_tfp}), so JAX "
        "draws the Gamma samples: their distribution is the same, but results differ "
        "as they would with another seed. To repair TFP: pip uninstall -y "
        "tensorflow-probability tfp-nightly && pip install "
        "tfp-nightly==0.26.0.dev20261027"
    )


def log_draw(
    key: PRNGKeyArray, concentration: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Return the logarithm of one sample at rate 1 for each concentration.

    The method is that of Marsaglia and Tsang (2000), "A simple method for generating
    gamma variables". It needs a concentration of at least 1. A sample at a lower
    concentration `a` is one at `a + 1`, multiplied by `u^(1 / a)` for a uniform `u`.

    Each sample has a fixed number of proposals, and the first accepted one is used. The
    loop draws further proposals only while a sample has none, so it rarely runs.

    The concentrations should lie between 1e-3 and 1e3. The result is NaN where a
    concentration is NaN, infinite or not positive.
    """
    proposal_key, loop_key, power_key = jax.random.split(key, 3)
    is_low = concentration < 1.0
    raised = jnp.where(is_low, concentration + 1.0, concentration)
    # Without this test, the loop would never end for parameters that became NaN.
    is_valid = (concentration > 0.0) & (concentration < jnp.inf)
    log_z, is_accepted = _first_accepted(proposal_key, raised, _N_PROPOSALS)

    def is_missing(carry):
        _, _, is_accepted = carry
        return (is_valid & ~is_accepted).any()

    def draw_missing(carry):
        i, log_z, is_accepted = carry
        new, is_new = _first_accepted(jax.random.fold_in(loop_key, i), raised, 1)
        return i + 1, jnp.where(is_accepted, log_z, new), is_accepted | is_new

    _, log_z, _ = jax.lax.while_loop(is_missing, draw_missing, (0, log_z, is_accepted))
    # If u is uniform, -log(u) has an exponential distribution.
    minus_log_u = jax.random.exponential(
        power_key, concentration.shape, concentration.dtype
    )
    log_z = log_z - jnp.where(is_low, minus_log_u / concentration, 0.0)
    return jnp.where(is_valid, log_z, jnp.nan)


def _first_accepted(
    key: PRNGKeyArray, concentration: Float[Array, "*batch"], n_proposals: int
) -> tuple[Float[Array, "*batch"], Bool[Array, "*batch"]]:
    """Return the first accepted proposal, in log space, and whether there is one.

    With `d = concentration - 1/3`, `t = x / sqrt(9 d)` and x normal, a proposal is
    `d (1 + t)^3`. It is accepted with the probability
    `exp(x^2 / 2 + d - d (1 + t)^3 + 3 d log(1 + t))`, or rejected if `t <= -1`. Since
    `x^2 = 9 d t^2`, the exponent equals `3 d (log(1 + t) - t + t^2 / 2 - t^3 / 3)`.
    These terms remain small for large concentrations, so little cancels.
    """
    d = concentration - 1.0 / 3.0
    # Random bits take most of the time, and less of it if they are drawn in one call.
    shape = (2, n_proposals, *concentration.shape)
    v, u = jax.random.uniform(key, shape, concentration.dtype)
    x = 2.0**0.5 * erf_inv(2.0 * v - 1.0)  # -inf if v is 0: then t becomes -1
    t = jnp.maximum(x / jnp.sqrt(9.0 * d), -1.0)
    log_1_plus_t = jnp.log1p(t)
    exponent = 3.0 * d * (log_1_plus_t - t * (1.0 - t * (0.5 - t / 3.0)))
    proposals = jnp.log(d) + 3.0 * log_1_plus_t
    are_accepted = u < jnp.exp(exponent)
    log_z = jnp.zeros_like(d)
    for proposal, is_accepted in zip(proposals[::-1], are_accepted[::-1], strict=True):
        log_z = jnp.where(is_accepted, proposal, log_z)
    return log_z, are_accepted.any(0)


_TERMS = 10  # in the series; the n-th term is at most 1/n!
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_CUT = 17.0  # integrate until the integrand has fallen by a factor of exp(17)
_NEWTON_STEPS = 4


def log_draw_derivative(
    concentration: Float[Array, "*batch"], log_z: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Return `d log z / d concentration` for samples at rate 1.

    The concentration must lie between 1e-3 and 1e3. `log_z` may be arbitrarily low:
    the derivative exists even where `z` underflows in float32.
    """
    at_next = digamma(concentration + 1.0)
    # Both branches are computed for all samples, so each needs values in its range.
    return jnp.where(
        log_z < 0.0,
        _series(concentration, jnp.minimum(log_z, 0.0), at_next),
        _integral(
            concentration, jnp.maximum(log_z, 0.0), at_next - 1.0 / concentration
        ),
    )


def _series(a, log_z, digamma_next):
    """Sum `z^n / (a)_(n+1) * (digamma(a+n+1) - log z)` over n, for `z < 1`.

    The terms come from the power series of the distribution function; `(a)_(n+1)` is a
    rising factorial.
    """
    z = jnp.exp(log_z)
    factor, difference = 1.0 / a, digamma_next - log_z
    total = factor * difference
    for n in range(1, _TERMS):
        factor = factor * z / (a + n)
        difference = difference + 1.0 / (a + n)
        total = total + factor * difference
    return total


def _integral(a, log_z, digamma_a):
    """Compute the derivative by Gauss-Legendre quadrature, for `z >= 1`.

    The derivative is the integral of `p(t) (log t - digamma(a)) / (z p(z))` over all t
    above `z`, and minus the integral over all t below `z`. With `t = z e^v`, the
    integrand becomes `exp(a v - z (e^v - 1)) (v + log z - digamma(a))`, over v. The
    integral is computed on the side where the integrand decays from the start and
    cancels least, up to a point beyond which it is negligible.
    """
    z = jnp.exp(log_z)
    side = jnp.where(z < a, -1.0, 1.0)
    # The function is convex, so Newton's method converges from beyond the root.
    above = (a - z + jnp.sqrt((z - a) ** 2 + 2.0 * _CUT * z)) / z
    end = jnp.where(z < a, (_CUT + z) / a, jnp.log1p((_CUT + a * above) / z))
    for _ in range(_NEWTON_STEPS):
        e = jnp.exp(side * end)
        fall = z * (e - 1.0) - a * side * end - _CUT
        end = end - fall / (side * (z * e - a))
    total = jnp.zeros_like(z)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        v = side * end * (0.5 * float(node) + 0.5)
        height = jnp.exp(a * v - z * jnp.expm1(v))
        total = total + 0.5 * float(weight) * height * (v + log_z - digamma_a)
    return side * end * total
