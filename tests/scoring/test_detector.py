"""Detectors of small machines: detection, calibration, thresholds and p-values."""

import functools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.detectors import fitted, small
from support.probes import clips, noise, tone

from gammavae_jax.config import FUSION_SCORES, MODEL_FREE_STATISTICS, SCORE_NAMES
from gammavae_jax.data.arrays import HELD_OUT, TRAIN, ClipArrays
from gammavae_jax.evaluation.metrics import auc
from gammavae_jax.models.layers import HEADS
from gammavae_jax.scoring.detector import clip_p_values, held_out_scores
from gammavae_jax.scoring.scorer import describe_machine, score_machine
from gammavae_jax.scoring.threshold import conformal_threshold, gamma_threshold

N_SEEDS, N_FOLDS, N_CLIPS = 2, 2, (40, 25)
OF_FOLDS = [name for name in SCORE_NAMES if not name.startswith("latent_")]
# A fault that is not reconstructed may leave the code unchanged.
DETECTING = [name for name in OF_FOLDS if name != "kl"]


@pytest.fixture(scope="module")
def probe():
    """A detector of two machines, one without target clips, with all scores."""
    rng = np.random.default_rng(0)
    machines = [
        ("mixed", clips(noise(rng, N_CLIPS[0]), n_target=4)),
        ("source", clips(noise(rng, N_CLIPS[1], rng.integers(8, 20, N_CLIPS[1])))),
    ]
    scores = f"scores={json.dumps(OF_FOLDS)}"
    # Each model takes as many steps as in 40 epochs of all clips.
    return fitted(small("gammavae", f"n_seeds={N_SEEDS}", scores), machines, 80)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def log_mean_exp(parts):
    return np.log(np.mean(np.exp(parts)))


def of_model(tree, *model):
    """Return the arrays of one model, or one machine, on the device."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[model]), tree)


def fold_of(probe, seed, machine, clip):
    """Return the fold in which a clip is held out."""
    by_seed = probe.split.is_held_out.reshape(N_SEEDS, N_FOLDS, 2, -1)
    (fold,) = np.flatnonzero(by_seed[seed, :, machine, clip])
    return int(fold)


@functools.partial(jax.jit, static_argnums=0)
def score_one(config, *arguments):
    return score_machine(config, None, *arguments)


def scores_of(probe, seed, machine, fold, clip, data=None):
    """Return one member's scores of one clip; score training clips as if held out."""
    detector = probe.detector
    scores = score_one(
        detector.config,
        of_model(detector.scorer, N_FOLDS * seed + fold, machine),
        of_model(dict(detector.references), N_FOLDS * seed + fold, machine),
        of_model(data or probe.arrays.clips, machine),
        jnp.array([clip]),
        None if data else jnp.asarray(probe.split.is_linked[machine]),
    )
    return {name: float(value[0]) for name, value in scores.items()}


@pytest.mark.parametrize("name", DETECTING)
def test_a_loud_tone_is_detected_and_normal_clips_are_not(probe, clip_scores, name):
    is_anomaly = np.repeat([False, True], 60)
    for seed in range(N_SEEDS):
        loud, same = clip_scores[name][seed].astype(float)
        assert auc(loud, is_anomaly) > 0.95
        assert 0.3 < auc(same, is_anomaly) < 0.7


@pytest.fixture(scope="module")
def clip_scores(probe):
    """Scores of sixty normal clips and sixty with a tone, and of 120 normal clips."""
    rng = np.random.default_rng(3)
    labels = ["normal"] * 60 + ["anomaly"] * 60
    loud = clips([*noise(rng, 60), *tone(rng, 60, 60, 60.0)], labels=labels)
    return probe.scores(loud, clips(noise(rng, 120), labels=labels))


@pytest.mark.parametrize(
    ("seed", "machine", "clip"), [(0, 0, 3), (1, 0, 39), (1, 1, 24)]
)
def test_a_training_clip_is_calibrated_by_the_member_not_trained_on_it(
    probe, seed, machine, clip
):
    fold = fold_of(probe, seed, machine, clip)
    calibration = probe.detector.calibration
    unseen = scores_of(probe, seed, machine, fold, clip)
    seen = scores_of(probe, seed, machine, 1 - fold, clip)
    for name, value in unseen.items():
        ours = calibration[name][seed, machine, clip]
        np.testing.assert_allclose(ours, value, rtol=1e-4)
        if not name.startswith(MODEL_FREE_STATISTICS):
            assert abs(ours - value) < 0.5 * abs(ours - seen[name]), name
    for name, rule in zip(
        FUSION_SCORES, (np.mean, np.max, np.min, log_mean_exp), strict=True
    ):
        parts = [
            (unseen[n] - np.nanmean(of_clips)) / np.nanstd(of_clips)
            for n in probe.detector.config.scoring.fused
            for of_clips in (calibration[n][seed, machine],)
        ]
        ours = calibration[name][seed, machine, clip]
        np.testing.assert_allclose(ours, rule(parts), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("seed", "machine"), [(0, 0), (1, 1)])
def test_a_reference_holds_the_other_folds_described_by_members_not_trained_on_them(
    probe, seed, machine
):
    detector = probe.detector
    held_out = probe.split.is_held_out[N_FOLDS * seed : N_FOLDS * (seed + 1), machine]
    by_member = [
        describe_machine(
            detector.config,
            None,
            of_model(detector.scorer, N_FOLDS * seed + fold, machine),
            of_model(probe.arrays.clips, machine),
            jnp.arange(max(N_CLIPS)),
        )
        for fold in range(N_FOLDS)
    ]
    for name, fold in ((n, f) for n in detector.references for f in range(N_FOLDS)):
        mine = of_model(detector.references[name], N_FOLDS * seed + fold, machine)
        raw = (mine.clips * mine.scale + mine.location)[mine.is_clip]
        if name in MODEL_FREE_STATISTICS:
            every = by_member[fold][name][: N_CLIPS[machine]]
            np.testing.assert_allclose(raw, every, rtol=1e-3, atol=1e-3)
            continue
        # With two folds, these are the clips of the other one.
        assert mine.is_clip.sum() == held_out[1 - fold].sum()
        ours, seen = (by_member[f][name][held_out[1 - fold]] for f in (1 - fold, fold))
        np.testing.assert_allclose(raw, ours, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(mine.location, ours.mean(0), rtol=1e-3, atol=1e-3)
        assert np.abs(raw - seen).max() > 0.01, name


def test_every_training_clip_is_calibrated_and_padding_is_not(probe):
    for values in probe.detector.calibration.values():
        for machine, n_clips in enumerate(N_CLIPS):
            assert np.isfinite(values[:, machine, :n_clips]).all()
            assert np.isnan(values[:, machine, n_clips:]).all()


def test_the_threshold_uses_all_held_out_scores(probe):
    detector = probe.detector
    assert detector.thresholds.keys() == set(OF_FOLDS)
    for name, values in detector.thresholds.items():
        for s, m in np.ndindex(2, 2):
            held_out_scores = detector.calibration[name][s, m, : N_CLIPS[m]]
            rate = detector.config.scoring.false_alarm_rate
            assert values[s, m] == conformal_threshold(held_out_scores, rate)


def test_the_score_of_a_new_clip_is_the_mean_over_a_seeds_members(probe, rng):
    test = clips(noise(rng, 2))
    scores = probe.scores(test, test)
    log_mel = np.stack([np.stack(test.log_mels)] * 2)
    data = ClipArrays(log_mel, np.full((2, 2), 20, np.int32), np.zeros((2, 2)))
    for seed, machine in np.ndindex(2, 2):
        by_fold = [scores_of(probe, seed, machine, f, 1, data) for f in range(N_FOLDS)]
        for name in by_fold[0]:
            expected = np.mean([values[name] for values in by_fold])
            np.testing.assert_allclose(
                scores[name][seed, machine, 1], expected, rtol=1e-4
            )


def test_a_score_does_not_depend_on_the_other_test_clips(probe, rng):
    """No statistic of test clips is used, so the other clips may be anything."""
    first = noise(rng, 4)
    quiet, loud = ([*first, *more] for more in (noise(rng, 8), tone(rng, 8, 9, 90.0)))
    expected = probe.scores(clips(quiet), clips(quiet))
    ours = probe.scores(clips(loud), clips(loud))
    assert ours.keys() == set(OF_FOLDS)
    for name, values in ours.items():
        np.testing.assert_array_equal(values[..., :4], expected[name][..., :4])
        assert (values[..., 4:] != expected[name][..., 4:]).any()


def test_a_p_value_counts_the_calibration_scores_at_least_as_high(probe, clip_scores):
    for name in ("mse", "fusion_mean"):
        scores = clip_scores[name][1, 0]
        held_out = probe.detector.calibration[name][1, 0, : N_CLIPS[0]]
        ours = clip_p_values(probe.detector, name, 1, 0, scores)
        expected = [
            (1 + (held_out >= score).sum()) / (len(held_out) + 1) for score in scores
        ]
        np.testing.assert_array_equal(ours, expected)


def test_held_out_scores_are_sorted_together_with_their_weights(probe):
    name, machine = "mse", 1
    values = np.array(probe.detector.calibration[name])
    values[0, machine, 2] = np.nan
    weights = np.arange(probe.detector.weights.size) / probe.detector.weights.size
    detector = replace(
        probe.detector,
        calibration={name: values},
        weights=weights.reshape(probe.detector.weights.shape),
    )
    scores, of_scores = held_out_scores(detector, name, 0, machine)
    expected = sorted(
        (score, weight)
        for score, weight in zip(
            values[0, machine], detector.weights[machine], strict=True
        )
        if not np.isnan(score)
    )
    np.testing.assert_array_equal(np.stack([scores, of_scores], 1), expected)
    assert len(expected) == N_CLIPS[machine] - 1


def test_a_machine_without_target_clips_uses_its_source_fit_for_both(probe):
    source, target = probe.detector.scorer.source, probe.detector.scorer.target
    np.testing.assert_array_equal(source.factor[:, 1], target.factor[:, 1])
    for member in range(N_SEEDS * N_FOLDS):
        held_out = probe.split.is_held_out[member, 0, -4:]
        same = np.allclose(source.factor[member, 0], target.factor[member, 0])
        assert same == held_out.all()


def test_a_diverged_model_has_no_threshold_and_affects_no_other(rng):
    def broken(state):
        params = jax.tree.map(np.array, state.params)
        params[HEADS[0]]["kernel"][:, 1] = np.nan
        return state._replace(params=params)

    machines = [("a", clips(noise(rng, 12))), ("b", clips(noise(rng, 12)))]
    config = small("gammavae")
    thresholds = fitted(config, machines, 1, broken).detector.thresholds
    # The spectrum does not depend on a model.
    for name in set(config.scores) - {"spectrum_density"}:
        assert np.isfinite(thresholds[name][0]).tolist() == [True, False]


def official(rng, epochs):
    config = small("official")
    return fitted(config, [("m", clips(noise(rng, 40), n_target=4))], epochs)


def test_official_thresholds_are_gamma_quantiles_of_batch_scores():
    probe = official(np.random.default_rng(1), 40)
    assert not probe.split.is_held_out.any()
    training = clips(noise(np.random.default_rng(1), 40), n_target=4)
    # Batches of many clips vary less than clips do, so the threshold is low.
    for name, values in probe.scores(training).items():
        threshold = probe.detector.thresholds[name][0, 0]
        assert np.isfinite(threshold)
        assert clip_p_values(probe.detector, name, 0, 0, values[0, 0]) is None
        if name == "mahalanobis":
            assert (values[0, 0] > threshold).mean() > 0.5


def test_the_official_mse_threshold_uses_the_batches_of_the_last_epoch(monkeypatch):
    """Training errors come from before each step; held-out errors are added to them."""
    used = []

    def fit(scores, rate):
        used.append(scores)
        return gamma_threshold(scores, rate)

    monkeypatch.setattr("gammavae_jax.scoring.threshold.gamma_threshold", fit)
    probe = official(np.random.default_rng(1), 1)
    errors = probe.state.batch_errors[0, 0]
    errors = errors[np.isfinite(errors)]
    window_use = probe.split.window_use
    n_train, n_held_out = ((window_use == use).sum() for use in (TRAIN, HELD_OUT))
    assert len(errors) == -(-n_train // 32)
    (of_mse,) = (s for s in used if np.array_equal(s[: len(errors)], errors))
    assert len(of_mse) == len(errors) + -(-n_held_out // 32)


def false_alarms(rng, n_machines=4, n_recordings=60, n_copies=4):
    """Return the default preset's false-alarm rate on new recordings.

    Each recording has its own spectrum, mixed from six colours, and its training clips
    hardly differ.
    """
    colours = rng.standard_normal((n_machines, 6, 128))

    def recordings(machine, n):
        return [
            clip + rng.standard_normal(6) @ colours[machine]
            for clip in noise(rng, n, n_frames=40)
        ]

    def copies(recording):
        shape = n_copies, *recording.shape
        return list(recording + 0.1 * rng.standard_normal(shape))

    machines = [
        (f"m{m}", clips([c for r in recordings(m, n_recordings) for c in copies(r)]))
        for m in range(n_machines)
    ]
    name = "fusion_smooth_max"
    config = small("default", f'scores=["{name}"]')
    probe = fitted(config, machines, 0)  # the score does not depend on the model
    scores = probe.scores(*(clips(recordings(m, 100)) for m in range(n_machines)))[name]
    return (scores[0] > probe.detector.thresholds[name][0][:, None]).mean()


def test_links_keep_the_false_alarm_rate_and_without_them_it_is_high(monkeypatch):
    """The training clips of a recording are near copies; test recordings are new."""
    # Three standard errors, for four machines with 60 training recordings each.
    error = 3 * np.sqrt((0.1 * 0.9 / 61 + 0.1 * 0.9 / 100) / 4)
    assert abs(false_alarms(np.random.default_rng(0)) - 0.1) < error
    monkeypatch.setattr(
        "gammavae_jax.training.links.find_shared_audio",
        lambda log_mel, *_: np.zeros((len(log_mel), len(log_mel)), bool),
    )
    assert false_alarms(np.random.default_rng(0)) > 0.9


def alarms_in_new_sessions(attributes):
    """Return the false-alarm rate of new sessions; each has its own background."""
    rng = np.random.default_rng(0)

    def session(n_clips):
        background = 2 * rng.standard_normal(128)
        return [clip + background for clip in noise(rng, n_clips)]

    name = "fusion_smooth_max"
    train = clips([clip for _ in range(30) for clip in session(5)])
    config = small("default", f'scores=["{name}"]')
    probe = fitted(config, [("fan", train)], 0, attributes=attributes)
    new = [session(1)[0] for _ in range(100)]
    hum = 20 * (np.arange(128) < 4)
    threshold = probe.detector.thresholds[name][0, 0]
    normal, faulty = (
        (probe.scores(clips(c))[name][0, 0] > threshold).mean()
        for c in (new, [clip + hum for clip in new])
    )
    assert faulty == 1
    return normal


def test_attributes_keep_the_false_alarm_rate_in_new_sessions():
    """Without attributes, held-out clips are compared with clips of their session."""
    error = 3 * np.sqrt(0.1 * 0.9 / 31 + 0.1 * 0.9 / 100)
    assert alarms_in_new_sessions([np.arange(150) // 5]) < 0.1 + error
    assert alarms_in_new_sessions(None) > 0.5
