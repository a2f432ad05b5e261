"""Distances to training clips, compared with SciPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from gammavae_jax.config import RULES, ScoringConfig
from gammavae_jax.scoring.neighbours import distances, fit_reference, places_enough
from gammavae_jax.scoring.threshold import conformal_threshold
from gammavae_jax.training.members import NO_FOLD

N_CLIPS, N_FEATURES, N_FOLDS = 40, 12, 4


@pytest.fixture
def bank():
    """Statistics of training clips, with features of different spreads."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.5, 5, N_FEATURES)
    return 3.0 + spread * rng.standard_normal((N_CLIPS, N_FEATURES))


@pytest.fixture
def tests():
    rng = np.random.default_rng(1)
    return 3.0 + 3.0 * rng.standard_normal((9, N_FEATURES))


def places_needed(is_clip, is_target, config):
    """Return the number of training and synthetic clips, and check the capacity."""
    n_target = np.count_nonzero(is_target & is_clip)
    n_source = np.count_nonzero(is_clip) - n_target
    wanted = int(config.smote_ratio * n_source) if n_target > 1 else 0
    needed = int(np.count_nonzero(is_clip)) + max(int(wanted - n_target), 0)
    assert needed <= places_enough(len(is_clip), config)
    return needed


def reference_of(bank, folds=None, is_target=None, n_places=0, fold=None, **scoring):
    """Fit a reference set; by default, to source clips in folds 0 to 3, round-robin.

    The reference is that of the model for `fold`, or of a model without held-out clips.
    """
    n = len(bank)
    folds = np.arange(n) % N_FOLDS if folds is None else folds
    is_target = np.zeros(n, bool) if is_target is None else is_target
    config = ScoringConfig(**scoring)
    is_clip = folds != fold if fold is not None else np.ones(n, bool)
    return fit_reference(
        bank,
        related(folds),
        is_clip,
        is_target,
        config,
        max(n_places, places_needed(is_clip, is_target, config)),
        np.random.default_rng(5),
    )


def related(folds):
    """Return the pairs of clips that are in the same fold."""
    return (folds[:, None] == folds) & (folds != NO_FOLD)


def of_clips(statistics, reference):
    """Return the distances of several clips."""
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
    """Return the distances of test clips to the bank, in standardised features."""
    return cdist((tests - bank.mean(0)) / bank.std(0), standardised(bank))


def scaled_gaps(clip, bank, of_scale):
    """Return one clip's distances to the bank, in the other clips' deviations."""
    return np.linalg.norm((bank - clip) / of_scale.std(0), axis=1)


def test_the_distance_to_the_nearest_clip_equals_scipys(bank, tests):
    ours = of_clips(tests, reference_of(bank))["neighbour"]
    np.testing.assert_allclose(ours, gaps(tests, bank).min(1), rtol=1e-4)


@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_a_model_compares_with_the_clips_of_the_other_folds(bank, tests, fold):
    ours = of_clips(tests, reference_of(bank, fold=fold))
    others = bank[np.arange(N_CLIPS) % N_FOLDS != fold]
    np.testing.assert_allclose(ours["neighbour"], gaps(tests, others).min(1), rtol=1e-4)


def test_held_out_clips_have_no_influence_on_a_reference(bank):
    """Neither the scale nor any radius depends on held-out clips."""
    changed = bank.copy()
    changed[np.arange(N_CLIPS) % N_FOLDS == 1] *= 50
    is_target = np.arange(N_CLIPS) >= 33
    for ratio in (0.0, 1.0):
        ours, expected = (
            reference_of(x, is_target=is_target, fold=1, smote_ratio=ratio)
            for x in (changed, bank)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_the_distance_is_the_smaller_of_both_domains(bank, tests):
    is_target = np.arange(N_CLIPS) >= 34
    ours = of_clips(tests, reference_of(bank, is_target=is_target))
    nearest = [gaps(tests, bank)[:, d].min(1) for d in (is_target, ~is_target)]
    np.testing.assert_allclose(ours["neighbour"], np.minimum(*nearest), rtol=1e-4)
    # Both domains matter.
    assert (nearest[0] < nearest[1]).any()
    assert (nearest[0] > nearest[1]).any()


@pytest.mark.parametrize("n_neighbours", [1, 4, 10])
def test_a_radius_is_the_mean_distance_to_scikit_learns_neighbours_of_other_folds(
    bank, n_neighbours
):
    reference = reference_of(bank, n_density_neighbours=n_neighbours)
    points, folds = standardised(bank), np.arange(N_CLIPS) % N_FOLDS
    for clip in range(N_CLIPS):
        others = NearestNeighbors(n_neighbors=n_neighbours)
        others.fit(points[folds != folds[clip]])
        expected = others.kneighbors(points[clip][None])[0].mean()
        np.testing.assert_allclose(reference.radius[clip], expected, rtol=1e-4)


def test_a_density_is_the_smallest_distance_divided_by_a_radius(bank, tests):
    reference = reference_of(bank)
    expected = (gaps(tests, bank) / reference.radius).min(1)
    ours = of_clips(tests, reference)["density"]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    # The radius need not be that of the nearest clip.
    nearest = gaps(tests, bank).argmin(1)
    assert (
        expected < gaps(tests, bank).min(1) / reference.radius[nearest] - 1e-3
    ).any()


@pytest.mark.parametrize("folds", [np.zeros(N_CLIPS, int), np.full(N_CLIPS, NO_FOLD)])
def test_without_other_folds_a_radius_uses_all_other_clips(bank, folds):
    reference = reference_of(bank, folds)
    apart = np.sort(gaps(bank, bank), axis=1)
    np.testing.assert_allclose(reference.radius, apart[:, 1:5].mean(1), rtol=1e-4)


def test_density_makes_the_scores_of_a_sparse_domain_comparable():
    """Normal clips of a domain with few, scattered clips score like the others."""
    rng = np.random.default_rng(0)

    def of_domains(n_source, n_target):
        source = rng.standard_normal((n_source, N_FEATURES))
        return np.concatenate(
            [source, 30 + 6 * rng.standard_normal((n_target, N_FEATURES))]
        )

    is_target = np.arange(200) >= 170
    reference = reference_of(of_domains(170, 30), is_target=is_target)
    ours = of_clips(of_domains(50, 50), reference)
    near, dense = (ours[r].reshape(2, 50).mean(1) for r in ("neighbour", "density"))
    assert near[1] > 3 * near[0]
    assert 0.7 < dense[1] / dense[0] < 1.4


def test_copies_among_the_clips_do_not_divide_by_zero(bank, tests):
    copies = np.repeat(bank[:8], 5, axis=0)
    reference = reference_of(copies, folds=np.arange(40) % 5)
    assert reference.radius.min() > 0
    ours = of_clips(np.concatenate([tests, bank[:1]]), reference)
    assert np.isfinite(list(ours.values())).all()
    np.testing.assert_allclose(ours["neighbour"][-1], 0.0, atol=1e-4)


def test_no_radius_is_below_a_tenth_of_the_mean(bank):
    pair = np.concatenate([bank, bank[:1] + 1e-6])
    reference = reference_of(pair, n_density_neighbours=1, folds=np.arange(41))
    radius = np.asarray(reference.radius)
    assert radius[0] == radius[-1] == radius.min()
    before = reference_of(pair, n_density_neighbours=2, folds=np.arange(41)).radius
    assert before.min() > radius.min()
    np.testing.assert_allclose(radius.min(), 0.1 * radius.mean(), rtol=0.1)


def test_one_clip_gives_finite_distances(bank, tests):
    ours = of_clips(tests, reference_of(bank[:1]))
    assert np.isfinite(list(ours.values())).all()
    assert (ours["neighbour"] > 0).all()


def test_identical_clips_give_finite_distances(bank, tests):
    copies = reference_of(bank[:1][[0] * 9])
    ours = of_clips(np.concatenate([tests, bank[:1]]), copies)
    assert np.isfinite(list(ours.values())).all()
    assert ours["neighbour"][-1] < ours["neighbour"][:-1].min()


def test_a_constant_feature_does_not_dominate_the_others(bank, tests):
    """A change in a constant feature counts, but not as infinitely many deviations."""
    constant = np.column_stack([bank, np.full(N_CLIPS, 7.0)])
    equal = np.column_stack([tests, np.full(9, 7.0)])
    changed = np.column_stack([tests, np.full(9, 8.0)])
    reference = reference_of(constant)
    expected = gaps(tests, bank).min(1)
    np.testing.assert_allclose(
        of_clips(equal, reference)["neighbour"], expected, rtol=1e-4
    )
    smallest = 0.05 * np.append(bank.std(0), 0.0).mean()
    np.testing.assert_allclose(
        of_clips(changed, reference)["neighbour"],
        np.hypot(expected, 1 / smallest),
        rtol=1e-3,
    )


def test_padding_and_excluded_clips_have_no_influence(bank, tests):
    """The values of these clips are set to NaN."""
    padded = np.concatenate([bank, np.full((5, N_FEATURES), np.nan)])
    order = np.random.default_rng(0).permutation(45)
    is_clip = (np.arange(45) < N_CLIPS)[order]
    folds = np.where(np.arange(45) < N_CLIPS, np.arange(45) % N_FOLDS, NO_FOLD)[order]
    reference = fit_reference(
        padded[order],
        related(folds),
        is_clip,
        np.zeros(45, bool),
        ScoringConfig(),
        N_CLIPS,
        np.random.default_rng(0),
    )
    assert_same(of_clips(tests, reference), of_clips(tests, reference_of(bank)))


def test_free_slots_are_never_neighbours(bank, tests):
    """Free slots hold zeros, so a clip at the mean would be nearest to them."""
    tests = np.concatenate([tests, bank.mean(0)[None]])
    ours = of_clips(tests, reference_of(bank, n_places=60))
    assert_same(ours, of_clips(tests, reference_of(bank)))


@pytest.mark.parametrize(
    ("n_target", "ratio", "expected"),
    [(0, 1.0, 0), (1, 1.0, 0), (5, 0.0, 0), (5, 1.0, 30), (5, 0.2, 2), (20, 0.5, 0)],
)
def test_synthetic_clips_fill_up_a_target_domain_of_two_or_more_clips(
    bank, tests, n_target, ratio, expected
):
    is_target = np.arange(N_CLIPS) >= N_CLIPS - n_target
    reference = reference_of(bank, is_target=is_target, smote_ratio=ratio)
    assert reference.is_clip.sum() == len(reference.clips) == N_CLIPS + expected
    np.testing.assert_allclose(
        reference.clips[:N_CLIPS], standardised(bank), rtol=1e-4, atol=1e-5
    )
    ours = of_clips(tests, reference)
    assert np.isfinite(list(ours.values())).all()


def test_a_synthetic_clip_lies_between_near_target_clips_and_has_both_folds(bank):
    """A synthetic clip's radius uses clips of neither fold."""
    is_target = np.arange(N_CLIPS) >= 33
    reference = reference_of(bank, is_target=is_target, smote_ratio=1.0)
    clips, folds = np.asarray(reference.clips), np.arange(N_CLIPS) % N_FOLDS
    target, target_folds = clips[:N_CLIPS][is_target], folds[is_target]
    apart = cdist(target, target) + np.diag(np.full(7, np.inf))
    near = np.argsort(apart, axis=1)[:, :2]
    pairs = [(fold,) for fold in folds]
    ends = set()
    for clip in clips[N_CLIPS:]:
        # The distances of a point on a segment to its ends add up to its length.
        ways = np.linalg.norm(target - clip, axis=1)
        (pair, *_) = (
            (i, j)
            for i in range(7)
            for j in near[i]
            if ways[i] + ways[j] == pytest.approx(apart[i, j], rel=1e-5)
        )
        ends.add(pair)
        pairs.append(tuple(target_folds[list(pair)]))
    assert len(ends) > 5
    for place, own in enumerate(pairs):
        others = [not set(own) & set(pair) for pair in pairs]
        expected = np.sort(cdist(clips[place][None], clips[others])[0])[:4].mean()
        np.testing.assert_allclose(reference.radius[place], expected, rtol=1e-3)


def test_synthetic_clips_depend_on_the_generator_alone(bank):
    is_target = np.arange(N_CLIPS) >= 33
    both = [reference_of(bank, is_target=is_target, smote_ratio=1.0) for _ in range(2)]
    np.testing.assert_array_equal(both[0].clips, both[1].clips)


def of_domains(n_sources, spread, seed=0):
    """Return the clips of two domains; those of the second are more scattered."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((200, N_FEATURES))
    is_target = np.arange(200) >= n_sources
    return np.where(is_target[:, None], 30 + spread * normal, normal), is_target


@pytest.mark.parametrize("n_neighbours", [1, 4])
@pytest.mark.parametrize("spread", [1.5, 3.0, 6.0])
def test_the_exponent_is_the_slope_of_log_distances_on_log_radii(spread, n_neighbours):
    """This exponent minimises the variance of the training clips' log quotients."""
    points, is_target = of_domains(150, spread)
    folds = np.arange(200)
    reference = reference_of(
        points, folds, is_target, n_density_neighbours=n_neighbours
    )
    apart = gaps(points, points) + np.diag(np.full(200, np.inf))
    nearest = np.log(apart.min(1))
    log_radius = np.log(reference.radius[apart.argmin(1)])
    slope = np.polyfit(log_radius, nearest, 1)[0]
    np.testing.assert_allclose(reference.exponent, np.clip(slope, 0, 1), rtol=1e-3)

    def variance(exponent):
        return np.var(nearest - exponent * log_radius)

    best = variance(float(reference.exponent))
    others = [variance(exponent) for exponent in np.linspace(0, 1, 21)]
    assert best <= min(others) + 1e-6
    if n_neighbours > 1:
        assert 0.5 < reference.exponent < 1


def test_varmin_is_the_smallest_distance_divided_by_a_power_of_a_radius(tests):
    points, is_target = of_domains(150, 3.0)
    reference = reference_of(points, is_target=is_target)
    power = reference.radius ** float(reference.exponent)
    ours = of_clips(10 * tests, reference)["varmin"]
    expected = (gaps(10 * tests, points) / power).min(1)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert 0.1 < reference.exponent < 0.97  # so `varmin` differs from the other rules


def test_the_exponent_of_equally_dense_clips_is_from_0_to_1(bank):
    """In a grid, among copies, or with one or two clips, all radii are equal."""
    line = np.arange(20.0)[:, None] * np.ones(N_FEATURES)
    for points in (line, bank[:1][[0] * 9], bank[:2], bank[:1]):
        assert 0 <= reference_of(points, np.arange(len(points))).exponent <= 1
    # Where dense and sparse clips have the same distances, radii do not matter.
    assert reference_of(bank[:2], np.arange(2)).exponent == 0


def test_padding_has_no_influence_on_the_exponent(bank):
    expected = reference_of(bank).exponent
    ours = reference_of(bank, n_places=77).exponent
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert expected > 0


def compared(points, reference, is_linked):
    placed = jax.tree.map(jnp.asarray, reference)
    of_one = jax.vmap(lambda x, linked: distances(x, placed, linked))
    ours = of_one(jnp.float32(points), jnp.asarray(is_linked))
    return jax.tree.map(np.asarray, ours)


def test_a_training_clip_is_not_compared_with_the_clips_that_it_is_linked_to(bank):
    rng = np.random.default_rng(0)
    linked = rng.random((N_CLIPS, N_CLIPS)) < 0.15
    linked = linked | linked.T | np.eye(N_CLIPS, dtype=bool)
    reference = reference_of(bank, n_places=50)
    ours = compared(bank, reference, linked)
    apart = np.stack(
        [
            np.where(of_clip, np.inf, scaled_gaps(clip, bank, bank[~of_clip]))
            for clip, of_clip in zip(bank, linked, strict=True)
        ]
    )
    radius = reference.radius[:N_CLIPS]
    powers = {"neighbour": 0.0, "density": 1.0, "varmin": float(reference.exponent)}
    assert ours.keys() == powers.keys()
    for rule, power in powers.items():
        expected = (apart / radius**power).min(1)
        np.testing.assert_allclose(ours[rule], expected, rtol=1e-4)


def test_links_use_the_numbers_of_all_training_clips(bank):
    """A model's reference holds only the clips of the other folds."""
    reference = reference_of(bank, fold=1)
    others = np.flatnonzero(np.arange(N_CLIPS) % N_FOLDS != 1)
    linked = np.zeros((1, N_CLIPS), bool)
    linked[0, others[:-1]] = True
    ours = compared(bank[1:2], reference, linked)["neighbour"]
    # One clip is too few to measure a scale, so it is that of the whole reference.
    expected = gaps(bank[1:2], bank[others])[:, -1]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize(("n_used", "is_enough"), [(20, False), (21, True)])
def test_the_scale_excludes_linked_clips_if_more_than_half_remain(
    bank, n_used, is_enough
):
    linked = np.arange(N_CLIPS)[None] >= n_used
    ours = compared(bank[-1:], reference_of(bank), linked)["neighbour"]
    of_scale = bank[:n_used] if is_enough else bank
    expected = scaled_gaps(bank[-1], bank[:n_used], of_scale).min()
    np.testing.assert_allclose(ours, [expected], rtol=1e-4)


def test_a_clip_that_is_linked_to_all_others_is_compared_with_all(bank):
    reference = reference_of(bank, n_places=50)
    ours = compared(bank + 0.5, reference, np.ones((N_CLIPS, N_CLIPS), bool))
    assert_same(ours, of_clips(bank + 0.5, reference))


def test_a_clip_linked_to_either_parent_of_a_synthetic_clip_is_not_compared_with_it(
    bank,
):
    is_target = np.arange(N_CLIPS) >= 33
    reference = reference_of(bank, is_target=is_target, smote_ratio=1.0)
    linked = np.eye(N_CLIPS, dtype=bool)[33:]
    ours = compared(bank[33:], reference, linked)["neighbour"]
    clips, parents = np.asarray(reference.clips), np.asarray(reference.parents)
    own = (parents[None] == np.arange(33, N_CLIPS)[:, None, None]).any(-1)
    apart = np.stack(
        [
            scaled_gaps(
                bank[n], clips * bank.std(0) + bank.mean(0), np.delete(bank, n, 0)
            )
            for n in range(33, N_CLIPS)
        ]
    )
    expected = np.where(own, np.inf, apart).min(1)
    np.testing.assert_allclose(ours, expected, rtol=1e-3)
    # A clip's own synthetic clips would otherwise be nearer.
    np.fill_diagonal(apart[:, 33:], np.inf)
    assert (apart.min(1) < expected - 1e-3).any()


def test_linked_clips_do_not_count_as_each_others_neighbours(bank):
    """Linked clips change neither each other's radii nor the exponent."""
    copies = np.concatenate([bank, bank + 1e-3])
    linked = np.tile(np.eye(N_CLIPS, dtype=bool), (2, 2))
    arguments = (np.ones(80, bool), np.zeros(80, bool), ScoringConfig(), 80)
    reference = fit_reference(copies, linked, *arguments, np.random.default_rng(0))
    apart = np.where(linked, np.inf, gaps(copies, copies))
    expected = np.sort(apart, axis=1)[:, :4].mean(1)
    np.testing.assert_allclose(reference.radius, expected, rtol=1e-4)
    log_radius = np.log(reference.radius[apart.argmin(1)])
    slope = np.polyfit(log_radius, np.log(apart.min(1)), 1)[0]
    np.testing.assert_allclose(reference.exponent, np.clip(slope, 0, 1), rtol=1e-2)


@pytest.mark.parametrize("n_clips", [12, 20, 50])
@pytest.mark.parametrize("rule", RULES)
def test_few_training_clips_of_many_bands_raise_no_more_alarms_than_expected(
    n_clips, rule
):
    """A held-out clip must not influence the scale with which it is measured."""
    n_new, n_features, rates = 60, 256, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        train = rng.standard_normal((n_clips, n_features)).astype(np.float32)
        new = rng.standard_normal((n_new, n_features)).astype(np.float32)
        alone = np.eye(n_clips, dtype=bool)
        reference = jax.tree.map(
            jnp.asarray,
            fit_reference(
                train,
                alone,
                np.ones(n_clips, bool),
                np.zeros(n_clips, bool),
                ScoringConfig(),
                n_clips,
                rng,
            ),
        )
        held_out = jax.vmap(distances, (0, None, 0))(
            jnp.asarray(train), reference, jnp.asarray(alone)
        )
        scores = jax.vmap(distances, (0, None))(jnp.asarray(new), reference)
        threshold = conformal_threshold(np.asarray(held_out[rule], np.float64), 0.1)
        rates.append(np.mean(np.asarray(scores[rule]) > threshold))
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) < 0.1 + 3 * error
