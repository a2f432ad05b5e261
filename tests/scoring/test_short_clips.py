"""Clips shorter than the training clips have comparable scores."""

import dataclasses
from pathlib import Path

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
    """Return noise in two bands, each with its own level."""
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
    uncalibrated = dataclasses.replace(stored, calibration=whole)
    twin._take(uncalibrated, detector._parameters, detector._kept)
    return twin


def test_short_clips_keep_the_false_alarm_rate(detector):
    new = [hiss(1000 + seed) for seed in range(80)]
    without = uncorrected(detector)
    # With 80 clips at 10 %, three standard errors are 10 %. The calibration adds some.
    for seconds in (1.6, 1.0):
        short = [sound[: round(seconds * RATE)] for sound in new]
        assert detector.predict(short, RATE).mean() <= 0.25
        if seconds < 1.2:
            assert without.predict(short, RATE).mean() > 0.5


def test_whole_clips_keep_their_scores(detector):
    new = [hiss(1000), hiss(1001, 2.5), hiss(1002, 30.0)]
    expected = uncorrected(detector).score_samples(new, RATE)
    np.testing.assert_array_equal(detector.score_samples(new, RATE), expected)


def test_a_short_held_out_clip_gets_the_score_of_a_whole_clip_with_its_rank(detector):
    stored = detector.detector_
    whole = np.sort(stored.calibration["fusion_smooth_max"][0, 0, :40])
    for share in SHARES:
        cut = np.sort(stored.calibration[f"fusion_smooth_max at {share:g}"][0, 0, :40])
        n_frames = int(share * 63) + 1
        clips = Clips(
            (clip_file(Path("x.wav")),) * 42, (np.zeros((n_frames, 128)),) * 42
        )
        given = np.array([cut[0] - 1, *cut, cut[-1] + 7])
        expected = [whole[0] - 1, *whole, whole[-1] + 7]
        comparable = as_of_whole_clips(stored, 0, given, clips)
        np.testing.assert_allclose(comparable, expected, atol=1e-6)


def tones(seed, seconds):
    """Return the sound of a humming machine with little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    turns = rng.uniform(0, 1, 3)
    hum = sum(
        level * np.sin(2 * np.pi * (hertz * time + turn))
        for hertz, level, turn in zip(
            (200, 1000, 3000), (0.2, 0.1, 0.05), turns, strict=True
        )
    )
    gain = 10 ** (rng.normal(0, 1) / 20)
    return gain * hum + 1e-4 * rng.standard_normal(len(time))


def test_a_tonal_machine_raises_few_alarms_wherever_its_clips_end(one_device):
    """The abrupt end of a tone fills the quiet bands of the last frame."""
    detector = gv.AnomalyDetector(epochs=1, settings=SETTINGS, verbose=False)
    detector.fit([tones(seed, 2.0) for seed in range(60)], RATE)
    independent = detector.detector_.weights[0].sum()
    assert independent == pytest.approx(60)
    for seconds in (2.0, 2.016, 1.6, 1.0):
        new = [tones(seed, seconds) for seed in range(100, 140)]
        assert detector.predict(new, RATE).mean() <= 0.25, seconds
