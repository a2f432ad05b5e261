"""Thresholds for each domain: p-values, decisions, notes and refusals."""

from dataclasses import replace

import numpy as np
import pytest
from support.probes import clips, noise

import gammavae_jax as gv
from gammavae_jax.config import ScoringConfig
from gammavae_jax.config_json import override
from gammavae_jax.data.conditions import conditions_of
from gammavae_jax.data.domain_rule import DomainRule
from gammavae_jax.errors import InputError
from gammavae_jax.export.machine import narrowed
from gammavae_jax.presets import preset
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.domains import (
    domain_notes,
    p_values_by_domain,
    rate_by_domain,
    require_conformal,
    usable_rule,
)
from gammavae_jax.scoring.scored_clips import ScoredClips
from gammavae_jax.scoring.scorer import FittedModel
from gammavae_jax.scoring.threshold import p_values

SCORE = "fusion_smooth_max"


def detector_of(
    is_target, held_out=None, weights=None, rate=0.1, name="fan", n_padding=3
):
    """Return a detector that decides by domain; only its calibration has values."""
    n_clips = len(is_target)
    values = np.arange(n_clips, dtype=float) if held_out is None else held_out
    padded = np.full((1, 1, n_clips + n_padding), np.nan)
    padded[0, 0, :n_clips] = values
    used = np.zeros((1, n_clips + n_padding))
    used[0, :n_clips] = 1.0 if weights is None else weights
    settings = ["scoring.by_domain=true", f"scoring.false_alarm_rate={rate}"]
    config = override(preset("default"), settings)
    recorded = conditions_of(clips(noise(np.random.default_rng(0), 2)), config.features)
    rule = DomainRule((1.0,) * 128, 0.0, tuple(map(int, is_target)))
    scorer, bank = FittedModel._make([None] * 4), np.zeros((513, 128), np.float32)
    return Detector(
        *(config, ((name, "00"),), bank, scorer, {}, {SCORE: padded}, used, {}),
        {name: recorded._replace(domains=rule)},
    )


def test_a_clip_is_compared_only_with_held_out_clips_of_its_domain():
    is_target = np.arange(30) % 3 == 0
    held_out = np.random.default_rng(0).normal(size=30) + 5.0 * is_target
    detector = detector_of(is_target, held_out)
    scores = np.linspace(-3, 8, 12)
    are_target = np.arange(12) % 2 == 0
    found = p_values_by_domain(detector, SCORE, 0, 0, scores, are_target)
    for wanted in (False, True):
        expected = p_values(scores, held_out[is_target == wanted])
        chosen = are_target == wanted
        np.testing.assert_array_equal(found[chosen], expected[chosen])


def test_linked_clips_share_the_weight_of_one_recording():
    is_target, weights = np.arange(40) >= 20, np.ones(40)
    weights[20:30] = 0.1
    detector = detector_of(is_target, weights=weights)
    (highest,) = p_values_by_domain(
        detector, SCORE, 0, 0, np.array([99.0]), np.array([True])
    )
    assert highest == pytest.approx(1 / 12)


@pytest.mark.parametrize(
    ("n_target", "rate", "is_usable"),
    [(9, 0.1, True), (8, 0.1, False), (18, 0.05, False), (19, 0.05, True)],
)
def test_a_domain_needs_enough_independent_recordings(n_target, rate, is_usable):
    detector = detector_of(np.arange(60) >= 60 - n_target, rate=rate)
    assert (usable_rule(detector, 0) is not None) == is_usable
    assert rate_by_domain(detector, 0) == (rate if is_usable else None)
    linked = np.where(np.arange(60) >= 60 - n_target, 0.5, 1.0)
    detector = detector_of(np.arange(60) >= 60 - n_target, weights=linked, rate=rate)
    assert usable_rule(detector, 0) is None


def test_clips_that_were_not_held_out_do_not_count():
    held_out = np.arange(40.0)
    held_out[35] = np.nan
    detector = detector_of(np.arange(40) >= 30, held_out)
    assert usable_rule(detector, 0) is not None
    held_out[36] = np.nan
    assert usable_rule(detector_of(np.arange(40) >= 30, held_out), 0) is None


def test_notes_state_the_thresholds_or_why_there_is_one():
    (note,) = domain_notes(detector_of(np.arange(40) >= 30))
    assert note == ("Each domain has its own threshold: fan 27 (source), 39 (target).")
    (note,) = domain_notes(detector_of(np.arange(40) >= 32))
    assert note == (
        "One threshold serves both domains of fan: a threshold per domain needs at "
        "least 9 independent recordings of each."
    )
    detector = detector_of(np.arange(40) >= 30)
    pooled = override(detector.config, ["scoring.by_domain=false"])
    assert domain_notes(replace(detector, config=pooled)) == []


def test_decisions_by_domain_follow_the_p_values():
    scores, p = {"mse": np.array([[1.0, 5.0, 2.0]])}, np.array([[0.1, 0.2, 0.05]])
    table = ScoredClips(
        *("fan", "00", ("a", "b", "c"), ("",) * 3, ("",) * 3, scores),
        *({"mse": np.array([1.5])}, {"mse": p}, (1,)),
    )
    assert table.decisions("mse").tolist() == [[False, True, True]]
    by_domain = table._replace(rate_by_domain=0.1)
    assert by_domain.decisions("mse").tolist() == [[True, False, True]]


@pytest.mark.parametrize("kind", ["official", "gamma"])
def test_thresholds_by_domain_must_be_conformal(kind):
    require_conformal(ScoringConfig(threshold=kind))
    require_conformal(ScoringConfig(by_domain=True))
    with pytest.raises(InputError, match=f"scoring.threshold={kind}: change one"):
        require_conformal(ScoringConfig(threshold=kind, by_domain=True))


def test_a_users_recordings_and_exports_have_one_threshold():
    detector = gv.AnomalyDetector(settings=["scoring.by_domain=true"], verbose=False)
    sounds = list(np.random.default_rng(0).standard_normal((4, 16000)) * 0.1)
    with pytest.raises(InputError, match="works only for `gammavae run`"):
        detector.fit(sounds, sample_rate=16000)
    with pytest.raises(InputError, match="works only for `gammavae run`"):
        narrowed(detector_of(np.arange(40) >= 30))
