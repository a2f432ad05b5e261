"""Distances to training clips, against SciPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from gammavae_jax.config import ScoringConfig
from gammavae_jax.scoring.neighbours import distances, fit_reference, places_enough
from gammavae_jax.training.members import NO_FOLD

N_CLIPS, N_FEATURES, N_FOLDS = 40, 12, 4


@pytest.fixture
def bank():
    """Statistics of training clips, with features of different spread."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.5, 5, N_FEATURES)
    return 3.0 + spread * rng.standard_normal((N_CLIPS, N_FEATURES))


@pytest.fixture
def tests():
    rng = np.random.default_rng(1)
    return 3.0 + 3.0 * rng.standard_normal((9, N_FEATURES))


def places_needed(is_clip, is_target, config):
    """The clips and the synthetic ones among them; there is room enough for them."""
    n_target = np.count_nonzero(is_target & is_clip)
    n_source = np.count_nonzero(is_clip) - n_target
    wanted = int(config.smote_ratio * n_source) if n_target > 1 else 0
    needed = int(np.count_nonzero(is_clip)) + max(int(wanted - n_target), 0)
    assert needed <= places_enough(len(is_clip), config)
    return needed


def reference_of(bank, folds=None, is_target=None, n_places=0, fold=None, **scoring):
    """A reference of clips of folds 0 to 3 in turn, all of them source clips.

    It is of the model of a fold, or of one that has seen none of them.
    """
    n = len(bank)
    folds = np.arange(n) % N_FOLDS if folds is None else folds
    is_target = np.zeros(n, bool) if is_target is None else is_target
    config = ScoringConfig(**scoring)
    is_clip = folds != fold if fold is not None else np.ones(n, bool)
    return fit_reference(
        bank,
        folds,
        is_clip,
        is_target,
        config,
        max(n_places, places_needed(is_clip, is_target, config)),
        np.random.default_rng(5),
    )


def of_clips(statistics, reference):
    """The distances of several clips."""
    placed = jax.tree.map(jnp.asarray, reference)
    of_one = jax.vmap(lambda x: distances(x, placed))
    return jax.tree.map(np.asarray, of_one(jnp.float32(statistics)))


def assert_same(ours, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours, expected
    )


def standardised(bank):
    return (bank - bank.mean(0)) / bank.std(0)


def gaps(tests, bank):
    """Distances of test clips to those of the bank, whose features are standardised."""
    return cdist((tests - bank.mean(0)) / bank.std(0), standardised(bank))


def test_the_distance_is_scipys_to_the_nearest_clip(bank, tests):
    ours = of_clips(tests, reference_of(bank)).neighbour
    np.testing.assert_allclose(ours, gaps(tests, bank).min(1), rtol=1e-4)


@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_a_model_compares_with_the_clips_of_the_other_folds(bank, tests, fold):
    ours = of_clips(tests, reference_of(bank, fold=fold))
    others = bank[np.arange(N_CLIPS) % N_FOLDS != fold]
    np.testing.assert_allclose(ours.neighbour, gaps(tests, others).min(1), rtol=1e-4)


def test_nothing_of_a_reference_is_made_of_the_clips_that_were_held_out(bank):
    """Neither the scale of a feature nor a radius: they are as new as a test clip."""
    spoilt = bank.copy()
    spoilt[np.arange(N_CLIPS) % N_FOLDS == 1] *= 50
    is_target = np.arange(N_CLIPS) >= 33
    for ratio in (0.0, 1.0):
        ours, expected = (
            reference_of(x, is_target=is_target, fold=1, smote_ratio=ratio)
            for x in (spoilt, bank)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_the_distance_is_the_smaller_of_those_to_both_domains(bank, tests):
    is_target = np.arange(N_CLIPS) >= 34
    together = of_clips(tests, reference_of(bank, is_target=is_target))
    nearest = [gaps(tests, bank)[:, d].min(1) for d in (is_target, ~is_target)]
    np.testing.assert_allclose(together.neighbour, np.minimum(*nearest), rtol=1e-4)
    # Otherwise one bank would have done.
    assert (nearest[0] < nearest[1]).any()
    assert (nearest[0] > nearest[1]).any()


@pytest.mark.parametrize("n_neighbours", [1, 4, 10])
def test_a_radius_is_the_mean_distance_to_scikit_learns_nearest_of_other_folds(
    bank, n_neighbours
):
    reference = reference_of(bank, n_density_neighbours=n_neighbours)
    points, folds = standardised(bank), np.arange(N_CLIPS) % N_FOLDS
    for clip in range(N_CLIPS):
        found = NearestNeighbors(n_neighbors=n_neighbours)
        found.fit(points[folds != folds[clip]])
        expected = found.kneighbors(points[clip][None])[0].mean()
        np.testing.assert_allclose(reference.radius[clip], expected, rtol=1e-4)


def test_a_density_is_the_least_of_the_distances_by_their_radius(bank, tests):
    reference = reference_of(bank)
    expected = (gaps(tests, bank) / reference.radius).min(1)
    ours = of_clips(tests, reference).density
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    # Not of the nearest clip, necessarily.
    nearest = gaps(tests, bank).argmin(1)
    assert (
        expected < gaps(tests, bank).min(1) / reference.radius[nearest] - 1e-3
    ).any()


@pytest.mark.parametrize("folds", [np.zeros(N_CLIPS, int), np.full(N_CLIPS, NO_FOLD)])
def test_without_other_folds_a_radius_is_of_all_other_clips(bank, folds):
    reference = reference_of(bank, folds)
    apart = np.sort(gaps(bank, bank), axis=1)
    np.testing.assert_allclose(reference.radius, apart[:, 1:5].mean(1), rtol=1e-4)


def test_density_makes_alike_clips_of_a_domain_that_lies_thinly():
    """Normal clips of few, scattered target clips score as those of the source."""
    rng = np.random.default_rng(0)

    def of_domains(n_source, n_target):
        source = rng.standard_normal((n_source, N_FEATURES))
        return np.concatenate(
            [source, 30 + 6 * rng.standard_normal((n_target, N_FEATURES))]
        )

    is_target = np.arange(200) >= 170
    reference = reference_of(of_domains(170, 30), is_target=is_target)
    told = of_clips(of_domains(50, 50), reference)
    near, dense = (np.asarray(x).reshape(2, 50).mean(1) for x in told)
    assert near[1] > 3 * near[0]
    assert 0.7 < dense[1] / dense[0] < 1.4


def test_copies_in_the_bank_divide_by_no_zero(bank, tests):
    copies = np.repeat(bank[:8], 5, axis=0)
    reference = reference_of(copies, folds=np.arange(40) % 5)
    assert reference.radius.min() > 0
    told = of_clips(np.concatenate([tests, bank[:1]]), reference)
    assert np.isfinite(told.density).all()
    assert np.isfinite(told.neighbour).all()
    np.testing.assert_allclose(told.neighbour[-1], 0.0, atol=1e-4)


def test_no_radius_is_less_than_a_tenth_of_the_mean_one(bank):
    pair = np.concatenate([bank, bank[:1] + 1e-6])
    reference = reference_of(pair, n_density_neighbours=1, folds=np.arange(41))
    radius = np.asarray(reference.radius)
    assert radius[0] == radius[-1] == radius.min()
    before = reference_of(pair, n_density_neighbours=2, folds=np.arange(41)).radius
    assert before.min() > radius.min()
    np.testing.assert_allclose(radius.min(), 0.1 * radius.mean(), rtol=0.1)


def test_one_clip_gives_finite_distances(bank, tests):
    told = of_clips(tests, reference_of(bank[:1]))
    assert np.isfinite(told.neighbour).all()
    assert np.isfinite(told.density).all()
    assert (told.neighbour > 0).all()


def test_clips_all_alike_give_finite_distances(bank, tests):
    alike = reference_of(bank[:1][[0] * 9])
    told = of_clips(np.concatenate([tests, bank[:1]]), alike)
    assert np.isfinite(told.neighbour).all()
    assert np.isfinite(told.density).all()
    assert told.neighbour[-1] < told.neighbour[:-1].min()


def test_a_constant_feature_does_not_drown_the_others(bank, tests):
    """A deviation from it counts, but is not infinitely many deviations."""
    constant = np.column_stack([bank, np.full(N_CLIPS, 7.0)])
    there = np.column_stack([tests, np.full(9, 7.0)])
    away = np.column_stack([tests, np.full(9, 8.0)])
    reference = reference_of(constant)
    expected = gaps(tests, bank).min(1)
    np.testing.assert_allclose(
        of_clips(there, reference).neighbour, expected, rtol=1e-4
    )
    smallest = 0.05 * np.append(bank.std(0), 0.0).mean()
    np.testing.assert_allclose(
        of_clips(away, reference).neighbour,
        np.hypot(expected, 1 / smallest),
        rtol=1e-3,
    )


def test_what_is_no_clip_has_no_say(bank, tests):
    """Padding, and clips that are not to be compared with: their values are NaN."""
    spoilt = np.concatenate([bank, np.full((5, N_FEATURES), np.nan)])
    order = np.random.default_rng(0).permutation(45)
    is_clip = (np.arange(45) < N_CLIPS)[order]
    folds = np.where(np.arange(45) < N_CLIPS, np.arange(45) % N_FOLDS, NO_FOLD)[order]
    reference = fit_reference(
        spoilt[order],
        folds,
        is_clip,
        np.zeros(45, bool),
        ScoringConfig(),
        N_CLIPS,
        np.random.default_rng(0),
    )
    assert_same(of_clips(tests, reference), of_clips(tests, reference_of(bank)))


def test_free_places_are_never_neighbours(bank, tests):
    """Not even of a clip in the very middle, where their zeros are."""
    tests = np.concatenate([tests, bank.mean(0)[None]])
    ours = of_clips(tests, reference_of(bank, n_places=60))
    assert_same(ours, of_clips(tests, reference_of(bank)))


@pytest.mark.parametrize(
    ("n_target", "ratio", "expected"),
    [(0, 1.0, 0), (1, 1.0, 0), (5, 0.0, 0), (5, 1.0, 30), (5, 0.2, 2), (20, 0.5, 0)],
)
def test_synthetic_clips_fill_up_the_target_domain_where_two_are_there(
    bank, tests, n_target, ratio, expected
):
    is_target = np.arange(N_CLIPS) >= N_CLIPS - n_target
    reference = reference_of(bank, is_target=is_target, smote_ratio=ratio)
    assert reference.is_clip.sum() == len(reference.clips) == N_CLIPS + expected
    np.testing.assert_allclose(
        reference.clips[:N_CLIPS], standardised(bank), rtol=1e-4, atol=1e-5
    )
    told = of_clips(tests, reference)
    assert np.isfinite(told.neighbour).all()
    assert np.isfinite(told.density).all()


def test_a_synthetic_clip_lies_between_two_near_target_clips_and_has_both_their_folds(
    bank,
):
    """A clip of neither fold is a neighbour that may say how thinly it lies."""
    is_target = np.arange(N_CLIPS) >= 33
    reference = reference_of(bank, is_target=is_target, smote_ratio=1.0)
    clips, folds = np.asarray(reference.clips), np.arange(N_CLIPS) % N_FOLDS
    target, target_folds = clips[:N_CLIPS][is_target], folds[is_target]
    apart = cdist(target, target) + np.diag(np.full(7, np.inf))
    near = np.argsort(apart, axis=1)[:, :2]
    pairs = [(fold,) for fold in folds]
    ends = set()
    for clip in clips[N_CLIPS:]:
        # On a segment the ways to both its ends add up to its length.
        ways = np.linalg.norm(target - clip, axis=1)
        (found, *_) = (
            (i, j)
            for i in range(7)
            for j in near[i]
            if ways[i] + ways[j] == pytest.approx(apart[i, j], rel=1e-5)
        )
        ends.add(found)
        pairs.append(tuple(target_folds[list(found)]))
    assert len(ends) > 5
    for place, own in enumerate(pairs):
        others = [not set(own) & set(pair) for pair in pairs]
        expected = np.sort(cdist(clips[place][None], clips[others])[0])[:4].mean()
        np.testing.assert_allclose(reference.radius[place], expected, rtol=1e-3)


def test_synthetic_clips_are_drawn_by_the_generator_alone(bank):
    is_target = np.arange(N_CLIPS) >= 33
    both = [reference_of(bank, is_target=is_target, smote_ratio=1.0) for _ in range(2)]
    np.testing.assert_array_equal(both[0].clips, both[1].clips)
