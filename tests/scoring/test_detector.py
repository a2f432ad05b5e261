"""Probe machines: what must be heard is heard, and what scores are worth is known."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.detectors import fitted, small
from support.probes import clips, noise, tone

from gammavae_jax.config import FUSION_SCORES, SCORE_NAMES
from gammavae_jax.data.arrays import HELD_OUT, TRAIN
from gammavae_jax.evaluation.metrics import auc
from gammavae_jax.scoring.detector import clip_p_values
from gammavae_jax.scoring.scorer import describe_machine, score_machine
from gammavae_jax.scoring.threshold import conformal_threshold, gamma_threshold

N_SEEDS, N_FOLDS, N_CLIPS = 2, 2, (40, 25)
OF_FOLDS = [name for name in SCORE_NAMES if not name.startswith("latent_")]
# A code need not move with what is not reconstructed.
HEARING = [name for name in OF_FOLDS if name != "kl"]


@pytest.fixture(scope="module")
def probe():
    """Two machines, one without target clips, two seeds of two folds, all scores."""
    rng = np.random.default_rng(0)
    machines = [
        ("mixed", clips(noise(rng, N_CLIPS[0]), n_target=4)),
        ("source", clips(noise(rng, N_CLIPS[1], rng.integers(8, 20, N_CLIPS[1])))),
    ]
    scores = f"scores={json.dumps(OF_FOLDS)}"
    # As many steps for each model as 40 epochs of all clips.
    return fitted(small("default", f"n_seeds={N_SEEDS}", scores), machines, 80)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def of_run(tree, *run):
    """One run's part of arrays, on the device."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[run]), tree)


def fold_of(probe, seed, machine, clip):
    """The fold in which a clip is held out."""
    by_seed = probe.split.is_held_out.reshape(N_SEEDS, N_FOLDS, 2, -1)
    (fold,) = np.flatnonzero(by_seed[seed, :, machine, clip])
    return int(fold)


@functools.partial(jax.jit, static_argnums=0)
def score_one(config, *arguments):
    return score_machine(config, None, *arguments)


def told(probe, seed, machine, fold, clip, data=None):
    """What one member says of one clip."""
    detector = probe.detector
    scores = score_one(
        detector.config,
        of_run(detector.scorer, N_FOLDS * seed + fold, machine),
        of_run(dict(detector.references), N_FOLDS * seed + fold, machine),
        of_run(data or probe.arrays, machine),
        jnp.array([clip]),
    )
    return {name: float(value[0]) for name, value in scores.items()}


@pytest.mark.parametrize("name", HEARING)
def test_a_loud_tone_is_heard_and_nothing_is_not(probe, heard, name):
    is_anomaly = np.repeat([False, True], 60)
    for seed in range(N_SEEDS):
        loud, same = heard[name][seed].astype(float)
        assert auc(loud, is_anomaly) > 0.95
        assert 0.3 < auc(same, is_anomaly) < 0.7


@pytest.fixture(scope="module")
def heard(probe):
    """Scores of sixty normal clips, then of sixty with a tone, or of as many more."""
    rng = np.random.default_rng(3)
    labels = ["normal"] * 60 + ["anomaly"] * 60
    loud = clips([*noise(rng, 60), *tone(rng, 60, 60, 60.0)], labels=labels)
    return probe.scores(loud, clips(noise(rng, 120), labels=labels))


@pytest.mark.parametrize(
    ("seed", "machine", "clip"), [(0, 0, 3), (1, 0, 39), (1, 1, 24)]
)
def test_a_training_clip_is_calibrated_by_the_member_that_has_not_seen_it(
    probe, seed, machine, clip
):
    fold = fold_of(probe, seed, machine, clip)
    calibration = probe.detector.calibration
    unseen = told(probe, seed, machine, fold, clip)
    seen = told(probe, seed, machine, 1 - fold, clip)
    for name, value in unseen.items():
        ours = calibration[name][seed, machine, clip]
        np.testing.assert_allclose(ours, value, rtol=1e-4)
        assert abs(seen[name] - value) > 1e-3 * abs(value), name
    for name, rule in zip(FUSION_SCORES, (np.mean, np.max, np.min), strict=True):
        parts = [
            (unseen[n] - np.nanmean(of_clips)) / np.nanstd(of_clips)
            for n in probe.detector.config.scoring.fused
            for of_clips in (calibration[n][seed, machine],)
        ]
        ours = calibration[name][seed, machine, clip]
        np.testing.assert_allclose(ours, rule(parts), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("seed", "machine"), [(0, 0), (1, 1)])
def test_a_reference_is_of_the_other_folds_each_described_by_who_has_not_seen_it(
    probe, seed, machine
):
    detector = probe.detector
    held_out = probe.split.is_held_out[N_FOLDS * seed : N_FOLDS * (seed + 1), machine]
    by_member = [
        describe_machine(
            detector.config,
            None,
            of_run(detector.scorer, N_FOLDS * seed + fold, machine),
            of_run(probe.arrays, machine),
            jnp.arange(max(N_CLIPS)),
        )
        for fold in range(N_FOLDS)
    ]
    for name, fold in ((n, f) for n in detector.references for f in range(N_FOLDS)):
        mine = of_run(detector.references[name], N_FOLDS * seed + fold, machine)
        # With two folds, the clips of the other one.
        assert mine.is_clip.sum() == held_out[1 - fold].sum()
        raw = (mine.clips * mine.scale + mine.location)[mine.is_clip]
        ours, seen = (by_member[f][name][held_out[1 - fold]] for f in (1 - fold, fold))
        np.testing.assert_allclose(raw, ours, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(mine.location, ours.mean(0), rtol=1e-3, atol=1e-3)
        if name != "spectrum":  # which no model has a say in
            assert np.abs(raw - seen).max() > 0.01, name


def test_every_training_clip_is_calibrated_and_nothing_else(probe):
    for values in probe.detector.calibration.values():
        for machine, n_clips in enumerate(N_CLIPS):
            assert np.isfinite(values[:, machine, :n_clips]).all()
            assert np.isnan(values[:, machine, n_clips:]).all()


def test_the_threshold_is_that_of_all_out_of_fold_scores(probe):
    detector = probe.detector
    assert detector.thresholds.keys() == set(OF_FOLDS)
    for name, values in detector.thresholds.items():
        for s, m in np.ndindex(2, 2):
            known = detector.calibration[name][s, m, : N_CLIPS[m]]
            rate = detector.config.scoring.false_alarm_rate
            assert values[s, m] == conformal_threshold(known, rate)


def test_a_new_clip_is_scored_by_the_mean_of_its_seeds_members(probe, rng):
    test = clips(noise(rng, 2))
    scores = probe.scores(test, test)
    data = probe.arrays._replace(
        log_mel=np.stack([np.stack(test.log_mels)] * 2),
        n_frames=np.full((2, 2), 20, np.int32),
    )
    for seed, machine in np.ndindex(2, 2):
        by_fold = [told(probe, seed, machine, f, 1, data) for f in range(N_FOLDS)]
        for name in by_fold[0]:
            expected = np.mean([values[name] for values in by_fold])
            np.testing.assert_allclose(
                scores[name][seed, machine, 1], expected, rtol=1e-4
            )


def test_other_test_clips_change_no_score(probe, rng):
    """No statistic of test clips enters: theirs may be anything."""
    first = noise(rng, 4)
    quiet, loud = ([*first, *more] for more in (noise(rng, 8), tone(rng, 8, 9, 90.0)))
    expected = probe.scores(clips(quiet), clips(quiet))
    ours = probe.scores(clips(loud), clips(loud))
    assert ours.keys() == set(OF_FOLDS)
    for name, values in ours.items():
        np.testing.assert_array_equal(values[..., :4], expected[name][..., :4])
        assert (values[..., 4:] != expected[name][..., 4:]).any()


def test_a_p_value_counts_the_calibration_scores_that_are_as_high(probe, heard):
    for name in ("mse", "fusion_mean"):
        scores = heard[name][1, 0]
        known = probe.detector.calibration[name][1, 0, : N_CLIPS[0]]
        ours = clip_p_values(probe.detector, name, 1, 0, scores)
        expected = [(1 + (known >= score).sum()) / (len(known) + 1) for score in scores]
        np.testing.assert_array_equal(ours, expected)


def test_a_machine_without_target_clips_uses_its_source_fit_for_both(probe):
    source, target = probe.detector.scorer.source, probe.detector.scorer.target
    np.testing.assert_array_equal(source.factor[:, 1], target.factor[:, 1])
    for member in range(N_SEEDS * N_FOLDS):
        held_out = probe.split.is_held_out[member, 0, -4:]
        same = np.allclose(source.factor[member, 0], target.factor[member, 0])
        assert same == held_out.all()


def test_a_model_that_broke_down_has_no_threshold_and_spoils_no_other(rng):
    def broken(state):
        params = jax.tree.map(np.array, state.params)
        params["head_0"]["kernel"][:, 1] = np.nan
        return state._replace(params=params)

    machines = [("a", clips(noise(rng, 12))), ("b", clips(noise(rng, 12)))]
    config = small("default")
    thresholds = fitted(config, machines, 1, broken).detector.thresholds
    # Of the spectrum no model tells.
    for name in set(config.scores) - {"spectrum_density"}:
        assert np.isfinite(thresholds[name][0]).tolist() == [True, False]


def official(rng, epochs):
    config = small("official")
    return fitted(config, [("m", clips(noise(rng, 40), n_target=4))], epochs)


def test_official_thresholds_are_gamma_quantiles_of_batches():
    made = official(np.random.default_rng(1), 40)
    assert not made.split.is_held_out.any()
    training = clips(noise(np.random.default_rng(1), 40), n_target=4)
    # Batches of many clips differ less than clips do: the threshold lies low.
    for name, values in made.scores(training).items():
        threshold = made.detector.thresholds[name][0, 0]
        assert np.isfinite(threshold)
        assert clip_p_values(made.detector, name, 0, 0, values[0, 0]) is None
        if name == "mahalanobis":
            assert (values[0, 0] > threshold).mean() > 0.5


def test_the_official_mse_threshold_is_of_the_last_epoch(monkeypatch):
    """Of its training batches, as the model then was, and of the held-out ones."""
    used = []

    def fit(scores, rate):
        used.append(scores)
        return gamma_threshold(scores, rate)

    monkeypatch.setattr("gammavae_jax.scoring.detector.gamma_threshold", fit)
    made = official(np.random.default_rng(1), 1)
    errors = made.state.batch_errors[0, 0]
    errors = errors[np.isfinite(errors)]
    n_train, n_held_out = ((made.split.group == g).sum() for g in (TRAIN, HELD_OUT))
    assert len(errors) == -(-n_train // 32)
    (of_mse,) = (s for s in used if np.array_equal(s[: len(errors)], errors))
    assert len(of_mse) == len(errors) + -(-n_held_out // 32)


def false_alarms(rng, n_machines=4, n_recordings=60, n_copies=4):
    """The share of new recordings that are flagged, of machines with near copies.

    A recording has a colour of its own, mixed from six, and its training clips hardly
    differ.
    """
    colours = rng.standard_normal((n_machines, 6, 128))

    def recordings(machine, n):
        return [
            clip + rng.standard_normal(6) @ colours[machine]
            for clip in noise(rng, n, n_frames=12)
        ]

    def copies(recording):
        shape = n_copies, *recording.shape
        return list(recording + 0.1 * rng.standard_normal(shape))

    machines = [
        (f"m{m}", clips([c for r in recordings(m, n_recordings) for c in copies(r)]))
        for m in range(n_machines)
    ]
    name = "spectrum_density"
    config = small("default", "train.n_folds=5", f'scores=["{name}"]', f"score={name}")
    made = fitted(config, machines, 0)  # the model has no say
    scores = made.scores(*(clips(recordings(m, 100)) for m in range(n_machines)))[name]
    return (scores[0] > made.detector.thresholds[name][0][:, None]).mean()


def test_folds_of_groups_keep_the_false_alarm_rate_and_random_folds_do_not(
    monkeypatch,
):
    """Of new recordings, where training clips are near copies of each other."""
    # Three standard errors: of a threshold of 60 recordings, tried on 100, four times.
    error = 3 * np.sqrt((0.1 * 0.9 / 61 + 0.1 * 0.9 / 100) / 4)
    assert abs(false_alarms(np.random.default_rng(0)) - 0.1) < error
    monkeypatch.setattr(
        "gammavae_jax.training.split.groups_of_clips",
        lambda statistic, *_: np.arange(len(statistic)),
    )
    assert false_alarms(np.random.default_rng(0)) > 0.9
