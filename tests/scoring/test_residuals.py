"""Scores, compared with SciPy and with results of the official code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from support import solves_in_parallel

from gammavae_jax.config import DIRECT_SCORES, ScoringConfig
from gammavae_jax.scoring import residuals
from gammavae_jax.scoring.residuals import (
    GaussianFit,
    WindowErrors,
    add_batch,
    clip_scores,
    covariance,
    empty_scatter,
    fit_gaussian,
    mahalanobis,
    mahalanobis_framewise,
    rows_of,
)

N_MELS, N_CONTEXT = 6, 5
EXACT = ScoringConfig()


def scatter_of(batches, n_mels):
    scatter = empty_scatter(n_mels)
    for rows, weight in batches:
        scatter = add_batch(scatter, jnp.float32(rows), jnp.float32(weight))
    return scatter


def errors_of(residual):
    """Return the mean squared errors of windows, and different divergences."""
    squared = jnp.mean(residual**2, axis=-1)
    kl = 1.0 + jnp.arange(len(residual))
    return WindowErrors(squared, kl, squared + 0.01 * kl)


@pytest.fixture
def fits():
    """Two fitted normal distributions, and their covariances."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, N_MELS, N_MELS)) + 2 * np.eye(N_MELS)
    matrices = roots @ roots.transpose(0, 2, 1)
    locations = rng.normal(size=(2, N_MELS))
    return (
        matrices,
        locations,
        [
            GaussianFit(jnp.float32(m), jnp.float32(np.linalg.cholesky(c)))
            for m, c in zip(locations, matrices, strict=True)
        ],
    )


@pytest.fixture
def residual():
    rng = np.random.default_rng(1)
    return jnp.float32(rng.normal(size=(9, N_CONTEXT * N_MELS)))


def test_official_covariances_and_scores_match_the_official_code(golden):
    stored = np.load(golden / "mahalanobis.npz")
    batches = [jnp.asarray(stored[f"batch{b}/residual"]) for b in range(6)]
    target = [stored[f"batch{b}/is_target"] for b in range(6)]
    fits = []
    for name, flags in (("source", [~t for t in target]), ("target", target)):
        scatter = scatter_of(
            [
                (rows_of(r, 128), np.repeat(f, 5).astype(np.float32))
                for r, f in zip(batches, flags, strict=True)
            ],
            128,
        )
        expected = stored[f"cov_{name}"]
        ours = covariance(scatter, 5, EXACT)
        np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())
        fits.append(fit_gaussian(scatter, 5, ScoringConfig()))
    for c, row in enumerate(stored["mahalanobis_source_target_min"]):
        clip = jnp.asarray(stored[f"clip{c}/residual"])
        weight = jnp.ones(len(clip))
        ours = [
            mahalanobis(clip, weight, a, b)
            for a, b in ((fits[0], fits[0]), (fits[1], fits[1]), fits)
        ]
        np.testing.assert_allclose(ours, row, rtol=1e-3)
        scores = clip_scores(errors_of(clip), clip, weight, *fits)
        np.testing.assert_allclose(scores["mse"], stored["mse"][c], rtol=1e-5)


def test_mahalanobis_is_the_mean_of_the_matrix_of_products(fits, residual):
    matrices, _, _ = fits
    official = [
        GaussianFit(jnp.zeros(N_MELS), jnp.float32(np.linalg.cholesky(c)))
        for c in matrices
    ]
    rows = np.asarray(rows_of(residual, N_MELS), np.float64)
    expected = min((rows @ np.linalg.inv(c) @ rows.T).mean() for c in matrices)
    ours = mahalanobis(residual, jnp.ones(9), *official)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_framewise_mahalanobis_matches_scipy(fits, residual):
    matrices, locations, both = fits
    rows = rows_of(residual, N_MELS)
    squared = [
        cdist(rows, m[None], "mahalanobis", VI=np.linalg.inv(c))[:, 0] ** 2
        for m, c in zip(locations, matrices, strict=True)
    ]
    ours = mahalanobis_framewise(residual, jnp.ones(9), *both)
    np.testing.assert_allclose(ours, np.minimum(*squared).mean(), rtol=1e-4)


def test_framewise_mahalanobis_detects_residuals_that_cancel_in_the_mean(fits):
    _, _, both = fits
    centred = [f._replace(location=jnp.zeros(N_MELS)) for f in both]
    click = jnp.zeros((8, N_CONTEXT * N_MELS)).at[0].set(9.0).at[1].set(-9.0)
    assert mahalanobis(click, jnp.ones(8), *centred) < 1e-6
    assert mahalanobis_framewise(click, jnp.ones(8), *centred) > 1.0


def test_the_pooled_covariance_does_not_depend_on_the_batches():
    rng = np.random.default_rng(2)
    rows = (rng.normal(size=(60, N_MELS)) @ rng.normal(size=(N_MELS, N_MELS))) + 3
    config = ScoringConfig(covariance="pooled")
    for size in (60, 20, 7):
        parts = [rows[i : i + size] for i in range(0, 60, size)]
        scatter = scatter_of([(p, np.ones(len(p))) for p in parts], N_MELS)
        np.testing.assert_allclose(
            covariance(scatter, N_CONTEXT, config), np.cov(rows.T), rtol=1e-4
        )
        fit = fit_gaussian(scatter, N_CONTEXT, config)
        np.testing.assert_allclose(fit.location, rows.mean(0), rtol=1e-4)


def test_the_official_covariance_ignores_differences_between_batches():
    rows = np.repeat(np.arange(4.0), N_CONTEXT)[:, None] * np.ones(N_MELS)
    one_window_each = [(rows[i : i + 5], np.ones(5)) for i in range(0, 20, 5)]
    scatter = scatter_of(one_window_each, N_MELS)
    np.testing.assert_allclose(covariance(scatter, N_CONTEXT, EXACT), 0, atol=1e-6)
    pooled = ScoringConfig(covariance="pooled")
    assert covariance(scatter, N_CONTEXT, pooled).min() > 1.0


def test_scores_do_not_change_under_an_invertible_linear_map(fits, residual):
    _, _, both = fits
    centred = [f._replace(location=jnp.zeros(N_MELS)) for f in both]
    rng = np.random.default_rng(3)
    change = rng.normal(size=(N_MELS, N_MELS)) + 3 * np.eye(N_MELS)
    mapped = [
        GaussianFit(
            f.location,
            jnp.float32(np.linalg.cholesky(change @ f.factor @ f.factor.T @ change.T)),
        )
        for f in centred
    ]
    rows = (rows_of(residual, N_MELS) @ change.T).reshape(residual.shape)
    for score in (mahalanobis, mahalanobis_framewise):
        np.testing.assert_allclose(
            score(rows, jnp.ones(9), *mapped),
            score(residual, jnp.ones(9), *centred),
            rtol=1e-3,
        )


def test_padding_does_not_change_a_score(fits, residual):
    _, _, both = fits
    padded = jnp.concatenate([residual, jnp.full((4, residual.shape[1]), 99.0)])
    weight = jnp.concatenate([jnp.ones(9), jnp.zeros(4)])
    expected = clip_scores(errors_of(residual), residual, jnp.ones(9), *both)
    ours = clip_scores(errors_of(padded), padded, weight, *both)
    assert ours.keys() == expected.keys() == set(DIRECT_SCORES)
    for name, score in ours.items():
        np.testing.assert_allclose(score, expected[name], rtol=1e-5)


def test_each_score_is_pooled_by_its_rule(fits, residual):
    _, _, both = fits
    errors, weight = errors_of(residual), jnp.ones(9)
    scores = clip_scores(errors, residual, weight, *both)
    expected = {
        "mse": np.mean(np.asarray(residual, np.float64) ** 2),
        "mse_max": np.asarray(errors.squared).max(),
        "mse_top": residuals.top(errors.squared, weight),
        "mse_ranked": residuals.ranked(errors.squared, weight),
        "kl": 5.0,
        "negative_elbo": scores["mse"] + 0.01 * 5.0,
        "mahalanobis": mahalanobis(residual, weight, *both),
        "mahalanobis_framewise": mahalanobis_framewise(residual, weight, *both),
    }
    assert scores.keys() == expected.keys()
    for name, score in scores.items():
        np.testing.assert_allclose(score, expected[name], rtol=1e-5)


def test_rows_without_variance_give_finite_scores():
    scatter = scatter_of([(np.zeros((10, N_MELS)), np.ones(10))], N_MELS)
    fit = fit_gaussian(scatter, N_CONTEXT, ScoringConfig(jitter=1e-6))
    # The root of the jitter times the variance floor of 1e-6 dB^2.
    np.testing.assert_allclose(fit.factor, 1e-6 * np.eye(N_MELS), rtol=1e-3)
    residual = jnp.zeros((3, N_CONTEXT * N_MELS))
    scores = clip_scores(errors_of(residual), residual, jnp.ones(3), fit, fit)
    assert all(jnp.isfinite(score) for score in scores.values())


@pytest.mark.parametrize("n_rows", [1, 3, 40])
def test_too_few_rows_for_a_covariance_give_finite_scores(n_rows):
    rng = np.random.default_rng(4)
    n_mels = 128
    rows = rng.normal(size=(n_rows, n_mels)) * np.geomspace(1e-3, 30, n_mels)
    for kind in ("official", "pooled"):
        config = ScoringConfig(covariance=kind)
        fit = fit_gaussian(scatter_of([(rows, np.ones(n_rows))], n_mels), 5, config)
        residual = jnp.float32(rng.normal(size=(3, 5 * n_mels)))
        scores = clip_scores(errors_of(residual), residual, jnp.ones(3), fit, fit)
        assert all(jnp.isfinite(score) for score in scores.values())


def test_a_cpu_factorises_and_solves_one_matrix_at_a_time_also_in_a_batch():
    """Batches would share XLA's threads, and could wait for each other forever."""
    clips = jnp.zeros((4, 10, N_MELS))
    program = jax.jit(jax.vmap(solves_in_parallel.scores_of)).lower(clips).compile()
    text = program.as_text() or ""
    calls = [line for line in text.splitlines() if '"lapack_' in line]
    assert {"strsm", "spotrf"} <= set(re.findall("lapack_([a-z]+)", " ".join(calls)))
    assert not [line for line in calls if re.search(r"f32\[\d+,\d+,\d+\]", line)]


@pytest.mark.parametrize("n_times", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_batches_of_solves_never_wait_for_each_other_on_a_busy_cpu(n_times):
    """On two cores, a hundred of JAX's own batches are certain to hang."""
    program = [sys.executable, solves_in_parallel.__file__, str(n_times), "2"]
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    subprocess.run(program, env=env, check=True, timeout=240)
