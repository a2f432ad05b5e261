"""Fused scores, compared with SciPy's standardisation."""

import numpy as np
import pytest
import scipy.stats

from gammavae_jax.scoring.fusion import equalise_ties, fuse, smooth_max, standard_of

FUSED = ("mse", "mahalanobis", "peak_density")


def log_mean_exp(parts, axis):
    return np.log(np.mean(np.exp(parts), axis=axis))


RULES = {
    "fusion_mean": np.mean,
    "fusion_max": np.max,
    "fusion_min": np.min,
    "fusion_smooth_max": log_mean_exp,
}


def gammas(rng, n_clips):
    """Return scores of two seeds and three machines, each score in its own unit."""
    return {
        name: 10.0**unit * rng.gamma(2.0, size=(2, 3, n_clips))
        for unit, name in enumerate(("kl", *FUSED))
    }


@pytest.fixture
def held_out():
    """The calibration of machines with forty, thirty and twenty clips."""
    scores = gammas(np.random.default_rng(0), 40)
    for values in scores.values():
        for machine in range(3):
            values[:, machine, 40 - 10 * machine :] = np.nan
    return scores


@pytest.fixture
def scores():
    return gammas(np.random.default_rng(1), 15)


@pytest.mark.parametrize("name", RULES)
def test_scores_are_standardised_on_held_out_clips_before_fusion(
    scores, held_out, name
):
    ours = fuse(scores, held_out, [name], FUSED)
    assert ours.keys() == {name}
    for at in np.ndindex(2, 3):
        parts = [
            scipy.stats.zmap(scores[n][at], held_out[n][at], nan_policy="omit")
            for n in FUSED
        ]
        np.testing.assert_allclose(ours[name][at], RULES[name](parts, axis=0))


@pytest.mark.parametrize("spread", [0.0, 1e-3, 3.0, 1e4])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_smooth_maximum_is_between_the_mean_and_the_maximum(n, spread):
    """It is at least the maximum minus the log of the number of scores."""
    parts = spread * np.random.default_rng(n).standard_normal((n, 200))
    ours, most = smooth_max(list(parts)), parts.max(0)
    error = 1e-9 * (1 + spread)
    assert (ours <= most + error).all()
    assert (ours >= parts.mean(0) - error).all()
    assert (ours >= most - np.log(n) - error).all()
    np.testing.assert_allclose(smooth_max(list(parts + 7.0)), ours + 7.0, atol=error)
    if spread == 1e4:
        np.testing.assert_allclose(ours, most - np.log(n), atol=1e-3)
    if spread == 1e-3:
        np.testing.assert_allclose(ours, parts.mean(0), atol=spread**2 * 10)


@pytest.mark.parametrize("seed", range(5))
def test_a_score_that_detects_nothing_does_not_change_the_order_of_clips(seed):
    """A plain maximum would hide all differences below zero."""
    rng = np.random.default_rng(seed)
    parts = list(rng.standard_normal((2, 50)))
    expected = np.argsort(smooth_max(parts))
    ours = smooth_max([*parts, np.zeros(50)])
    np.testing.assert_array_equal(np.argsort(ours), expected)
    assert len(np.unique(ours)) == 50
    # A fault that only one score detects stands out as much as before.
    parts[0][3] = 12.0
    gain = [smooth_max(p)[3] for p in (parts, [*parts, np.zeros(50)])]
    np.testing.assert_allclose(gain, [12 - np.log(2), 12 - np.log(3)], atol=1e-3)


def test_scores_other_than_fusions_are_returned_unchanged(scores, held_out):
    ours = fuse(scores, held_out, ["kl", "fusion_mean", "mse"], FUSED)
    assert list(ours) == ["kl", "fusion_mean", "mse"]
    for name in ("kl", "mse"):
        assert ours[name] is scores[name]


def test_without_a_fusion_no_calibration_is_needed(scores):
    assert fuse(scores, {}, ["mse"], FUSED) == {"mse": scores["mse"]}


def test_a_clip_has_the_same_fusion_alone_and_among_others(scores, held_out):
    among_others = fuse(scores, held_out, list(RULES), FUSED)
    for clip in (0, 7):
        one = {name: values[..., [clip]] for name, values in scores.items()}
        alone = fuse(one, held_out, list(RULES), FUSED)
        for name in RULES:
            np.testing.assert_array_equal(
                alone[name][..., 0], among_others[name][..., clip]
            )


def test_the_unit_of_a_score_does_not_change_its_fusion(scores, held_out):
    def rescaled(values):
        return {**values, "mse": 1e4 * values["mse"] - 7.0}

    expected = fuse(scores, held_out, list(RULES), FUSED)
    ours = fuse(rescaled(scores), rescaled(held_out), list(RULES), FUSED)
    for name in RULES:
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-8, atol=1e-8)


def test_the_fusion_of_a_single_score_keeps_its_order(scores, held_out):
    ours = fuse(scores, held_out, list(RULES), ("mse",))
    for name in RULES:
        np.testing.assert_array_equal(np.argsort(ours[name]), np.argsort(scores["mse"]))


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("n_held_out", [1, 5])
def test_equal_held_out_scores_give_finite_fusions(scores, value, n_held_out):
    equal = {name: np.full((2, 3, n_held_out), value) for name in FUSED}
    ours = fuse(scores, equal, list(RULES), FUSED)
    for name in RULES:
        assert np.isfinite(ours[name]).all()
    (one,) = fuse(scores, equal, ["fusion_mean"], ["mse"]).values()
    np.testing.assert_array_equal(np.argsort(one), np.argsort(scores["mse"]))


@pytest.mark.parametrize("n_held_out", [2, 7, 12, 24])
@pytest.mark.parametrize("value", [0.0, 1e-7, 128.0, -3e6, 1e18])
@pytest.mark.parametrize(("name", "at_zero"), [("residual_density", 1), ("mse", 1e-3)])
def test_held_out_scores_that_differ_by_rounding_are_equalised_above_the_largest(
    name, at_zero, value, n_held_out
):
    """Rounding changes distances, which are square roots, more than squares.

    The mean of twelve equal numbers may differ from them by a rounding error.
    """
    noise = 1e-5 * np.random.default_rng(0).standard_normal(n_held_out)
    equal = value * (1 + noise) + at_zero * noise
    padded = np.append(equal, np.nan)[None]
    ours = equalise_ties(name, padded)
    assert np.isnan(ours[0, -1])
    assert len(np.unique(ours[0, :-1])) == 1
    above = ours[0, 0] - equal.max()
    assert 5 * np.ptp(equal) < above <= max(1e-3 * abs(value), at_zero * 1e-2)
    # The fused score of a copy is below the threshold, that of other sounds far above.
    same, other = equal[0], value + max(abs(value), 1.0)
    (fused,) = fuse(
        {name: np.array([[[same, other]]])}, {name: ours[None]}, ["fusion_mean"], [name]
    ).values()
    assert -0.4 < fused[0, 0, 0] < -0.2
    assert 90 < fused[0, 0, 1] < 2e5


def test_scores_that_differ_are_not_equalised(held_out):
    """A single score and the scores of a diverged model are not equalised either."""
    for scores in (
        *held_out.values(),
        np.array([[2.0, np.nan]]),
        np.full((1, 3), np.nan),
    ):
        np.testing.assert_array_equal(equalise_ties("residual_density", scores), scores)
    # Even very small scores are kept, such as the divergence of a collapsed code.
    small = np.array([[1e-4, 1.5e-4, 3e-4]])
    np.testing.assert_array_equal(equalise_ties("kl", small), small)


@pytest.mark.parametrize(
    ("name", "size", "most"),
    [
        ("residual_density", 0.0, 5e-3),
        ("mahalanobis", 0.0, 5e-3),
        ("mahalanobis_framewise", 0.0, 5e-3),
        ("mse", 0.0, 5e-6),
        ("mse", 100.0, 0.05),
        ("peak_density", 100.0, 0.05),
    ],
)
def test_held_out_scores_are_equal_up_to_a_spread_of_half_the_rounding(
    name, size, most
):
    for share, are_equal in ((0.9, True), (1.1, False)):
        scores = np.array([[size - share * most, size]])
        assert (np.ptp(equalise_ties(name, scores)) == 0) == are_equal


def test_the_unit_of_a_score_is_at_least_a_thousandth_of_its_mean():
    nearly_equal, spread = np.array([[1e3, 1e3 + 1e-3], [1e3, 1e3 + 10]])
    np.testing.assert_allclose(standard_of("kl", nearly_equal).unit, 1.0, rtol=1e-5)
    np.testing.assert_allclose(standard_of("kl", spread).unit, 5.0, rtol=1e-5)


def test_a_diverged_model_causes_no_division_by_zero():
    with np.errstate(all="raise"):
        assert standard_of("mse", np.full((1, 3), np.nan)).mean == 0
