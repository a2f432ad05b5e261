"""The training clips in each model's references, with and without folds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from support.detectors import fitted, small
from support.probes import clips, noise

from gammavae_jax.data import statistics
from gammavae_jax.devices.placement import Placement
from gammavae_jax.scoring.references import fit_references

N_CLIPS, N_FRAMES, N_FOLDS = (14, 9), 40, 3


@pytest.fixture(scope="module")
def probe():
    """Three folds; clip 9 of the first machine is a copy of clip 2."""
    rng = np.random.default_rng(0)
    first, second = (noise(rng, n, N_FRAMES) for n in N_CLIPS)
    first[9] = first[2] + 0.01 * rng.standard_normal(first[2].shape)
    config = small("gammavae", "train.n_folds=3", "scoring.n_density_neighbours=1")
    return fitted(config, [("a", clips(first)), ("b", clips(second, 3))], epochs=0)


def spectra(probe, machine):
    log_mel = probe.arrays.clips.log_mel[machine, : N_CLIPS[machine]]
    return np.stack(
        [
            statistics.spectrum(jnp.asarray(c[1:-1]), jnp.ones(len(c) - 2))
            for c in log_mel
        ]
    )


def held_out(probe, member, machine):
    return probe.split.is_held_out[member, machine, : N_CLIPS[machine]]


def clips_of(reference, member, machine):
    """Return the numbers of a reference's clips, and their statistics."""
    of = jax.tree.map(lambda leaf: np.asarray(leaf[member, machine]), reference)
    numbers = of.parents[of.is_clip]
    np.testing.assert_array_equal(numbers[:, 0], numbers[:, 1])
    return numbers[:, 0], of.clips[of.is_clip] * of.scale + of.location


@pytest.mark.parametrize("machine", range(2))
def test_the_reference_of_a_log_mel_statistic_holds_all_clips_for_every_member(
    probe, machine
):
    reference = probe.detector.references["spectrum"]
    for member in range(N_FOLDS):
        numbers, values = clips_of(reference, member, machine)
        np.testing.assert_array_equal(numbers, np.arange(N_CLIPS[machine]))
        np.testing.assert_allclose(values, spectra(probe, machine), atol=1e-3)


@pytest.mark.parametrize("name", ["residual", "peak"])
@pytest.mark.parametrize("machine", range(2))
def test_the_reference_of_a_models_statistic_holds_the_clips_of_other_folds(
    probe, name, machine
):
    reference = probe.detector.references[name]
    of_member = [clips_of(reference, member, machine) for member in range(N_FOLDS)]
    for member, (numbers, _) in enumerate(of_member):
        expected = np.flatnonzero(~held_out(probe, member, machine))
        np.testing.assert_array_equal(numbers, expected)
    # A clip's values are the same in all references, since one model computed them.
    for clip in range(N_CLIPS[machine]):
        values = [v[n == clip] for n, v in of_member if clip in n]
        assert len(values) == N_FOLDS - 1
        np.testing.assert_allclose(values[0], values[1], rtol=1e-3, atol=1e-3)


def test_the_radius_of_a_clip_is_its_distance_to_a_clip_with_other_attributes():
    rng, pair = np.random.default_rng(0), np.arange(14) // 2
    backgrounds = np.repeat(3 * rng.standard_normal((7, 1, 128)), 2, axis=0)
    train = clips(list(noise(rng, 14, N_FRAMES) + backgrounds))
    config = small("gammavae", "train.n_folds=3", "scoring.n_density_neighbours=1")
    alike = fitted(config, [("a", train)], epochs=0, attributes=[pair])
    of = jax.tree.map(lambda a: np.asarray(a[0, 0]), alike.detector.references)
    points, is_same = of["spectrum"].clips, pair[:, None] == pair
    apart = cdist(points, points) + np.diag(np.full(14, np.inf))
    expected = np.where(is_same, np.inf, apart).min(1)
    assert (expected > apart.min(1)).all()  # the nearest clip has equal attributes
    np.testing.assert_allclose(of["spectrum"].radius, expected, rtol=1e-3)


def test_the_radius_of_a_copy_is_its_distance_to_a_clip_without_shared_audio(probe):
    assert probe.split.is_linked[0, 2, 9]
    reference = probe.detector.references["spectrum"]
    for member in range(N_FOLDS):
        of = jax.tree.map(lambda leaf, m=member: np.asarray(leaf[m, 0]), reference)
        points = of.clips[: N_CLIPS[0]]
        apart = cdist(points, points) + np.diag(np.full(N_CLIPS[0], np.inf))
        assert apart[2].argmin() == 9
        apart[2, 9] = apart[9, 2] = np.inf
        ours = of.radius[: N_CLIPS[0]]
        np.testing.assert_allclose(ours, apart.min(1), rtol=1e-3)


@pytest.mark.parametrize(("name", "uses_folds"), [("residual", 1), ("spectrum", 0)])
def test_radii_of_a_models_statistic_use_clips_of_other_folds_only(
    probe, name, uses_folds
):
    """Residuals come from different models, unlike log-mels."""
    folds = probe.split.is_held_out[:, 1, : N_CLIPS[1]].argmax(0)
    for member in range(N_FOLDS):
        reference = probe.detector.references[name]
        of = jax.tree.map(lambda leaf, m=member: np.asarray(leaf[m, 1]), reference)
        points, number = of.clips[of.is_clip], of.parents[of.is_clip, 0]
        same = folds[number][:, None] == folds[number]
        is_excluded = same if uses_folds else np.eye(len(number), dtype=bool)
        expected = np.where(is_excluded, np.inf, cdist(points, points)).min(1)
        np.testing.assert_allclose(of.radius[of.is_clip], expected, rtol=1e-3)


def test_scores_without_references_need_none(probe):
    config = small("gammavae", "score=mse", 'scores=["mse"]', "train.n_folds=3")
    detector, placement = probe.detector, probe.placement
    assert isinstance(placement, Placement)
    data = probe.arrays.clips
    with placement:
        references = fit_references(
            config, detector.machines, placement, None, data, probe.split
        )
    assert references == {}
