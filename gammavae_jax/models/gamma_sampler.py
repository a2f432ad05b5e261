"""Chooses the library that draws Gamma samples: TensorFlow Probability (TFP) or JAX.

No other module imports TFP, because some releases of TFP are broken. If TFP cannot be
imported, JAX draws the samples. Their distribution and gradient are the same, but the
samples differ.
"""

import functools
import importlib.metadata
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


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
def gamma_sampler() -> GammaSampler:
    """Return the sampler to use.

    TFP is not imported until the first call: this takes a third of a second, and
    scoring hardly ever draws samples.
    """
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


def sampler_note() -> str:
    """Return a one-line warning if TFP cannot be imported, else ""."""
    why_not_tfp = gamma_sampler().why_not_tfp
    if not why_not_tfp:
        return ""
    installed = [
        f"{distribution.name} {distribution.version}"
        for name in ("tensorflow-probability", "tfp-nightly")
        for distribution in importlib.metadata.distributions(name=name)
    ]
    return (
        "TensorFlow Probability cannot be imported (installed: "
        f"{' and '.join(dict.fromkeys(installed)) or 'none'}; {why_not_tfp}), so JAX "
        "draws the Gamma samples: their distribution is the same, but results differ "
        "as they would with another seed. To repair TFP: pip uninstall -y "
        "tensorflow-probability tfp-nightly && pip install "
        "tfp-nightly==0.26.0.dev20261027"
    )
