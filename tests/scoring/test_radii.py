"""Radii that leave out the clips that a held-out clip is not compared with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gammavae_jax.config import ScoringConfig
from gammavae_jax.scoring import radii
from gammavae_jax.scoring.neighbours import distances, fit_reference, nearest_clips
from gammavae_jax.scoring.radii import (
    Shortlist,
    radii_without,
    running_count,
    shortlist,
)

K = 4


def mean_of_nearest(points, is_related, is_kept):
    """Return each point's mean distance to its nearest kept and unrelated points."""
    apart = cdist(points, points)
    np.fill_diagonal(apart, np.inf)
    apart[is_related | ~is_kept] = np.inf
    nearest = np.sort(apart, axis=1)[:, :K]
    finite = np.where(np.isfinite(nearest), nearest, 0.0)
    return finite.sum(1) / np.maximum(np.isfinite(nearest).sum(1), 1)


@pytest.mark.parametrize(("n_clips", "n_groups"), [(40, 8), (200, 4), (6, 3)])
def test_radii_without_a_group_are_the_mean_distances_to_the_other_clips(
    n_clips, n_groups
):
    rng = np.random.default_rng(n_clips)
    points = rng.standard_normal((n_clips + 3, 5)).astype(np.float32)
    is_clip = np.arange(n_clips + 3) < n_clips  # the rest is padding
    group = np.arange(n_clips + 3) % n_groups
    is_related = group[:, None] == group
    parents = np.stack([np.arange(n_clips + 3)] * 2, axis=1)
    arrays = [jnp.asarray(a) for a in (points, parents, is_clip, is_related)]
    near = shortlist(arrays[0], arrays[1], arrays[2], arrays[3], K)
    before = mean_of_nearest(points, is_related, is_clip)
    before[n_clips:] = before[:n_clips].mean()
    for left_out in range(n_groups):
        is_kept = is_clip & (group != left_out)
        ours = radii_without(near, jnp.asarray(is_kept), jnp.float32(before))
        expected = mean_of_nearest(points, is_related, is_kept)
        # Without any neighbours, the radius stays as it was.
        expected = np.where(expected > 0, expected, before)
        expected = np.maximum(expected, before.min())
        np.testing.assert_allclose(ours[:n_clips], expected[:n_clips], rtol=1e-4)
        assert (ours[:n_clips] != jnp.float32(before[:n_clips])).any()


def test_the_last_distance_in_the_list_stands_in_for_missing_neighbours():
    """If a clip's 64 nearest are left out, its radius is at least the next distance."""
    index, distance = jnp.arange(68), jnp.arange(1.0, 69)
    near = Shortlist(jnp.tile(index, (68, 1)), jnp.tile(distance, (68, 1)), K)
    for n_kept, expected in ((0, 68.0), (1, 68.0), (3, (66 + 67 + 68 + 68) / 4)):
        is_kept = jnp.asarray(np.arange(68) >= 68 - n_kept)
        ours = radii_without(near, is_kept, jnp.full(68, 2.0))
        np.testing.assert_allclose(ours, np.full(68, expected), rtol=1e-6)


def test_a_radius_that_was_raised_to_the_minimum_is_not_lowered():
    points = jnp.asarray(np.zeros((9, 3)), jnp.float32)
    parents = jnp.stack([jnp.arange(9)] * 2, axis=1)
    near = shortlist(points, parents, jnp.ones(9, bool), jnp.eye(9, dtype=bool), K)
    least = jnp.full(9, 0.1)
    np.testing.assert_array_equal(radii_without(near, jnp.ones(9, bool), least), least)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 68, 255, 256, 300])
def test_a_running_count_is_a_cumulative_sum(length):
    rng = np.random.default_rng(length)
    every = rng.random((5, length)) < np.array([[0.0], [0.1], [0.5], [0.9], [1.0]])
    count = np.asarray(running_count(jnp.asarray(every)))
    np.testing.assert_array_equal(count, every.cumsum(-1))


@pytest.mark.parametrize("n_neighbours", [1, K, 300])
def test_radii_are_the_same_as_with_a_cumulative_sum(monkeypatch, n_neighbours):
    """The running count is only faster: not a bit of a score may change."""
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.standard_normal((150, 5)), jnp.float32)
    parents = jnp.stack([jnp.arange(150)] * 2, axis=1)
    every, nothing = jnp.ones(150, bool), jnp.zeros((150, 150), bool)
    near = shortlist(points, parents, every, nothing, n_neighbours)
    is_kept = jnp.asarray(rng.random((20, 150)) < rng.random((20, 1)))

    def computed():
        of_each = lambda kept: radii_without(near, kept, jnp.ones(150))  # noqa: E731
        return np.asarray(jax.jit(lambda k: jax.lax.map(of_each, k))(is_kept))

    ours = computed()
    monkeypatch.setattr(radii, "running_count", lambda x: jnp.cumsum(x, axis=-1))
    np.testing.assert_array_equal(ours, computed())


def test_a_held_out_clip_scores_as_if_it_had_never_been_in_the_reference():
    """Compare a clip's score with references that were fitted without its recording."""
    rng = np.random.default_rng(0)
    recording = np.repeat(np.arange(30), 4)
    means = rng.standard_normal((30, 6))[recording]
    points = (means + 0.3 * rng.standard_normal((120, 6))).astype(np.float32)
    points[:4, 0] += 12  # one recording is unlike the others in one feature
    is_same, is_target = recording[:, None] == recording, np.zeros(120, bool)
    config = ScoringConfig(n_density_neighbours=K)

    def fitted(is_clip):
        return fit_reference(points, is_same, is_clip, is_target, config, 120, rng)

    reference = jax.tree.map(jnp.asarray, fitted(np.ones(120, bool)))
    near = nearest_clips(reference, jnp.asarray(is_same), K)
    # Without `near`, excluded clips influence the radii, and the scores are too high.
    ratios = {"with": [], "without": []}
    for clip in range(0, 120, 4):
        is_other = recording != recording[clip]
        apart = jax.tree.map(jnp.asarray, fitted(is_other))
        expected = distances(jnp.asarray(points[clip]), apart)
        for name, given in (("with", near), ("without", None)):
            excluded = jnp.asarray(is_same[clip])
            ours = distances(jnp.asarray(points[clip]), reference, excluded, given)
            np.testing.assert_allclose(ours["neighbour"], expected["neighbour"], 1e-4)
            ratios[name].append(float(ours["density"] / expected["density"]))
    np.testing.assert_allclose(np.mean(ratios["with"]), 1, atol=0.02)
    assert np.abs(np.log(ratios["with"])).max() < 0.1
    assert np.mean(ratios["without"]) > 1.05
