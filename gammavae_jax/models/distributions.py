"""Defines the latent code's distributions, Gamma and Gaussian, and their divergences.

Each class holds the parameters of its distribution and has three operations: `mean`, a
differentiable `sample`, and `kl_to`, the Kullback-Leibler divergence to a prior.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, Float, PRNGKeyArray

from gammavae_jax.config import ModelConfig
from gammavae_jax.models.gamma_divergence import (
    exponential_excess,
    gamma_divergence,
)
from gammavae_jax.models.gamma_sampler import gamma_sampler, log_draw_derivative

# Outside these bounds float32 cannot represent a sample or its derivative.
MIN_PARAMETER, MAX_PARAMETER = 1e-3, 1e3


class Gamma(NamedTuple):
    """Gamma distributions with the given concentrations and rates.

    The density at `z` is proportional to `z^(concentration - 1) exp(-rate z)`. The
    concentration should lie between `MIN_PARAMETER` and `MAX_PARAMETER`.
    """

    concentration: Float[Array, "*batch latent"]
    rate: Float[Array, "*batch latent"]

    @property
    def mean(self) -> Float[Array, "*batch latent"]:
        """The mean, `concentration / rate`."""
        return self.concentration / self.rate

    def sample(
        self, key: PRNGKeyArray, sampler: str = "tfp"
    ) -> Float[Array, "*batch latent"]:
        """Draw one sample per distribution, with implicit reparameterisation gradients.

        The sampler is one that `model.sampler` can name. A rejection sampler has no
        useful derivative of its own, and that of TFP divides zero by zero where a
        sample underflows, so `_with_implicit_gradient` replaces it.
        """
        concentration = jax.lax.stop_gradient(self.concentration)
        log_z = gamma_sampler(sampler).log_draw(key, concentration)
        log_z = _with_implicit_gradient(
            self.concentration, jax.lax.stop_gradient(log_z)
        )
        return jnp.exp(log_z - jnp.log(self.rate))

    def kl_to(self, prior: "Gamma") -> Float[Array, "*batch latent"]:
        """Return `KL(self || prior)` for each latent, in nats."""
        return gamma_divergence(*jnp.broadcast_arrays(*self, *prior))


def gamma_of_mean_and_variance(
    mean: Float[Array, "*batch latent"], variance: Float[Array, "*batch latent"]
) -> Gamma:
    """Return the Gamma distributions with these means and variances.

    The concentration is `mean^2 / variance`, the rate `mean / variance`. The means
    should lie between `MIN_PARAMETER` and `MAX_PARAMETER`. A variance is clipped if the
    concentration or the rate would otherwise lie outside these bounds; the mean is
    always exact.
    """
    smallest = mean * jnp.maximum(mean, 1.0) / MAX_PARAMETER
    largest = mean * jnp.minimum(mean, 1.0) / MIN_PARAMETER
    rate = mean / jnp.clip(variance, smallest, largest)
    return Gamma(mean * rate, rate)


class Gaussian(NamedTuple):
    """Independent normal distributions, one for each latent."""

    location: Float[Array, "*batch latent"]
    log_variance: Float[Array, "*batch latent"]

    @property
    def mean(self) -> Float[Array, "*batch latent"]:
        """The mean, `location`."""
        return self.location

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch latent"]:
        """Draw one sample per latent, reparameterised (Kingma and Welling 2014)."""
        noise = jax.random.normal(key, self.location.shape, self.location.dtype)
        return self.location + jnp.exp(0.5 * self.log_variance) * noise

    def kl_to(self, prior: "Gaussian") -> Float[Array, "*batch latent"]:
        """Return `KL(self || prior)` for each latent, in nats."""
        difference = self.log_variance - prior.log_variance
        squared = (self.location - prior.location) ** 2 * jnp.exp(-prior.log_variance)
        return 0.5 * (exponential_excess(difference) + squared)


@jax.custom_jvp
def _with_implicit_gradient(
    concentration: Float[Array, "*batch"], log_z: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Return `log_z` (log samples at rate 1), differentiable in `concentration`."""
    del concentration
    return log_z


@_with_implicit_gradient.defjvp
def _implicit_jvp(primals, tangents):
    concentration, log_z = primals
    return log_z, log_draw_derivative(concentration, log_z) * tangents[0]


def report_eq2(posterior: Gamma, prior: Gamma) -> Float[Array, "*batch latent"]:
    """Evaluate the report's Equation 2 (Huang, DCASE 2024) as printed, for each latent.

    With shape b and scale a of the prior, and shape d and scale c of the posterior, it
    is `cd/a + b log a - log(cd) - b + (b - 1) (digamma(d) + log c)`.

    This is not a divergence. For a posterior equal to the prior it is
    `(2b - 2) log a - log b + (b - 1) digamma(b)`, which is 0 for every scale only if
    b = 1; for b = 2 and a = 1 it is -0.27. For b > 1 it is unbounded below as d goes
    to 0. For b = 1 it is `m/a - 1 - log(m/a)`, where m = cd is the posterior's mean:
    whatever the posterior's shape, this is the divergence of two exponential
    distributions. Compared with the true divergence, the last term has the wrong sign,
    `-log(cd)` replaces the entropy and the log-gamma terms, and `-b` replaces `-d`. The
    report calls a and c the shapes, but `digamma(d)` and `b - 1` make sense only if b
    and d are the shapes.
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
    """Return the KL term of `gamma_vae.py` in AntixK/PyTorch-VAE, per latent, in nats.

    It is `KL(P' || Q')`, where P' and Q' are the prior and the posterior, each with
    its concentration and rate swapped. It is 0 if they are equal and positive
    otherwise. However, it is not the KL term of an evidence lower bound, because prior
    and posterior are in the opposite order and the code is not drawn from Q'.
    """
    swapped_prior = Gamma(prior.rate, prior.concentration)
    swapped_posterior = Gamma(posterior.rate, posterior.concentration)
    return swapped_prior.kl_to(swapped_posterior)


def draw(
    posterior: Gamma | Gaussian, key: PRNGKeyArray, config: ModelConfig
) -> Float[Array, "*batch latent"]:
    """Draw one sample per latent; for a Gamma, with the sampler of `model.sampler`."""
    if isinstance(posterior, Gaussian):
        return posterior.sample(key)
    return posterior.sample(key, config.sampler)


_BY_NAME = {"exact": Gamma.kl_to, "report_eq2": report_eq2, "ancestor": ancestor}


def divergence(
    posterior: Gamma | Gaussian, config: ModelConfig
) -> Float[Array, "*batch latent"]:
    """Return the divergence selected by `model.kl`, in nats.

    For a Gaussian, this is always the exact divergence.
    """
    if isinstance(posterior, Gaussian):
        return kl_to_prior(posterior, config)
    return _BY_NAME[config.kl](posterior, _gamma_prior(posterior, config))


def kl_to_prior(
    posterior: Gamma | Gaussian, config: ModelConfig
) -> Float[Array, "*batch latent"]:
    """Return the exact divergence to the prior in nats, whatever `model.kl` is."""
    if isinstance(posterior, Gaussian):
        zero = jnp.zeros_like(posterior.location)
        return posterior.kl_to(Gaussian(zero, zero))
    return posterior.kl_to(_gamma_prior(posterior, config))


def _gamma_prior(posterior: Gamma, config: ModelConfig) -> Gamma:
    return Gamma(
        jnp.full_like(posterior.concentration, config.prior_concentration),
        jnp.full_like(posterior.rate, config.prior_rate),
    )
