"""Folds that hold out similar clips together."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.cluster import AgglomerativeClustering

from gammavae_jax.config import TrainConfig
from gammavae_jax.training.split import clusters_of_clips, deal_clusters

DISTANCE = TrainConfig().group_distance


def families(rng, sizes, n_features=128, noise=0.01):
    """Return clips that are near copies of each other within each family."""
    centres = np.repeat(rng.standard_normal((len(sizes), n_features)), sizes, axis=0)
    return centres + noise * rng.standard_normal(centres.shape)


def partition(groups):
    """Return the groups as sets of clips, independent of their numbering."""
    return {frozenset(np.flatnonzero(groups == g)) for g in np.unique(groups)}


@pytest.mark.parametrize("seed", range(5))
def test_near_copies_form_a_group(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 40)
    groups = clusters_of_clips(families(rng, sizes), DISTANCE, 5)
    family = np.repeat(np.arange(len(sizes)), sizes)
    assert partition(groups) == partition(family)


SINGLE = {
    "independent clips": np.random.default_rng(0).standard_normal((150, 128)),
    "with more features": np.random.default_rng(0).standard_normal((150, 384)),
    "zeros": np.zeros((7, 5)),
    "identical clips": np.full((7, 5), 3.1),
    "one clip": np.random.default_rng(0).standard_normal((1, 5)),
    "two clips": np.random.default_rng(0).standard_normal((2, 5)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_independent_identical_or_very_few_clips_are_groups_of_one(name):
    groups = clusters_of_clips(SINGLE[name], DISTANCE, 5)
    assert sorted(groups) == list(range(len(SINGLE[name])))


def test_a_group_too_large_for_two_folds_is_cut_again():
    """The smaller groups are those that the clips would form on their own."""
    rng = np.random.default_rng(0)
    inner = families(rng, [8] * 5, noise=0.001)
    clips = np.concatenate([0.1 * inner, families(rng, [1] * 50)])
    # With two folds, the forty clips fit into one group.
    two = clusters_of_clips(clips, DISTANCE, 2)
    assert frozenset(range(40)) in partition(two)
    five = clusters_of_clips(clips, DISTANCE, 5)
    expected = {frozenset(range(8 * k, 8 * k + 8)) for k in range(5)}
    assert partition(five) == expected | {frozenset([40 + k]) for k in range(50)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [0.2, 0.4])
def test_groups_equal_average_linkage_of_scikit_learn(seed, distance):
    """The limit is relative to the median distance, so a chain is not one group."""
    clips = np.random.default_rng(seed).standard_normal((60, 4)).cumsum(0)
    points = (clips - clips.mean(0)) / clips.std(0)
    linkage = AgglomerativeClustering(
        n_clusters=None,  # pyright: ignore[reportArgumentType]
        linkage="average",
        distance_threshold=distance * float(np.median(pdist(points))),
    )
    expected = partition(linkage.fit_predict(points))
    assert 1 < max(map(len, expected)) <= 30  # so no group is cut again
    assert partition(clusters_of_clips(clips, distance, 2)) == expected


def test_copies_among_different_clips_form_a_group():
    clips = np.random.default_rng(0).standard_normal((20, 60))
    clips[7] = clips[3]
    groups = clusters_of_clips(clips, DISTANCE, 5)
    assert groups[7] == groups[3]
    assert len(set(groups)) == 19


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_feature_has_no_influence(value):
    clips = families(np.random.default_rng(0), [3] * 12)
    more = np.column_stack([clips, np.full((len(clips), 40), value)])
    expected = clusters_of_clips(clips, DISTANCE, 5)
    np.testing.assert_array_equal(clusters_of_clips(more, DISTANCE, 5), expected)


def test_rounding_noise_of_a_constant_feature_has_no_influence():
    """The deviation of a band in digital silence is such noise."""
    rng = np.random.default_rng(0)
    clips = families(rng, [3] * 12)
    noise = 1e-7 * rng.standard_normal((len(clips), 200))
    groups = clusters_of_clips(np.column_stack([clips, noise]), DISTANCE, 5)
    assert partition(groups) == partition(np.repeat(np.arange(12), 3))


def test_a_change_of_units_changes_no_group():
    rng = np.random.default_rng(0)
    clips = families(rng, rng.integers(1, 5, 30))
    scaled = clips * 10 ** rng.uniform(-1, 1, clips.shape[1]) + 50.0
    expected = partition(clusters_of_clips(clips, DISTANCE, 5))
    assert partition(clusters_of_clips(scaled, DISTANCE, 5)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_clips_does_not_change_the_groups(seed):
    rng = np.random.default_rng(seed)
    # If noise is as large as the distances between families, groups are cut again.
    clips = families(rng, rng.integers(1, 30, 12), noise=rng.uniform(0.01, 1.0))
    expected = clusters_of_clips(clips, DISTANCE, 5)
    order = rng.permutation(len(clips))
    ours = np.empty(len(clips), int)
    ours[order] = clusters_of_clips(clips[order], DISTANCE, 5)
    assert partition(ours) == partition(expected)


@pytest.mark.parametrize("n_folds", [2, 5])
@pytest.mark.parametrize("seed", range(10))
def test_folds_hold_whole_groups_and_are_balanced_to_within_one(seed, n_folds):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, rng.integers(n_folds, 40))
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    folds = deal_clusters(rng, groups, n_folds)
    for number in range(len(sizes)):
        assert len(set(folds[groups == number])) == 1
    loads = np.bincount(folds, minlength=n_folds)
    assert len(loads) == n_folds
    assert loads.max() - loads.min() <= sizes.max()


def test_single_clips_are_dealt_evenly_and_at_random():
    deals = [
        deal_clusters(np.random.default_rng(seed), np.arange(52), 5)
        for seed in range(3)
    ]
    for folds in deals:
        assert sorted(np.bincount(folds)) == [10, 10, 10, 11, 11]
    assert (deals[0] != deals[1]).any()
    assert (deals[1] != deals[2]).any()


def test_fewer_groups_than_folds_leave_folds_empty():
    folds = deal_clusters(np.random.default_rng(0), np.array([0, 0, 1]), 5)
    assert folds[0] == folds[1] != folds[2]


@pytest.mark.parametrize("seed", range(3))
def test_each_group_largest_first_goes_to_the_fold_with_the_fewest_clips(seed):
    groups = np.repeat(np.arange(6), [1, 2, 3, 5, 3, 2])
    folds = deal_clusters(np.random.default_rng(seed), groups, 2)
    assert np.bincount(folds).tolist() == [8, 8]


def test_no_group_has_more_than_half_of_the_clips():
    rng = np.random.default_rng(0)
    inner = families(rng, [12] * 5, noise=0.001)
    clips = np.concatenate([0.1 * inner, families(rng, [1] * 40)])
    sizes = np.bincount(clusters_of_clips(clips, DISTANCE, 2))
    assert sorted(sizes) == [1] * 40 + [12] * 5


@pytest.mark.parametrize(("unit", "is_used"), [(1e-2, True), (1e-7, False)])
def test_the_unit_of_a_feature_has_no_influence_unless_it_only_rounds(unit, is_used):
    clips = np.random.default_rng(0).standard_normal((60, 4)).cumsum(0)
    scaled = clips * [1, unit, 1, unit]
    expected = clips if is_used else clips[:, ::2]
    other = clips[:, ::2] if is_used else clips
    ours = partition(clusters_of_clips(scaled, DISTANCE, 2))
    assert ours == partition(clusters_of_clips(expected, DISTANCE, 2))
    assert ours != partition(clusters_of_clips(other, DISTANCE, 2))
