"""Why a clip has its score: what adds up, and where it points."""

import json

import numpy as np
import pytest
from detectors import fitted, small
from probes import clips, noise

from gammavae_jax.config import SCORE_NAMES
from gammavae_jax.errors import InputError
from gammavae_jax.explanation import explain_clip
from gammavae_jax.presets import PRESETS

OF_FOLDS = [name for name in SCORE_NAMES if not name.startswith("latent_")]
BANDED = [
    *("fusion_mean", "fusion_max", "fusion_min", "mse"),
    *(f"{of}_{by}" for of in ("spectrum", "residual", "peak")
      for by in ("density", "neighbour")),
]  # fmt: skip
BAND, FROM, TO = 70, 60, 72


def probe(config, seed=0, n_clips=30, epochs=12, n_frames=90):
    """A detector of two machines of steady noise."""
    rng = np.random.default_rng(seed)
    machines = [("a", clips(noise(rng, n_clips, n_frames), n_target=6))]
    machines.append(("b", clips(noise(rng, n_clips, n_frames))))
    return fitted(config, machines, epochs)


@pytest.fixture(scope="module")
def made():
    """Two seeds of two folds, with every score that folds can have."""
    config = small("default", f"scores={json.dumps(OF_FOLDS)}", "n_seeds=2")
    return probe(config, n_clips=24)


@pytest.fixture(scope="module")
def scored(made):
    """Clips of several lengths, some with a burst, and what scoring gives them."""
    log_mels = [one(5), with_burst(one(6)), one(12, 17), one(14, 120)]
    return log_mels, made.scores(clips(log_mels), clips(log_mels))


def with_burst(log_mel, gain=25.0):
    """A tone of a band and its neighbours, for some frames."""
    log_mel = np.array(log_mel, np.float32)
    log_mel[FROM:TO, BAND - 1 : BAND + 2] += gain
    return log_mel


def one(seed=5, n_frames=90):
    (log_mel,) = noise(np.random.default_rng(seed), 1, n_frames)
    return log_mel.astype(np.float32)


@pytest.mark.parametrize("name", OF_FOLDS)
def test_the_bands_of_a_clip_add_up_to_its_score(made, scored, name):
    """Of every score, seed and machine; the score is what scoring itself gives."""
    log_mels, scores = scored
    for seed, machine, clip in np.ndindex(2, 2, len(log_mels)):
        found = explain_clip(made.detector, seed, machine, log_mels[clip], name)
        expected = pytest.approx(scores[name][seed, machine, clip], rel=2e-4, abs=2e-3)
        assert found.contribution.sum() == expected
        assert found.score == expected
        assert found.is_exact == (name in BANDED)


@pytest.mark.parametrize("name", BANDED)
def test_a_tone_burst_has_its_contribution_where_it_is(made, name):
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
    assert inside > 15 * by_area * np.maximum(found.contribution, 0).sum()


def test_an_ordinary_clip_owes_its_score_to_no_band(made):
    bands = explain_clip(made.detector, 0, 0, one(8)).contribution.sum(0)
    burst = explain_clip(made.detector, 0, 0, with_burst(one(8))).contribution.sum(0)
    assert np.abs(bands).max() < 0.2 * burst.max()


def test_mse_is_the_squared_residual(made):
    """In the middle of a clip, where five windows tell of a frame."""
    log_mel = with_burst(one(9))
    found = explain_clip(made.detector, 0, 1, log_mel, "mse")
    squares = found.residual**2
    middle = slice(5, -5)
    ratio = found.contribution[middle].sum() / squares[middle].sum()
    # The square of a mean over windows is below the mean of their squares.
    assert ratio * squares.size * (86 / 90) == pytest.approx(1.0, abs=0.15)
    np.testing.assert_allclose(
        found.contribution[FROM:TO, BAND],
        squares[FROM:TO, BAND] * ratio,
        rtol=0.25,
    )


def test_a_residual_is_the_clip_less_its_reconstruction(made):
    log_mel = one(10)
    found = explain_clip(made.detector, 0, 0, log_mel)
    np.testing.assert_allclose(
        found.reconstruction + found.residual, log_mel, atol=1e-4
    )


def test_parts_of_a_fusion_are_the_scores_it_fuses(made):
    found = explain_clip(made.detector, 0, 0, with_burst(one(11)))
    assert [part.name for part in found.parts] == [
        *("spectrum_density", "residual_density", "peak_density"),
    ]
    largest = explain_clip(made.detector, 0, 0, with_burst(one(11)), "fusion_max")
    (only,) = largest.parts
    assert only.value == pytest.approx(3 * max(p.value for p in found.parts), rel=1e-6)


def test_a_clip_explained_alone_equals_the_clip_explained_among_others(made, scored):
    """Among others is after others of other lengths: nothing is padded to theirs."""
    log_mels, _ = scored
    one_way, back = (
        [explain_clip(made.detector, 0, 0, log_mel) for log_mel in order]
        for order in (log_mels, log_mels[::-1])
    )
    for one_time, other in zip(one_way, back[::-1], strict=True):
        np.testing.assert_array_equal(one_time.contribution, other.contribution)


PRESET_CHANGES = {
    **{name: () for name in PRESETS},
    "centre": ("model.target=centre",),
    "centred": ("model.inputs=centred",),
    "standardised": ("model.inputs=standardised",),
    "standardised centre": ("model.inputs=standardised", "model.target=centre"),
    "codes": (
        "train.split=clip",
        'scoring.fused=["latent_density","spectrum_density"]',
        'scores=["fusion_mean","latent_neighbour"]',
    ),
}


QUICK = ("centre", "autoencoder")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in QUICK else pytest.mark.slow)
        for n in PRESET_CHANGES
    ],
)
def test_clips_of_every_preset_can_be_explained(name):
    preset = name if name in PRESETS else "default"
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
        level = np.nanmean(found.reconstruction - log_mel)
        assert abs(level) < 15, "a reconstruction is in dB"


def test_what_cannot_be_explained_is_an_input_error(made):
    with pytest.raises(InputError, match="unknown score 'nonsense'"):
        explain_clip(made.detector, 0, 0, one(), "nonsense")
    with pytest.raises(InputError, match="a clip of 3 frames is too short"):
        explain_clip(made.detector, 0, 0, one(n_frames=3))
