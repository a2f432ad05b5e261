"""Gamma samples and their derivatives, compared with SciPy and with JAX in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from gammavae_jax.config import ModelConfig
from gammavae_jax.models import gamma_sampler as sampler_module
from gammavae_jax.models.distributions import (
    MAX_PARAMETER,
    MIN_PARAMETER,
    Gamma,
    draw,
)
from gammavae_jax.models.gamma_sampler import (
    gamma_sampler,
    log_draw,
    log_draw_derivative,
    sampler_note,
)

CONCENTRATIONS = [1e-3, 0.01, 0.3, 1.0, 2.5, 50.0, 1e3]
N = 100_000


def drawn(log_draw, seed: int) -> dict[float, np.ndarray]:
    """Return `N` log samples for each concentration."""
    a = jnp.broadcast_to(jnp.array(CONCENTRATIONS)[:, None], (len(CONCENTRATIONS), N))
    log_z = np.asarray(jax.jit(log_draw)(jax.random.key(seed), a), np.float64)
    return dict(zip(CONCENTRATIONS, log_z, strict=True))


def of_gammas(log_z: np.ndarray, a: float) -> float:
    """Return the p-value of the hypothesis that these are logs of Gamma samples."""
    return scipy.stats.kstest(log_z, scipy.stats.loggamma(a).cdf).pvalue


@pytest.fixture(scope="module", params=["tfp", "built_in"])
def samples(request):
    """Log samples of a sampler, for each concentration."""
    sampler = gamma_sampler(request.param)
    if sampler.why_not_tfp:
        pytest.skip(f"without TensorFlow Probability: {sampler.why_not_tfp}")
    return drawn(sampler.log_draw, seed=1)


@pytest.mark.parametrize("a", CONCENTRATIONS)
def test_log_samples_follow_the_log_gamma_distribution(samples, a):
    assert np.isfinite(samples[a]).all()
    assert of_gammas(samples[a], a) > 1e-3


@pytest.mark.parametrize("a", CONCENTRATIONS[2:])
def test_samples_follow_the_gamma_distribution(samples, a):
    """Leave out concentrations whose samples underflow."""
    z = np.exp(samples[a])
    assert scipy.stats.kstest(z, scipy.stats.gamma(a).cdf).pvalue > 1e-3


@pytest.mark.parametrize("a", CONCENTRATIONS)
def test_the_mean_and_variance_of_log_samples_are_those_of_a_log_gamma(samples, a):
    log_z = samples[a]
    mean, variance = scipy.special.digamma(a), scipy.special.polygamma(1, a)
    squares = (log_z - mean) ** 2
    assert abs(log_z.mean() - mean) < 4 * log_z.std() / N**0.5
    assert abs(squares.mean() - variance) < 4 * squares.std() / N**0.5


@pytest.mark.parametrize("n_proposals", [0, 1])
def test_samples_without_an_accepted_proposal_follow_the_same_distribution(
    monkeypatch, n_proposals
):
    """With 0 proposals, the loop draws all samples; with 1, it draws up to 5 %."""
    usual = drawn(log_draw, seed=2)
    monkeypatch.setattr(sampler_module, "_N_PROPOSALS", n_proposals)
    fewer = drawn(lambda key, a: log_draw(key, a), seed=2)
    for a in CONCENTRATIONS:
        assert of_gammas(fewer[a], a) > 1e-3, a
        assert not np.array_equal(fewer[a], usual[a])


def test_proposals_are_accepted_as_often_as_the_method_predicts():
    """Marsaglia and Tsang state 0.952 at concentration 1, and more above it."""
    for a, expected in ((1.0, 0.952), (2.0, 0.981), (4.0, 0.992), (1e3, 1.0)):
        _, accepted = sampler_module._first_accepted(
            jax.random.key(3), jnp.full(N, a), 1
        )
        assert abs(accepted.mean() - expected) < 2e-3


def test_samples_depend_on_the_key_alone():
    a = jnp.repeat(jnp.array(CONCENTRATIONS), 1000)
    jitted = jax.jit(log_draw)
    one, same, other = (jitted(jax.random.key(k), a) for k in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one == other).mean() < 0.01


def test_samples_of_two_keys_are_independent():
    """Neighbouring samples of one key are independent, too."""
    a, jitted = jnp.full(N, 0.7), jax.jit(log_draw)
    one, other = (jitted(jax.random.key(k), a) for k in (7, 8))
    for x, y in ((one, other), (one[1:], one[:-1]), (one[1:], other[:-1])):
        assert scipy.stats.spearmanr(x, y).pvalue > 1e-3  # pyright: ignore


@pytest.mark.parametrize("n_proposals", [0, 4])
def test_vmap_over_models_draws_the_same_samples_as_one_model_at_a_time(
    monkeypatch, n_proposals
):
    monkeypatch.setattr(sampler_module, "_N_PROPOSALS", n_proposals)
    keys = jax.random.split(jax.random.key(9), 7)
    bounds = {"minval": np.log(MIN_PARAMETER), "maxval": np.log(MAX_PARAMETER)}
    a = jnp.exp(jax.random.uniform(jax.random.key(10), (7, 256, 8), **bounds))
    together = jax.jit(jax.vmap(lambda k, a: log_draw(k, a)))(keys, a)
    alone = jax.jit(lambda k, a: log_draw(k, a))
    one_by_one = jnp.stack([alone(*both) for both in zip(keys, a, strict=True)])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (0, 8), (2, 3, 4)])
def test_samples_have_the_shape_and_type_of_the_concentrations(shape):
    """The model uses float32, even if x64 is enabled."""
    with jax.enable_x64(True):
        a = jnp.full(shape, 0.5, jnp.float32)
        log_z = jax.jit(log_draw)(jax.random.key(11), a)
    assert (log_z.shape, log_z.dtype) == (shape, jnp.float32)


def test_a_concentration_without_a_distribution_gives_nan_and_never_an_endless_loop():
    """Parameters become NaN if training diverges, which must be reported."""
    a = jnp.array([np.nan, 0.0, -0.5, -3.0, np.inf, -np.inf, 2.0, 1e-3])
    log_z = jax.jit(log_draw)(jax.random.key(12), a)
    np.testing.assert_array_equal(jnp.isnan(log_z), [True] * 6 + [False] * 2)
    assert jnp.isfinite(log_z[6:]).all()


@pytest.mark.parametrize("name", ["tfp", "built_in"])
def test_the_gradient_is_the_implicit_one_at_the_sample(name):
    a = jnp.repeat(jnp.array(CONCENTRATIONS), 100)

    @jax.jit
    def log_z_and_gradient(a):
        return jax.jvp(
            lambda a: Gamma(a, jnp.ones_like(a)).sample(jax.random.key(13), name),
            (a,),
            (jnp.ones_like(a),),
        )

    z, gradient = log_z_and_gradient(a)
    log_z = jax.jit(gamma_sampler(name).log_draw)(jax.random.key(13), a)
    np.testing.assert_allclose(z, jnp.exp(log_z), rtol=1e-4)
    expected = z * log_draw_derivative(a, log_z)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["tfp", "built_in"])
def test_the_configuration_selects_the_sampler(name):
    a, key = jnp.array([[0.5, 2.0, 30.0]]), jax.random.key(14)
    config = ModelConfig(sampler=name)
    code = jax.jit(lambda k, a: draw(Gamma(a, jnp.ones_like(a)), k, config))(key, a)
    log_z = jax.jit(gamma_sampler(name).log_draw)(key, a)
    np.testing.assert_allclose(code, jnp.exp(log_z), rtol=1e-5)


def test_the_built_in_sampler_does_not_need_tfp(monkeypatch):
    broken = sampler_module.jax_sampler("ImportError: gone")
    monkeypatch.setattr(sampler_module, "_tfp", lambda: broken)
    gamma_sampler.cache_clear()
    try:
        assert gamma_sampler("built_in").library == "gammavae-jax"
        assert sampler_note("built_in") == ""
        assert gamma_sampler("tfp").library == "jax"
        assert "cannot be imported" in sampler_note("tfp")
    finally:
        gamma_sampler.cache_clear()


EVERY_SCALE = [1e-3, 0.01, 0.1, 0.5, 0.99, 1.0, 1.5, 3.0, 10.0, 100.0, 355.0, 1000.0]
QUANTILES = [1e-6, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1 - 1e-6]


def draws(concentration):
    """Return log samples at the quantiles that float64 can represent, in float32."""
    z = scipy.special.gammaincinv(concentration, QUANTILES)
    return np.log(z[z > 1e-300]).astype(np.float32)


@pytest.mark.parametrize("concentration", EVERY_SCALE)
def test_the_derivative_matches_jaxs_iteration_in_float64(concentration):
    log_z = draws(concentration)
    a = np.full_like(log_z, concentration)
    ours = log_draw_derivative(jnp.asarray(a), jnp.asarray(log_z))
    with jax.enable_x64(True):
        z = jnp.exp(jnp.asarray(log_z, jnp.float64))
        exact = jax.lax.random_gamma_grad(jnp.asarray(a, jnp.float64), z) / z  # pyright: ignore
        exact = np.asarray(exact)
    # For lower samples, JAX's derivative fails, even in float64.
    held = log_z > -200
    rtol = 8e-6 if concentration <= 100 else 2e-5
    np.testing.assert_allclose(ours[held], exact[held], rtol=rtol)


@pytest.mark.parametrize("concentration", [1e-3, 0.01, 0.125, 1.0])
def test_the_derivative_of_underflowing_samples_matches_the_lower_tail(
    concentration,
):
    log_z = np.array([-50, -1000, -1e5], np.float32)
    # In the lower tail, F(z) = z^a / Gamma(a + 1), which is solved for log z.
    exact = (scipy.special.digamma(concentration + 1) - log_z) / concentration
    ours = log_draw_derivative(jnp.full(3, concentration), jnp.asarray(log_z))
    np.testing.assert_allclose(ours, exact, rtol=1e-6)


def test_the_derivative_is_continuous_where_the_two_methods_meet():
    a = jnp.asarray(EVERY_SCALE)
    below, above = (log_draw_derivative(a, jnp.full_like(a, s)) for s in (-1e-7, 1e-7))
    np.testing.assert_allclose(below, above, rtol=1e-5)


def test_the_derivative_is_finite_and_positive_for_every_possible_sample():
    a = np.float32(10) ** np.linspace(-3, 3, 61, dtype=np.float32)
    # From where `z` underflows up to eight standard deviations above the mean.
    log_z = np.linspace(-1e4, 8, 2001, dtype=np.float32)
    ours = log_draw_derivative(*(jnp.asarray(x) for x in np.meshgrid(a, log_z)))
    z = np.exp(log_z)[:, None]
    near = z < a + 8 * np.sqrt(a) + 16
    assert np.isfinite(ours).all()
    assert (np.asarray(ours)[near] > 0).all()
