"""One model's scores: all there are, a clip alone or in a batch, short events heard."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from support.detectors import fitted, small
from support.probes import clips, noise

from gammavae_jax.config import SCORE_NAMES
from gammavae_jax.data.arrays import stack_clips
from gammavae_jax.evaluation.metrics import auc
from gammavae_jax.scoring.scorer import (
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
}


@pytest.fixture(scope="module", params=DETECTORS)
def every_score(request):
    """A detector with every score, of one model or of folds, and their names."""
    names, assignments = DETECTORS[request.param]
    config = small("default", f"scores={json.dumps(names)}", *assignments)
    machine = clips(noise(np.random.default_rng(0), 24), n_target=4)
    return names, fitted(config, [("m", machine)], 5)


def test_the_scores_are_those_that_the_configuration_knows(every_score):
    rng = np.random.default_rng(1)
    names, made = every_score
    scores = made.scores(clips(noise(rng, 6)))
    assert list(scores) == names
    for name, values in scores.items():
        assert values.shape == (1, 1, 6)
        assert np.isfinite(values).all(), name
    # Each is a score of its own.
    distinct = {tuple(np.round(values.ravel(), 6)) for values in scores.values()}
    assert len(distinct) == len(names)


def test_a_clip_scored_alone_equals_the_clip_in_its_batch(every_score):
    rng = np.random.default_rng(2)
    spectra = noise(rng, 7, np.array([20, 9, 14, 5, 20, 8, 11]))
    names, made = every_score
    together = made.scores(clips(spectra))
    assert list(together) == names
    for i in (1, 3):
        alone = made.scores(clips(spectra[i : i + 1]))
        for name, values in together.items():
            # A fusion is in deviations, and may be near 0. Covariances are of few rows,
            # so their factors make much of rounding.
            atol = 1e-4 if name.startswith("fusion") else 0
            rtol = 1e-3 if name.startswith("mahalanobis") else 1e-4
            np.testing.assert_allclose(
                values[..., i], alone[name][..., 0], rtol=rtol, atol=atol, err_msg=name
            )


def test_a_loud_short_click_is_heard_by_the_worst_windows_and_hardly_by_the_mean():
    rng = np.random.default_rng(3)

    def unsteady(n):
        """Clips of 150 frames whose roughness differs: so do their mean errors."""
        spectrum = -60 + 10 * np.sin(np.arange(128) / 7)
        rough = rng.uniform(2, 4, n)
        return [spectrum + r * rng.standard_normal((150, 128)) for r in rough]

    def click(clip):
        """One frame of 150, 15 dB louder."""
        frame = rng.integers(10, 140)
        return np.concatenate([clip[:frame], clip[[frame]] + 15.0, clip[frame + 1 :]])

    names = ["mse", "mse_ranked", "mse_top", "mse_max"]
    config = small("vae", f"scores={json.dumps(names)}", "model.inputs=centred")
    made = fitted(config, [("m", clips(unsteady(30)))], 5)
    test = clips([*unsteady(60), *map(click, unsteady(60))])
    is_anomaly = np.repeat([False, True], 60)
    scores = made.scores(test)
    heard = {name: auc(scores[name][0, 0].astype(float), is_anomaly) for name in names}
    assert heard["mse_max"] > 0.95
    assert heard["mse_top"] > 0.9
    assert heard["mse"] < 0.7
    assert heard["mse"] < heard["mse_ranked"] < heard["mse_top"]


@pytest.mark.parametrize(("assignments", "rows"), [([], 5), ([WITH_CENTRE], 1)])
def test_a_window_has_a_row_for_each_frame_that_is_told_of(assignments, rows):
    assert rows_in_window(small("default", *assignments)) == rows


def test_statistics_are_computed_where_a_score_wants_them():
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


def test_windows_of_a_clip_are_its_successive_frames_and_padding_has_no_weight():
    config = small("default")
    spectra = noise(np.random.default_rng(0), 2, np.array([12, 7]))
    data = stack_clips([clips(spectra)], 5)
    one = data._replace(**{n: jnp.asarray(getattr(data, n)[0]) for n in data._fields})
    windows, weight = windows_of_clip(config, one, jnp.array(1))
    assert weight.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    for i in range(3):
        expected = np.float32(spectra[1][i : i + 5]).ravel()
        np.testing.assert_array_equal(windows[i], expected)
