"""The false-alarm rate that is promised is the one achieved, on real fans."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax.config import ScoringConfig
from gammavae_jax.scoring.neighbours import distances, fit_reference
from gammavae_jax.scoring.threshold import conformal_threshold

FOLDER = Path(os.environ.get("GAMMAVAE_RECORDINGS_DIR", ""), "mimii_fan_features")
SETS = [(unit, snr) for unit in ("00", "02") for snr in ("-6dB", "0dB", "6dB")]
SCORES = ("neighbour", "density")
RATES = (0.1, 0.05, 0.01)
N_SPLITS, N_FOLDS = 20, 5
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason="no statistics of real fans: set GAMMAVAE_RECORDINGS_DIR",
)


def normal_clips(unit, snr):
    """Mean and deviation of each band, of a fan in health."""
    stored = np.load(FOLDER / f"fan_id_{unit}.npz")
    both = np.concatenate([stored[f"{snr}/mean"], stored[f"{snr}/std"]], axis=1)
    return both[~stored[f"{snr}/is_anomaly"].astype(bool)].astype(np.float64)


@jax.jit
def told(clips, reference):
    return jax.vmap(distances, (0, None))(clips, reference)


def false_alarms(rng, clips):
    """Of half of the clips, by thresholds of the other half: by score, how and rate.

    As the detector does: a training clip is compared with those of the other folds, a
    new one with those of all but one, for each fold in turn, of which the mean is its
    score. "one" takes one fold alone, for each clip another.
    """
    half = len(clips) // 2
    train, test = np.split(rng.permutation(clips)[: 2 * half], 2)
    folds, is_target = rng.permutation(half) % N_FOLDS, np.zeros(half, bool)
    known = {name: np.zeros(half) for name in SCORES}
    new = {name: np.zeros((N_FOLDS, half)) for name in SCORES}
    for fold in range(N_FOLDS):
        is_own = folds == fold
        fitted = fit_reference(
            train, folds, ~is_own, is_target, ScoringConfig(), half, rng
        )
        reference = jax.tree.map(jnp.asarray, fitted)
        of_train, of_test = (told(jnp.float32(x), reference) for x in (train, test))
        for name in SCORES:
            known[name][is_own] = getattr(of_train, name)[is_own]
            new[name][fold] = getattr(of_test, name)
    each = rng.integers(N_FOLDS, size=half), np.arange(half)
    return {
        (name, how, rate): np.mean(scores > conformal_threshold(known[name], rate))
        for name in SCORES
        for how, scores in (("mean", new[name].mean(0)), ("one", new[name][each]))
        for rate in RATES
    }


@pytest.fixture(scope="module")
def achieved():
    """The rates of all splits of all sets, and the clips in half of the smallest."""
    rng = np.random.default_rng(0)
    sets = [normal_clips(*which) for which in SETS]
    found = [false_alarms(rng, clips) for clips in sets for _ in range(N_SPLITS)]
    rates = {key: np.array([split[key] for split in found]) for key in found[0]}
    return rates, min(len(clips) for clips in sets) // 2


def slack(rate, n_clips):
    """How far the mean may be from the rate.

    A split is a random one, so the rate is kept in the mean over splits, whatever the
    recordings: but for 1 / (n + 1), since a threshold is one of n scores, and for what
    is left of chance in so many splits. The variance of one is that of the threshold
    and that of the count.
    """
    chance = np.sqrt(2 * rate * (1 - rate) / n_clips / (N_SPLITS * len(SETS)))
    return 3 * chance + 1 / (n_clips + 1)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("rate", RATES)
def test_the_rate_of_one_member_is_the_nominal_one(achieved, name, rate):
    rates, n_clips = achieved
    assert abs(rates[name, "one", rate].mean() - rate) < slack(rate, n_clips)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("rate", RATES)
def test_the_rate_of_the_mean_of_members_is_the_nominal_one_or_less(
    achieved, name, rate
):
    """A mean of five varies less than the one that calibrates: fewer are far out."""
    rates, n_clips = achieved
    mean = rates[name, "mean", rate].mean()
    assert 0.6 * rate < mean < rate + slack(rate, n_clips)


def test_every_fan_at_every_noise_has_between_8_and_12_percent_for_10(achieved):
    rates, _ = achieved
    for rate in rates["neighbour", "mean", 0.1].reshape(len(SETS), N_SPLITS).mean(1):
        assert 0.08 < rate < 0.12
