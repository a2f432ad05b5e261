"""Explanations of scores: the parts add up, and point to the right place."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.detectors import fitted, small
from support.probes import clips, noise
from support.windows import windows

from gammavae_jax.errors import InputError
from gammavae_jax.models.autoencoder import reconstruct
from gammavae_jax.models.layers import INPUTS, LIKELIHOOD, STANDARDISE
from gammavae_jax.models.likelihood import concentrations_of
from gammavae_jax.presets import PRESETS
from gammavae_jax.report.explanation import explain_clip
from gammavae_jax.report.score_parts import ClipView, of_model_free, view_clip

BANDED = [
    *("fusion_mean", "fusion_max", "fusion_min", "mse"),
    *(f"{of}_{by}" for of in ("spectrum", "residual", "peak")
      for by in ("density", "neighbour")),
]  # fmt: skip
OTHERS = ["mse_max", "kl", "mahalanobis"]  # scores that mix the bands
BAND, FROM, TO = 70, 40, 50
N_FRAMES = 60  # within the first padded length, so that one program serves all


def probe(config, seed=0, n_clips=30, epochs=18, n_frames=N_FRAMES):
    """Return a detector for two machines with steady noise."""
    rng = np.random.default_rng(seed)
    machines = [("a", clips(noise(rng, n_clips, n_frames), n_target=6))]
    machines.append(("b", clips(noise(rng, n_clips, n_frames))))
    return fitted(config, machines, epochs)


@pytest.fixture(scope="module")
def made():
    """Return a detector with two seeds, two folds and scores of every kind."""
    config = small("gammavae", f"scores={json.dumps(BANDED + OTHERS)}", "n_seeds=2")
    return probe(config, n_clips=20)


@pytest.fixture(scope="module")
def scored(made):
    """Return clips of several lengths, one with a burst, and their scores."""
    log_mels = [one(5), with_burst(one(6)), one(12, 17), one(14, 64)]
    return log_mels, made.scores(clips(log_mels), clips(log_mels))


def with_burst(log_mel, gain=25.0):
    """Add a tone in a band and its neighbours, for some frames."""
    log_mel = np.array(log_mel, np.float32)
    log_mel[FROM:TO, BAND - 1 : BAND + 2] += gain
    return log_mel


def one(seed=5, n_frames=N_FRAMES):
    (log_mel,) = noise(np.random.default_rng(seed), 1, n_frames)
    return log_mel.astype(np.float32)


@pytest.mark.parametrize("name", [*BANDED, *OTHERS])
def test_the_bands_of_a_clip_add_up_to_its_score(made, scored, name):
    """This holds for every seed and machine; the expected score is the scorer's."""
    log_mels, scores = scored
    for seed, machine, clip in np.ndindex(2, 2, len(log_mels)):
        found = explain_clip(made.detector, seed, machine, log_mels[clip], name)
        expected = pytest.approx(scores[name][seed, machine, clip], rel=2e-4, abs=2e-3)
        assert found.contribution.sum() == expected
        assert found.score == expected
        assert found.is_exact == (name in BANDED)


@pytest.mark.parametrize("name", BANDED)
def test_a_tone_burst_contributes_where_it_is(made, name):
    found = explain_clip(made.detector, 0, 0, with_burst(one(7)), name)
    frame, band = np.unravel_index(
        found.contribution.argmax(), found.contribution.shape
    )
    assert FROM <= frame < TO
    assert abs(band - BAND) <= 1
    bands = found.contribution.sum(0)
    assert abs(bands.argmax() - BAND) <= 1
    inside = found.contribution[FROM:TO, BAND - 1 : BAND + 2].sum()
    by_area = 3 * (TO - FROM) / found.contribution.size
    # A squared error weights all bands alike: the ratio is only 4.5 to 45, depending on
    # the initial weights.
    factor = 4 if name == "mse" else 15
    assert inside > factor * by_area * np.maximum(found.contribution, 0).sum()


def test_no_band_stands_out_in_an_ordinary_clip(made):
    bands = explain_clip(made.detector, 0, 0, one(8)).contribution.sum(0)
    burst = explain_clip(made.detector, 0, 0, with_burst(one(8))).contribution.sum(0)
    assert np.abs(bands).max() < 0.2 * burst.max()


def reconstructed_windows(detector, member, machine, log_mel):
    """Return a member's reconstruction and inputs (`window frame mel`) and scorer."""
    config = detector.config
    scorer = jax.tree.map(
        lambda leaf: jnp.asarray(leaf[member, machine]), detector.scorer
    )
    inputs = windows(np.asarray(log_mel, np.float32), 5)
    output = reconstruct(
        config.model, scorer.params, scorer.batch_stats, jnp.asarray(inputs), 5
    )
    shape = (len(inputs), -1, 128)
    return tuple(
        np.asarray(part).reshape(shape) for part in (output.reconstruction, inputs)
    ), scorer


def test_mse_is_the_squared_residual(made):
    """The expected value adds each window's frames to the clip's frames."""
    log_mel = with_burst(one(9))
    total = np.zeros(log_mel.shape)
    for member in (2, 3):  # of the second seed
        (output, inputs), _ = reconstructed_windows(made.detector, member, 1, log_mel)
        squares = (inputs - output) ** 2 / inputs.size / 2
        for w, window in enumerate(squares):
            total[w : w + 5] += window
    found = explain_clip(made.detector, 1, 1, log_mel, "mse")
    np.testing.assert_allclose(found.contribution, total, rtol=2e-3, atol=1e-6)


@pytest.mark.slow
def test_a_reconstruction_is_in_decibels_whatever_the_models_inputs():
    """The test converts standardised inputs back to decibels itself."""
    made = probe(
        small("gammavae", "model.inputs=standardised", "model.target=centre"),
        n_clips=14,
        epochs=2,
        n_frames=30,
    )
    log_mel = one(16)
    expected = []
    for member in (0, 1):
        (output, _), scorer = reconstructed_windows(made.detector, member, 0, log_mel)
        stats = scorer.batch_stats[INPUTS][STANDARDISE]
        mean, var = (np.reshape(stats[n], (5, 128))[2] for n in ("mean", "var"))
        expected.append(output[:, 0] * np.sqrt(var + 1e-3) + mean)
    found = explain_clip(made.detector, 0, 0, log_mel)
    np.testing.assert_allclose(
        found.reconstruction[2:-2], np.mean(expected, axis=0), atol=0.02
    )
    assert np.isnan(found.reconstruction[[0, 1, -2, -1]]).all()


def test_a_residual_is_the_clip_minus_its_reconstruction(made):
    log_mel = one(10)
    found = explain_clip(made.detector, 0, 0, log_mel)
    np.testing.assert_allclose(
        found.reconstruction + found.residual, log_mel, atol=1e-4
    )
    assert found.residual_unit == "dB"


@pytest.mark.slow
def test_a_residual_of_a_likelihood_of_power_is_in_standard_deviations():
    """The test averages the roots of deviances over windows and members itself."""
    made = probe(small("gammavae", "model.likelihood=gamma"), n_clips=14, epochs=2)
    log_mel = with_burst(one(17))
    level = log_mel.mean(dtype=np.float64)
    decibels, deviances = np.zeros(log_mel.shape), np.zeros(log_mel.shape)
    for member in (0, 1):
        (output, inputs), scorer = reconstructed_windows(
            made.detector, member, 0, log_mel - level
        )
        k = np.asarray(concentrations_of(scorer.params[LIKELIHOOD]).power)
        ratio = 10 ** ((inputs.astype(np.float64) - output) / 10)
        roots = np.sqrt(2 * k * (ratio - 1 - np.log(ratio))) * np.sign(ratio - 1)
        n_covering = np.convolve(np.ones(len(inputs)), np.ones(5))
        for w in range(len(inputs)):
            share = 0.5 / n_covering[w : w + 5, None]
            decibels[w : w + 5] += output[w] * share
            deviances[w : w + 5] += roots[w] * share
    found = explain_clip(made.detector, 0, 0, log_mel)
    assert found.residual_unit == "standard deviations"
    np.testing.assert_allclose(found.residual, deviances, atol=5e-3)
    np.testing.assert_allclose(found.reconstruction, decibels + level, atol=5e-3)


def test_parts_of_a_fusion_are_the_scores_it_fuses(made):
    found = explain_clip(made.detector, 0, 0, with_burst(one(11)))
    assert [part.name for part in found.parts] == [
        *("spectrum_density", "residual_density", "peak_density"),
    ]
    largest = explain_clip(made.detector, 0, 0, with_burst(one(11)), "fusion_max")
    (only,) = largest.parts
    assert only.value == pytest.approx(3 * max(p.value for p in found.parts), rel=1e-6)


def test_an_explanation_does_not_depend_on_the_clips_before_it(made, scored):
    """A clip must not be padded to the lengths of the clips before it."""
    log_mels, _ = scored
    one_way, back = (
        [explain_clip(made.detector, 0, 0, log_mel) for log_mel in order]
        for order in (log_mels, log_mels[::-1])
    )
    for first, last in zip(one_way, back[::-1], strict=True):
        np.testing.assert_array_equal(first.contribution, last.contribution)


PRESET_CHANGES = {
    **{name: () for name in PRESETS},
    "centre": ("model.target=centre",),
    "centred": ("model.inputs=centred",),
    "standardised": ("model.inputs=standardised",),
    "f": ("model.likelihood=f",),
    "gamma centre": ("model.likelihood=gamma", "model.target=centre"),
    "bands": ("model.inputs=bands",),
    "standardised centre": ("model.inputs=standardised", "model.target=centre"),
    "codes": (
        "train.split=clip",
        'scoring.fused=["latent_density","spectrum_density"]',
        'scores=["fusion_mean","latent_neighbour"]',
    ),
}


QUICK = ("autoencoder",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in QUICK else pytest.mark.slow)
        for n in PRESET_CHANGES
    ],
)
def test_clips_of_every_preset_can_be_explained(name):
    preset = name if name in PRESETS else "gammavae"
    made = probe(
        small(preset, *PRESET_CHANGES[name]), n_clips=14, epochs=2, n_frames=30
    )
    log_mel = with_burst(one(15))
    scores = made.scores(clips([log_mel]), clips([log_mel]))
    for score in made.detector.config.scores:
        found = explain_clip(made.detector, 0, 0, log_mel, score)
        assert found.score == pytest.approx(
            float(scores[score][0, 0, 0]), rel=1e-3, abs=2e-3
        )
        shown = found.residual[np.isfinite(found.residual)]
        n_hidden = 4 * 128 if name.endswith("centre") else 0
        assert shown.size == log_mel.size - n_hidden
        assert np.isfinite(found.contribution).all()


def test_an_unknown_score_or_a_short_clip_is_refused(made):
    with pytest.raises(InputError, match="unknown score 'nonsense'"):
        explain_clip(made.detector, 0, 0, one(), "nonsense")
    with pytest.raises(InputError, match="a clip of 3 frames is shorter than a"):
        explain_clip(made.detector, 0, 0, one(n_frames=3))


def test_a_statistic_without_a_rule_for_drawing_it_is_refused(made):
    log_mel, features = one(5), np.zeros((2, 128), np.float32)
    scorer = jax.tree.map(lambda leaf: leaf[:1, 0], made.detector.scorer)
    members = view_clip(made.detector.config, scorer, log_mel, ("mse",))
    view = jax.tree.map(lambda leaf: leaf[0], members)
    with pytest.raises(ValueError, match="no rule for drawing the statistic 'median'"):
        of_model_free("median", log_mel, features, view)


def test_clips_of_new_lengths_compile_no_more_programs(made, caplog):
    """Otherwise, a page of clips of many lengths would take most of its time so."""
    explain_clip(made.detector, 0, 0, one(5, 45))
    with caplog.at_level("WARNING", "jax"), jax.log_compiles():
        for n_frames in (46, 50, 64):
            explain_clip(made.detector, 0, 0, one(5, n_frames))
    assert "Compiling" not in caplog.text
    with caplog.at_level("WARNING", "jax"), jax.log_compiles():
        explain_clip(made.detector, 0, 0, one(5, 65))
    assert "Compiling" in caplog.text


def test_the_maximum_of_each_band_is_shown_at_its_own_time():
    """The last frame is padding."""
    log_mel, is_whole = np.array([[0.0, 5.0], [9.0, 1.0], [20.0, 20.0]]), np.ones(3)
    is_whole[2] = 0
    view = ClipView(**{**dict.fromkeys(ClipView._fields), "whole": is_whole})
    weights = of_model_free("maximum", log_mel, np.zeros((1, 2)), view)
    np.testing.assert_array_equal(weights, [[0, 1], [1, 0], [0, 0]])
