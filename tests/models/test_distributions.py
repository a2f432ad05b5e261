"""The Gamma's samples, gradient and divergence, compared with SciPy and TFP."""

import contextlib
import importlib.metadata
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from support.processes import ROOT, python

from gammavae_jax.models import distributions
from gammavae_jax.models import gamma_sampler as sampler_module
from gammavae_jax.models.distributions import Gamma, Gaussian
from gammavae_jax.models.gamma_sampler import (
    gamma_sampler,
    jax_sampler,
    sampler_note,
)

SHAPES = [1e-3, 0.01, 0.125, 0.5, 1.0, 3.0, 30.0, 1000.0]
N = 20_000


@pytest.fixture(scope="module")
def tfd():
    """The distributions of TensorFlow Probability."""
    if why_not_tfp := gamma_sampler("tfp").why_not_tfp:
        pytest.skip(f"without TensorFlow Probability: {why_not_tfp}")
    from tensorflow_probability.substrates.jax import distributions as tfd

    return tfd


@contextlib.contextmanager
def drawn_by(sampler):
    """Use this sampler for everything traced inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        if sampler == "jax":
            patch.setattr(distributions, "gamma_sampler", lambda _: jax_sampler(""))
        yield


@pytest.fixture(scope="module", params=["tensorflow-probability", "jax"])
def draws(request):
    """Samples z at rate 1, and dz/da, for each sampler and concentration."""
    if request.param != "jax":
        request.getfixturevalue("tfd")
    shapes = jnp.broadcast_to(jnp.array(SHAPES)[:, None], (len(SHAPES), N))

    @jax.jit
    def sample_and_gradient(a):
        draw = lambda a: Gamma(a, jnp.ones_like(a)).sample(jax.random.key(1))  # noqa: E731
        return jax.jvp(draw, (a,), (jnp.ones_like(a),))

    with drawn_by(request.param):
        z, dz = (np.asarray(x, np.float64) for x in sample_and_gradient(shapes))
    return {shape: (z[i], dz[i]) for i, shape in enumerate(SHAPES)}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradients_of_the_mean_and_second_moment_are_those_of_a_gamma(draws, shape):
    z, dz = draws[shape]
    for gradient, expected in ((dz, 1.0), (2 * z * dz, 2 * shape + 1)):
        assert abs(gradient.mean() - expected) < 5 * gradient.std() / N**0.5


@pytest.mark.parametrize("shape", [0.01, 0.125, 0.5, 1.0, 3.0, 30.0])
def test_the_gradient_of_each_sample_matches_implicit_differentiation_in_scipy(
    draws, shape
):
    z, dz = (x[:500] for x in draws[shape])
    step = 1e-4 * shape
    # There is no reference where the density or the distribution function underflows.
    ok = (z > 1e-25) & (scipy.special.gammaincc(shape, z) > 1e-6)
    upper, lower = (scipy.special.gammainc(shape + s, z[ok]) for s in (step, -step))
    reference = -(upper - lower) / (2 * step) / scipy.stats.gamma.pdf(z[ok], shape)
    np.testing.assert_allclose(dz[ok], reference, rtol=2e-3)


@pytest.mark.parametrize("shape", [0.125, 0.5, 1.0, 3.0])
def test_samples_follow_the_gamma_distribution(draws, shape):
    z, _ = draws[shape]
    assert scipy.stats.kstest(z, scipy.stats.gamma(shape).cdf).pvalue > 1e-3


def test_the_rate_has_the_gradient_of_an_inverse_scale(key):
    k = key()
    rate = jnp.array([0.5, 2.0])
    draw = lambda r: Gamma(jnp.full_like(r, 0.7), r).sample(k)  # noqa: E731
    z, dz = jax.jvp(draw, (rate,), (jnp.ones(2),))
    np.testing.assert_allclose(dz, -z / rate, rtol=1e-5)


def test_the_gamma_divergence_matches_tfp(tfd, key):
    a, r, b, s = jnp.exp(2 * jax.random.normal(key(), (4, 500)))
    expected = tfd.kl_divergence(tfd.Gamma(a, r), tfd.Gamma(b, s))
    np.testing.assert_allclose(
        Gamma(a, r).kl_to(Gamma(b, s)), expected, rtol=1e-4, atol=1e-4
    )


def test_the_gaussian_divergence_matches_tfp(tfd, key):
    m, v, n, w = jax.random.normal(key(), (4, 500))
    expected = tfd.kl_divergence(
        tfd.Normal(m, jnp.exp(v / 2)), tfd.Normal(n, jnp.exp(w / 2))
    )
    ours = Gaussian(m, v).kl_to(Gaussian(n, w))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_gaussian_samples_have_the_right_moments(key):
    posterior = Gaussian(jnp.full(N, 3.0), jnp.full(N, jnp.log(4.0)))
    z = posterior.sample(key())
    assert abs(z.mean() - 3.0) < 0.1
    assert abs(z.std() - 2.0) < 0.1


def test_both_samplers_draw_from_the_same_distribution(tfd):
    """Include concentrations at which float32 can represent only log samples."""
    del tfd
    a = jnp.broadcast_to(jnp.array(SHAPES)[:, None], (len(SHAPES), N))
    logs = []
    for name, seed in (("tensorflow-probability", 1), ("jax", 2)):
        sampler = gamma_sampler("tfp") if name != "jax" else jax_sampler("")
        logs.append(
            jax.jit(lambda k, s=sampler: s.log_draw(k, a))(jax.random.key(seed))
        )
    assert np.isfinite(logs).all()
    for shape, *both in zip(SHAPES, *logs, strict=True):
        assert scipy.stats.ks_2samp(*both).pvalue > 1e-3, shape  # pyright: ignore


@pytest.mark.parametrize("shape", SHAPES[::7])
def test_the_fallback_samples_in_float32_even_if_x64_is_enabled(shape):
    """The model uses float32, too."""
    with drawn_by("jax"), jax.enable_x64(True):
        a = jnp.full(100, shape, jnp.float32)
        draw = Gamma(a, jnp.ones_like(a)).sample(jax.random.key(3))
    assert draw.dtype == jnp.float32


@pytest.mark.parametrize(
    "fault", ["raise ImportError('two\\nlines')", "import jax; jax.no_such_name"]
)
def test_without_tfp_jax_samples_and_one_line_names_the_repair(fault, tmp_path):
    """The import may raise any error, as a release may use an API that JAX removed."""
    (tmp_path / "tensorflow_probability").mkdir()
    (tmp_path / "tensorflow_probability" / "__init__.py").write_text(fault)
    program = (
        "import json\n"
        "from gammavae_jax.models import gamma_sampler as g\n"
        "from gammavae_jax.runs import result_files as e\n"
        "sampler, of_environment, note = g.gamma_sampler('tfp').library, "
        "e.describe_environment('tfp')['sampler'], g.sampler_note('tfp')\n"
        "print(json.dumps([sampler, of_environment, note]))"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = python("-c", program, PYTHONPATH=path)
    assert done.stderr == ""
    sampler, of_environment, note = json.loads(done.stdout.splitlines()[-1])
    assert sampler == of_environment == "jax"
    assert "\n" not in note
    assert "Error: " in note
    assert note.endswith(
        "pip uninstall -y tensorflow-probability tfp-nightly && pip install "
        "tfp-nightly==0.26.0.dev20261027"
    )


def test_the_note_names_both_packages_if_both_are_installed(monkeypatch):
    """The packages share a folder, so upgrading one breaks the other."""

    class Distribution:
        def __init__(self, name):
            self.name, self.version = name, "0.25.0"

    monkeypatch.setattr(
        importlib.metadata,
        "distributions",
        lambda name: [Distribution(name)],
    )
    broken = jax_sampler("ImportError: gone")
    monkeypatch.setattr(sampler_module, "gamma_sampler", lambda _: broken)
    note = sampler_note("tfp")
    assert "tensorflow-probability 0.25.0 and tfp-nightly 0.25.0" in note


def test_there_is_no_note_if_tfp_samples(tfd):
    del tfd
    assert sampler_note("tfp") == gamma_sampler("tfp").why_not_tfp == ""
