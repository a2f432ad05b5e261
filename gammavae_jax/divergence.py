"""The divergence term of the loss: the KL divergence, and two that bear its name.

Three functions of a Gamma posterior Q and a Gamma prior P are here, for each latent.
`exact` is KL(Q || P). The other two are what a report printed and what its ancestor
computes, kept to be compared with.
"""

import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, Float

from gammavae_jax.config import ModelConfig
from gammavae_jax.distributions import Gamma, Gaussian


def exact(posterior: Gamma, prior: Gamma) -> Float[Array, "*batch latent"]:
    """`KL(posterior || prior)`, in nats."""
    return posterior.kl_to(prior)


def report_eq2(posterior: Gamma, prior: Gamma) -> Float[Array, "*batch latent"]:
    """Equation 2 as the report prints it (Huang, DCASE 2024), for each latent.

    With shape b and scale a of the prior, d and c of the posterior:
    `cd/a + b log a - log(cd) - b + (b - 1) (digamma(d) + log c)`.

    No divergence. Where the two laws are equal it is
    `(2b - 2) log a - log b + (b - 1) digamma(b)`: 0 for every scale only if b = 1. For
    b = 2, a = 1 that is -0.27. For b > 1 it falls without bound as d falls to 0. For
    b = 1 it is `m/a - 1 - log(m/a)` of the mean m = cd: the divergence between
    exponential laws of these means, deaf to the posterior's shape. Beside the true
    divergence the sign of the last term is wrong, `-log(cd)` stands for the entropy
    and the log-gammas, and `-b` for `-d`. The report calls a and c the shapes, but
    `digamma(d)` and `b - 1` make sense only of shapes.
    """
    shape, log_scale = prior.concentration, -jnp.log(prior.rate)
    log_mean = jnp.log(posterior.mean)
    return (
        posterior.mean * prior.rate
        + shape * log_scale
        - log_mean
        - shape
        + (shape - 1.0) * (digamma(posterior.concentration) - jnp.log(posterior.rate))
    )


def ancestor(posterior: Gamma, prior: Gamma) -> Float[Array, "*batch latent"]:
    """What `gamma_vae.py` of AntixK/PyTorch-VAE computes, in nats.

    It is `KL(P' || Q')`, where P' and Q' are prior and posterior with concentration
    and rate swapped. So it is 0 for equals and positive else, but it is not the term
    of an evidence lower bound: it runs from the prior to the posterior, and between
    laws other than those from which the code is drawn.
    """
    swapped_prior = Gamma(prior.rate, prior.concentration)
    swapped_posterior = Gamma(posterior.rate, posterior.concentration)
    return swapped_prior.kl_to(swapped_posterior)


_BY_NAME = {"exact": exact, "report_eq2": report_eq2, "ancestor": ancestor}


def divergence(
    posterior: Gamma | Gaussian, config: ModelConfig
) -> Float[Array, "*batch latent"]:
    """The divergence that `model.kl` names; the exact one of a Gaussian."""
    if isinstance(posterior, Gaussian):
        return kl_to_prior(posterior, config)
    return _BY_NAME[config.kl](posterior, _gamma_prior(posterior, config))


def kl_to_prior(
    posterior: Gamma | Gaussian, config: ModelConfig
) -> Float[Array, "*batch latent"]:
    """The exact divergence to the prior, whatever the loss takes."""
    if isinstance(posterior, Gaussian):
        zero = jnp.zeros_like(posterior.location)
        return posterior.kl_to(Gaussian(zero, zero))
    return exact(posterior, _gamma_prior(posterior, config))


def _gamma_prior(posterior: Gamma, config: ModelConfig) -> Gamma:
    return Gamma(
        jnp.full_like(posterior.concentration, config.prior_concentration),
        jnp.full_like(posterior.rate, config.prior_rate),
    )
