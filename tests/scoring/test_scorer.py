"""A detector's scores: all of them, alone or in a batch, and for short events."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.detectors import fitted, small
from support.probes import clips, noise

from gammavae_jax.config import SCORE_NAMES
from gammavae_jax.config_json import override
from gammavae_jax.data.arrays import stack_clips
from gammavae_jax.evaluation.metrics import auc
from gammavae_jax.scoring.scorer import (
    output_of_clip,
    rows_in_window,
    wanted_statistics,
    windows_of_clip,
)

WITH_CENTRE = "model.target=centre"
OF_FOLDS = [name for name in SCORE_NAMES if not name.startswith("latent_")]
DETECTORS = {
    "one model": (
        list(SCORE_NAMES),
        ["train.split=clip", "train.held_out_fraction=0.5"],
    ),
    "folds of middle frames": (OF_FOLDS, [WITH_CENTRE]),
    "a power likelihood": (OF_FOLDS, ["model.likelihood=f"]),
}


@pytest.fixture(scope="module", params=DETECTORS)
def every_score(request):
    """The names of several scores, and a detector that computes them."""
    names, assignments = DETECTORS[request.param]
    config = small("gammavae", f"scores={json.dumps(names)}", *assignments)
    machine = clips(noise(np.random.default_rng(0), 24), n_target=4)
    return names, fitted(config, [("m", machine)], 5)


def test_a_detector_computes_every_score_of_the_configuration(every_score):
    rng = np.random.default_rng(1)
    names, probe = every_score
    scores = probe.scores(clips(noise(rng, 6)))
    assert list(scores) == names
    for name, values in scores.items():
        assert values.shape == (1, 1, 6)
        assert np.isfinite(values).all(), name
    # No two scores are equal, but `varmin` may have an exponent of 0 or 1.
    others = [name for name in names if not name.endswith("_varmin")]
    distinct = {tuple(np.round(scores[name].ravel(), 6)) for name in others}
    assert len(distinct) == len(others)
    varmins = {name: scores[name] for name in names if name.endswith("_varmin")}
    assert len({tuple(np.round(v.ravel(), 6)) for v in varmins.values()}) == len(
        varmins
    )
    for name, values in varmins.items():
        rules = (name.replace("varmin", rule) for rule in ("neighbour", "density"))
        low, high = np.sort([scores[rule] for rule in rules], axis=0)
        assert ((values > 0.5 * low) & (values < 2 * high)).all()


def test_a_clip_has_the_same_scores_alone_and_in_a_batch(every_score):
    rng = np.random.default_rng(2)
    spectra = noise(rng, 7, np.array([20, 9, 14, 5, 20, 8, 11]))
    names, probe = every_score
    batch = probe.scores(clips(spectra))
    assert list(batch) == names
    for i in (1, 3):
        alone = probe.scores(clips(spectra[i : i + 1]))
        for name, values in batch.items():
            # A fusion is in standard deviations and may be near 0. Covariances of few
            # rows amplify rounding.
            atol = 1e-4 if name.startswith("fusion") else 0
            rtol = 1e-3 if name.startswith("mahalanobis") else 1e-4
            np.testing.assert_allclose(
                values[..., i], alone[name][..., 0], rtol=rtol, atol=atol, err_msg=name
            )


@pytest.mark.parametrize("option", ["likelihood=gamma", "inputs=bands"])
def test_a_clips_gain_does_not_change_scores_of_normalised_bands(option):
    rng = np.random.default_rng(4)
    names = ["mse", "mahalanobis", "residual_density", "peak_density"]
    config = small("gammavae", f"scores={json.dumps(names)}", "score=mse")
    config = override(config, [f"model.{option}"])
    probe = fitted(config, [("m", clips(noise(rng, 10), n_target=2))], 1)
    spectra = noise(rng, 3, np.array([20, 12, 5]))
    scores = probe.scores(clips(spectra))
    louder = probe.scores(
        clips([x + g for x, g in zip(spectra, (13, -8, 2.5), strict=True)])
    )
    for name, values in scores.items():
        np.testing.assert_allclose(louder[name], values, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("likelihood", ["gaussian_db", "gamma"])
def test_the_mse_is_the_mean_squared_residual(likelihood):
    rng = np.random.default_rng(5)
    config = small("gammavae", 'scores=["mse"]', "score=mse", "train.split=clip")
    config = override(config, [f"model.likelihood={likelihood}"])
    probe = fitted(config, [("m", clips(noise(rng, 10)))], 1)
    data = stack_clips([clips(noise(rng, 1))], 5)
    scorer, one = (
        jax.tree.map(lambda leaf, n=n: jnp.asarray(leaf[(0,) * n]), tree)
        for tree, n in ((probe.detector.scorer, 2), (data, 1))
    )
    output, _ = output_of_clip(config, scorer, one, jnp.array(0))
    expected = np.mean(np.asarray(output.residual, np.float64) ** 2)
    found = probe.scores(clips([data.log_mel[0, 0]]))["mse"]
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_the_worst_windows_detect_a_short_click_that_the_mean_hardly_shows():
    rng = np.random.default_rng(3)

    def unsteady(n):
        """Return clips of 150 frames that differ in roughness, and so in error."""
        spectrum = -60 + 10 * np.sin(np.arange(128) / 7)
        rough = rng.uniform(2, 4, n)
        return [spectrum + r * rng.standard_normal((150, 128)) for r in rough]

    def click(clip):
        """Make one frame 15 dB louder."""
        frame = rng.integers(10, 140)
        return np.concatenate([clip[:frame], clip[[frame]] + 15.0, clip[frame + 1 :]])

    names = ["mse", "mse_ranked", "mse_top", "mse_max"]
    config = small("vae", f"scores={json.dumps(names)}", "model.inputs=centred")
    probe = fitted(config, [("m", clips(unsteady(30)))], 5)
    test = clips([*unsteady(60), *map(click, unsteady(60))])
    is_anomaly = np.repeat([False, True], 60)
    scores = probe.scores(test)
    aucs = {name: auc(scores[name][0, 0].astype(float), is_anomaly) for name in names}
    assert aucs["mse_max"] > 0.95
    assert aucs["mse_top"] > 0.9
    assert aucs["mse"] < 0.7
    assert aucs["mse"] < aucs["mse_ranked"] < aucs["mse_top"]


@pytest.mark.parametrize(("assignments", "rows"), [([], 5), ([WITH_CENTRE], 1)])
def test_a_window_has_a_row_for_each_frame_of_its_residual(assignments, rows):
    assert rows_in_window(small("gammavae", *assignments)) == rows


def test_only_statistics_that_a_score_needs_are_computed():
    def wanted(scores, fused):
        return wanted_statistics(
            small(
                "default",
                "train.split=clip",
                f"scores={json.dumps(scores)}",
                f"score={scores[0]}",
                f"scoring.fused={json.dumps(fused)}",
            )
        )

    assert wanted(["mse"], ["latent_density"]) == ()
    assert wanted(["fusion_max"], ["latent_density", "mse"]) == ("latent",)
    both = wanted(["peak_neighbour", "peak_density", "spectrum_density"], ["mse"])
    assert both == ("spectrum", "peak")


def test_windows_hold_successive_frames_and_padding_has_weight_0():
    config = small("gammavae")
    spectra = noise(np.random.default_rng(0), 2, np.array([12, 7]))
    data = stack_clips([clips(spectra)], 5)
    one = data._replace(**{n: jnp.asarray(getattr(data, n)[0]) for n in data._fields})
    windows, weight = windows_of_clip(config, one, jnp.array(1))
    assert weight.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    for i in range(3):
        expected = np.float32(spectra[1][i : i + 5]).ravel()
        np.testing.assert_array_equal(windows[i], expected)
