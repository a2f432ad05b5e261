"""Clips shorter than those of the training have comparable scores."""

import dataclasses

import jax
import numpy as np
import pytest

import gammavae_jax as gv
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import clip_file
from gammavae_jax.scoring.short_clips import SHARES, as_of_whole_clips

RATE = 16000
SETTINGS = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]


def hiss(seed, seconds=2.0):
    """Return noise of two bands, each with a level of its own."""
    rng = np.random.default_rng(seed)
    size = round(seconds * RATE)
    low = np.convolve(rng.standard_normal(size), np.ones(16) / 16, "same")
    gains = 10 ** (rng.normal(0, 1, 2) / 20)
    return 0.1 * (gains[0] * low + 0.3 * gains[1] * rng.standard_normal(size))


@pytest.fixture(scope="module")
def detector():
    one = jax.local_devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: one)
        detector = gv.AnomalyDetector(epochs=1, settings=SETTINGS, verbose=False)
        yield detector.fit([hiss(seed) for seed in range(40)], RATE)


def uncorrected(detector):
    """Return a copy without the scores of shorter held-out clips."""
    stored = detector.detector_
    whole = {n: v for n, v in stored.calibration.items() if " at " not in n}
    twin = gv.AnomalyDetector(**detector.get_params())
    twin._take(dataclasses.replace(stored, calibration=whole), detector._parameters)
    return twin


def test_short_clips_keep_the_false_alarm_rate(detector):
    new = [hiss(1000 + seed) for seed in range(80)]
    without = uncorrected(detector)
    # 80 clips at 10 %: three standard errors are 10 %, and the calibration adds some.
    for seconds in (1.9, 1.5, 1.0, 0.6):
        short = [sound[: round(seconds * RATE)] for sound in new]
        assert detector.predict(short, RATE).mean() <= 0.25
        if seconds < 1.2:
            assert without.predict(short, RATE).mean() > 0.5


def test_whole_clips_keep_their_scores(detector):
    new = [hiss(1000), hiss(1001, 2.5), hiss(1002, 30.0)]
    expected = uncorrected(detector).score_samples(new, RATE)
    np.testing.assert_array_equal(detector.score_samples(new, RATE), expected)


def test_the_score_of_a_short_held_out_clip_becomes_the_whole_one_of_its_rank(detector):
    stored = detector.detector_
    whole = np.sort(stored.calibration["fusion_mean"][0, 0, :40])
    for share in SHARES:
        cut = np.sort(stored.calibration[f"fusion_mean at {share:g}"][0, 0, :40])
        n_frames = int(share * 63) + 1
        clips = Clips((clip_file("x.wav"),) * 42, (np.zeros((n_frames, 128)),) * 42)
        given = np.array([cut[0] - 1, *cut, cut[-1] + 7])
        expected = [whole[0] - 1, *whole, whole[-1] + 7]
        comparable = as_of_whole_clips(stored, 0, given, clips)
        np.testing.assert_allclose(comparable, expected, atol=1e-6)


def test_the_stored_scores_are_those_of_clips_that_are_cut(detector):
    """Frames beyond the cut have no influence, whatever they hold."""
    stored = detector.detector_
    cut = stored.calibration["fusion_mean at 0.5"][0, 0, :40]
    raw = uncorrected(detector)
    short = raw.score_samples([hiss(seed, 2.0)[: 30 * 512] for seed in range(40)], RATE)
    # These scores are the mean of all models, which saw half of the clips.
    assert np.corrcoef(cut, short)[0, 1] > 0.8
    assert np.median(cut) > np.median(stored.calibration["fusion_mean"][0, 0, :40])


def test_other_presets_are_calibrated_if_they_hold_clips_out():
    options = {"epochs": 1, "verbose": False, "settings": SETTINGS[:2]}
    for preset, n in (("vae", len(SHARES)), ("official", 0)):
        detector = gv.AnomalyDetector(preset=preset, **options)
        detector.fit([hiss(seed, 0.5) for seed in range(12)], RATE)
        names = [name for name in detector.detector_.calibration if " at " in name]
        assert len(names) == n
        assert np.isfinite(detector.score_samples(hiss(99, 0.25), RATE)).all()
