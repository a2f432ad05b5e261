"""Probe machines: what must be heard is heard, what cannot be is not."""

import jax
import numpy as np
import pytest
from probes import clips, noise, tone

from gammavae_jax.config import override
from gammavae_jax.dataset import HELD_OUT, TRAIN, split_windows, stack_machines
from gammavae_jax.detector import fit_detector, score_clips
from gammavae_jax.evaluate import auc
from gammavae_jax.features import mel_filterbank
from gammavae_jax.parallel import make_layout
from gammavae_jax.presets import preset
from gammavae_jax.threshold import conformal_threshold, gamma_threshold
from gammavae_jax.train import make_trainer

EPOCHS = 40


def detector_of(config, machines, devices=1):
    """A trained detector, its layout and the training data."""
    arrays = stack_machines(machines, config.features.n_context)
    split = split_windows(arrays, config)
    group = split.group
    layout = make_layout(
        (group[0] > 0).sum(-1).tolist(), len(config.seeds), jax.devices()[:devices]
    )
    trainer = make_trainer(config, layout, arrays, group)
    state = trainer.initial
    for epoch in range(1, EPOCHS + 1):
        state, _ = trainer.epoch(epoch, state)
    detector = fit_detector(
        config,
        layout,
        [(name, "00") for name, _ in machines],
        mel_filterbank(config.features),
        state,
        arrays,
        split,
    )
    return detector, layout, arrays, split.is_held_out


@pytest.fixture(scope="module")
def probe():
    """Two machines, one without target clips, and a detector of two seeds."""
    rng = np.random.default_rng(0)
    config = override(
        preset("default"),
        [
            "model.hidden=[32]",
            "model.n_latent=4",
            "train.batch_size=32",
            "n_seeds=2",
            "train.learning_rate=0.01",
        ],
    )
    machines = [
        ("mixed", clips(noise(rng, 40), n_target=4)),
        ("source", clips(noise(rng, 25, rng.integers(8, 20, 25)))),
    ]
    return (config, rng, *detector_of(config, machines))


def scores_of(probe, *test):
    _, _, detector, layout, _, _ = probe
    arrays = stack_machines([("a", t) for t in test], 5)
    return score_clips(detector, layout, arrays)


@pytest.mark.parametrize("name", ["mse", "mahalanobis", "mahalanobis_framewise"])
def test_a_loud_tone_is_heard_and_nothing_is_not(probe, name):
    _, rng, *_ = probe
    labels = ["normal"] * 30 + ["anomaly"] * 30
    is_anomaly = np.repeat([False, True], 30)
    loud = clips([*noise(rng, 30), *tone(rng, 30, 60, 60.0)], labels=labels)
    same = clips(noise(rng, 60), labels=labels)
    scores = scores_of(probe, loud, same)[name]
    for seed in range(2):
        assert auc(scores[seed, 0].astype(float), is_anomaly) > 0.95
        assert 0.3 < auc(scores[seed, 1].astype(float), is_anomaly) < 0.7


def test_a_clip_scored_alone_equals_the_clip_in_its_batch(probe):
    _, rng, *_ = probe
    spectra = noise(rng, 7, np.array([20, 9, 14, 5, 20, 8, 11]))
    together = scores_of(probe, clips(spectra), clips(spectra))
    for i in (1, 3):
        alone = scores_of(probe, clips(spectra[i : i + 1]), clips(spectra[i : i + 1]))
        for name, values in together.items():
            np.testing.assert_allclose(values[..., i], alone[name][..., 0], rtol=1e-4)


def test_the_threshold_is_that_of_the_held_out_clips(probe):
    config, _, detector, layout, arrays, held_out = probe
    scores = score_clips(detector, layout, arrays)
    for name, values in scores.items():
        for s, m in np.ndindex(2, 2):
            expected = conformal_threshold(
                values[s, m][held_out[s, m]], config.scoring.false_alarm_rate
            )
            assert detector.thresholds[name][s, m] == expected


def test_a_machine_without_target_clips_uses_its_source_fit_for_both(probe):
    _, _, detector, *_ = probe
    source, target = detector.scorer.source, detector.scorer.target
    np.testing.assert_array_equal(source.factor[:, 1], target.factor[:, 1])
    assert not np.allclose(source.factor[:, 0], target.factor[:, 0])


def test_official_thresholds_are_gamma_quantiles_of_batches():
    config = override(
        preset("official"),
        ["model.hidden=[16]", "train.batch_size=32", "train.learning_rate=0.01"],
    )
    rng = np.random.default_rng(1)
    machine = ("m", clips(noise(rng, 40), n_target=4))
    detector, layout, arrays, held_out = detector_of(config, [machine])
    assert not held_out.any()
    scores = score_clips(detector, layout, arrays)
    # Batches of many clips differ less than clips do: the threshold lies low.
    for name, values in scores.items():
        threshold = detector.thresholds[name][0, 0]
        assert np.isfinite(threshold)
        if name == "mahalanobis":
            assert (values[0, 0] > threshold).mean() > 0.5


def test_the_official_mse_threshold_is_of_the_last_epoch(monkeypatch):
    """Of its training batches, as the model then was, and of the held-out ones."""
    config = override(preset("official"), ["model.hidden=[16]", "train.batch_size=32"])
    machine = ("m", clips(noise(np.random.default_rng(1), 40), n_target=4))
    used = []

    def fit(scores, rate):
        used.append(scores)
        return gamma_threshold(scores, rate)

    monkeypatch.setattr("gammavae_jax.detector.gamma_threshold", fit)
    arrays = stack_machines([machine], config.features.n_context)
    split = split_windows(arrays, config)
    layout = make_layout([split.group.shape[-1]], 1, jax.devices()[:1])
    trainer = make_trainer(config, layout, arrays, split.group)
    state, _ = trainer.epoch(1, trainer.initial)
    errors = layout.get(state).batch_errors[0, 0]
    errors = errors[np.isfinite(errors)]
    bank = mel_filterbank(config.features)
    fit_detector(config, layout, [("m", "00")], bank, state, arrays, split)
    n_train, n_held_out = ((split.group == g).sum() for g in (TRAIN, HELD_OUT))
    assert len(errors) == -(-n_train // 32)
    (of_mse,) = (s for s in used if np.array_equal(s[: len(errors)], errors))
    assert len(of_mse) == len(errors) + -(-n_held_out // 32)
