"""The nominal false-alarm rate is achieved on recordings of real fans."""

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
    """Return each band's mean and standard deviation for a fan's normal clips."""
    stored = np.load(FOLDER / f"fan_id_{unit}.npz")
    both = np.concatenate([stored[f"{snr}/mean"], stored[f"{snr}/std"]], axis=1)
    return both[~stored[f"{snr}/is_anomaly"].astype(bool)].astype(np.float64)


@jax.jit
def distances_of(clips, reference):
    return jax.vmap(distances, (0, None))(clips, reference)


def false_alarms(rng, clips):
    """Return false-alarm rates by score, aggregation and nominal rate.

    Half of the clips are scored with thresholds from the other half. As in the
    detector, each member compares clips with those of the other folds, and a training
    clip is scored by the member that held it out. A new clip's score is the mean over
    all members ("mean"), or the score from one random member ("one").
    """
    half = len(clips) // 2
    train, test = np.split(rng.permutation(clips)[: 2 * half], 2)
    folds, is_target = rng.permutation(half) % N_FOLDS, np.zeros(half, bool)
    related = folds[:, None] == folds
    calibration = {name: np.zeros(half) for name in SCORES}
    new = {name: np.zeros((N_FOLDS, half)) for name in SCORES}
    for fold in range(N_FOLDS):
        is_own = folds == fold
        fitted = fit_reference(
            train, related, ~is_own, is_target, ScoringConfig(), half, rng
        )
        reference = jax.tree.map(jnp.asarray, fitted)
        of_train, of_test = (
            distances_of(jnp.float32(x), reference) for x in (train, test)
        )
        for name in SCORES:
            calibration[name][is_own] = of_train[name][is_own]
            new[name][fold] = of_test[name]
    each = rng.integers(N_FOLDS, size=half), np.arange(half)
    return {
        (name, how, rate): np.mean(
            scores > conformal_threshold(calibration[name], rate)
        )
        for name in SCORES
        for how, scores in (("mean", new[name].mean(0)), ("one", new[name][each]))
        for rate in RATES
    }


@pytest.fixture(scope="module")
def achieved():
    """The rates for all random halves of all sets, and the smallest half's size."""
    rng = np.random.default_rng(0)
    sets = [normal_clips(*which) for which in SETS]
    splits = [false_alarms(rng, clips) for clips in sets for _ in range(N_SPLITS)]
    rates = {key: np.array([split[key] for split in splits]) for key in splits[0]}
    return rates, min(len(clips) for clips in sets) // 2


def slack(rate, n_clips):
    """Return the tolerance of the mean rate.

    Because halves are random, the mean rate differs from the nominal one only by chance
    and by up to 1 / (n + 1), since a threshold is one of n scores. The variance of one
    half is the threshold's variance plus the count's.
    """
    chance = np.sqrt(2 * rate * (1 - rate) / n_clips / (N_SPLITS * len(SETS)))
    return 3 * chance + 1 / (n_clips + 1)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("rate", RATES)
def test_one_member_has_the_nominal_false_alarm_rate(achieved, name, rate):
    rates, n_clips = achieved
    assert abs(rates[name, "one", rate].mean() - rate) < slack(rate, n_clips)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("rate", RATES)
def test_the_mean_of_members_has_at_most_the_nominal_false_alarm_rate(
    achieved, name, rate
):
    """A mean of five scores varies less than the single scores that calibrate it."""
    rates, n_clips = achieved
    mean = rates[name, "mean", rate].mean()
    assert 0.6 * rate < mean < rate + slack(rate, n_clips)


def test_each_fan_has_8_to_12_percent_false_alarms_at_a_nominal_10_percent(achieved):
    rates, _ = achieved
    for rate in rates["neighbour", "mean", 0.1].reshape(len(SETS), N_SPLITS).mean(1):
        assert 0.08 < rate < 0.12
