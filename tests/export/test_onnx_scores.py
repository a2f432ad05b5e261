"""A file gives a wave the same scores, p-values and decisions as JAX."""

import json
from dataclasses import replace

import jax
import numpy as np
import onnx
import pytest
from support.detectors import small
from support.exported import answers, of_waves, onnx_bytes, part, trained, wave

from gammavae_jax.config import MODEL_FREE_STATISTICS, SCORE_NAMES
from gammavae_jax.data.features import log_mel, samples_needed
from gammavae_jax.export import score_nodes
from gammavae_jax.export.checked_files import onnx_session
from gammavae_jax.export.graph import Graph
from gammavae_jax.export.machine import NOT_EXPORTED
from gammavae_jax.export.nodes import Output
from gammavae_jax.export.onnx_file import add_decision
from gammavae_jax.scoring.detector import clip_p_values
from gammavae_jax.scoring.threshold import p_values

SCORES = [
    name
    for name in SCORE_NAMES
    if name not in NOT_EXPORTED and not name.startswith("latent_")
]
RELATIVE = 1e-3
FREE = (*MODEL_FREE_STATISTICS, "fusion_max", "fusion_smooth_max")


@pytest.fixture(scope="module")
def probe():
    """Return a detector with two machines, seeds and folds, and all scores."""
    return trained(small("gammavae", "n_seeds=2", f"scores={json.dumps(SCORES)}"), 60)


def sounds(config, count):
    """Return silence, noise and tones, from the shortest allowed length upwards."""
    rng = np.random.default_rng(5)
    lengths = samples_needed(config) + np.linspace(0, 12000, count).astype(int) // 7 * 7
    waves = [wave(rng, n, tone=3.0 * (i % 3)) for i, n in enumerate(lengths)]
    waves[1] = np.zeros_like(waves[1])
    return waves


@pytest.fixture(scope="module")
def hundred(probe):
    return sounds(probe.detector.config.features, 100)


@pytest.fixture(scope="module")
def expected(probe, hundred):
    """Return every score of the hundred waves, computed by JAX."""
    clips = of_waves(hundred, probe.detector.config.features)
    return probe.scores(clips, clips)


def assert_close(ours, expected):
    """Allow a thousandth of each score, or of the typical score if one is near 0."""
    size = np.maximum(np.abs(expected), 0.01 * np.abs(expected).max())
    assert np.max(np.abs(ours - expected) / size) < RELATIVE


@pytest.mark.parametrize("name", SCORES)
def test_onnxruntime_scores_a_hundred_clips_as_jax_does(probe, hundred, expected, name):
    detector = probe.detector
    for s, m in ((0, 0), (1, 1)):
        content = onnx_bytes(detector, name, m, detector.config.seeds[s])
        ours = answers(content, hundred)
        assert_close(np.array([a.score for a in ours]), expected[name][s, m])
        theirs = clip_p_values(detector, name, s, m, expected[name][s, m])
        assert theirs is not None
        np.testing.assert_allclose([a.p_value for a in ours], theirs, rtol=1e-6)
        threshold = detector.thresholds[name][s, m]
        np.testing.assert_allclose([a.threshold for a in ours], threshold, rtol=1e-6)
        is_above = expected[name][s, m] > threshold
        assert [bool(a.is_anomaly) for a in ours] == is_above.tolist()


def test_machines_seeds_and_clips_have_different_scores(expected):
    """Otherwise, the test above would not notice a file of another machine."""
    for name, values in expected.items():
        seed, machine = (
            np.median(np.abs(values[0, 0] / other - 1))
            for other in (values[1, 0], values[0, 1])
        )
        assert machine > 10 * RELATIVE, name
        # The largest part of these fusions comes from the spectrum here.
        is_free = name.startswith(FREE)
        assert seed > 10 * RELATIVE or is_free, name
        assert np.ptp(values[0, 0]) > 0.1 * np.abs(values[0, 0]).max()


def test_the_log_mel_and_the_fused_scores_are_outputs_too(probe, hundred, expected):
    detector = probe.detector
    session = onnx_session(onnx_bytes(detector, "fusion_max"))
    names = [*detector.config.scoring.fused, "log_mel"]
    features = detector.config.features
    for number, sound in enumerate(hundred[:5]):
        *parts, mels = session.run(names, {"wave": sound})
        for name, value in zip(names, parts, strict=False):
            np.testing.assert_allclose(value, expected[name][0, 0, number], rtol=1e-4)
        theirs = log_mel(sound, detector.filterbank, features)
        np.testing.assert_allclose(mels, theirs, atol=1e-3)


def test_a_decision_counts_ties_like_the_p_values(probe):
    machine = part(probe.detector, "mse")
    held_out = machine.calibration["mse"].astype(np.float32)
    graph = Graph()
    for name, value in add_decision(graph, machine, "score").items():
        graph.output(name, value)
    kinds = {"score": 1, "p_value": 1, "threshold": 1, "is_anomaly": 9}
    infos = [onnx.helper.make_tensor_value_info(n, k, []) for n, k in kinds.items()]
    model = graph.model("decision", infos[:1], infos[1:])
    session = onnx_session(model.SerializeToString())
    near = held_out, held_out * 1.001, held_out[:1] - 1, held_out[-1:] + 1
    scores, names = np.concatenate(near), ["p_value", "is_anomaly"]
    made = [session.run(names, {"score": np.array(x)}) for x in scores]
    ours = np.array([p for p, _ in made])
    np.testing.assert_allclose(ours, p_values(scores, held_out), rtol=1e-6)
    is_above = scores > np.float32(machine.threshold)
    assert [bool(alarm) for _, alarm in made] == is_above.tolist()
    assert is_above.sum() == (ours <= 0.1).sum()


# Each value is a preset, followed by changes to it.
VARIANTS = {
    "deterministic": "autoencoder model.inputs=standardised scoring.covariance=pooled",
    "gaussian": "vae model.target=centre model.inputs=centred",
    "softmax": "paper features.n_context=1 features.power=1 features.n_mels=20",
    "moments": "default model.parameters=mean_variance model.target=centre "
    "model.inputs=standardised features.n_context=3 features.n_fft=401 "
    "features.hop_length=160 features.n_mels=30 scoring.smote_ratio=0.9",
    "raw_moments": "default model.parameters=mean_variance",
    "centred": "default model.inputs=centred features.n_context=3",
    "f": "default model.likelihood=f features.n_context=3",
    "gamma": "autoencoder model.likelihood=gamma model.target=centre",
    "bands": "vae model.inputs=bands features.n_mels=40",
}


def shaken(state):
    """Change the arrays that training barely changes: statistics, scales and biases."""
    rng = np.random.default_rng(2)

    def shake(leaf):
        if leaf.dtype != np.float32:
            return leaf
        return (leaf * rng.uniform(0.7, 1.4, leaf.shape)).astype(np.float32)

    def bias(path, leaf):
        named = jax.tree_util.keystr(path)
        if "bias" in named or "'mean'" in named:
            return (leaf + 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)
        return leaf

    params, stats = (jax.tree.map(shake, t) for t in (state.params, state.batch_stats))
    params, stats = (jax.tree.map_with_path(bias, t) for t in (params, stats))
    return state._replace(params=params, batch_stats=stats)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_model_and_feature_is_exported(variant):
    config = small(*VARIANTS[variant].split())
    names = ["mse_top", "mahalanobis_framewise", "residual_density", "peak_neighbour"]
    if config.train.split == "clip":
        names += ["latent_density"]
    config = replace(config, score="mse_top", scores=tuple(names))
    fitted = trained(config, 1, shaken)
    waves = sounds(config.features, 9)
    clips = of_waves(waves, config.features)
    expected = fitted.scores(clips, clips)
    for name in names:
        ours = answers(onnx_bytes(fitted.detector, name), waves)
        assert_close(np.array([a.score for a in ours]), expected[name][0, 0])


@pytest.mark.slow
def test_with_official_thresholds_the_p_value_is_nan():
    made = trained(small("official"), 1)
    sound = sounds(made.detector.config.features, 3)
    clips = of_waves(sound, made.detector.config.features)
    expected = made.scores(clips, clips)["mahalanobis"][0, 0]
    ours = answers(onnx_bytes(made.detector), sound)
    assert_close(np.array([a.score for a in ours]), expected)
    threshold = made.detector.thresholds["mahalanobis"][0, 0]
    assert [bool(a.is_anomaly) for a in ours] == (expected > threshold).tolist()
    assert all(np.isnan(a.p_value) for a in ours)


def assert_no_score(content, sounds):
    for answer in answers(content, sounds):
        assert np.isnan(answer.score)
        assert np.isnan(answer.p_value)
        assert not answer.is_anomaly


@pytest.mark.parametrize("name", SCORES)
def test_a_wave_with_a_sample_that_is_not_finite_has_no_score(probe, name):
    rng = np.random.default_rng(0)
    broken = [wave(rng, 4000) for _ in range(4)]
    values = ((2000, np.nan), (-1, np.nan), (-1, np.inf), (0, -np.inf))
    for sound, (place, value) in zip(broken, values, strict=True):
        sound[place] = value
    assert_no_score(onnx_bytes(probe.detector, name), broken)


@pytest.mark.parametrize("name", ["fusion_mean", "fusion_max", "spectrum_density"])
def test_a_wave_that_is_too_short_has_no_score_and_no_alarm(probe, name):
    config = probe.detector.config.features
    rng = np.random.default_rng(0)
    content = onnx_bytes(probe.detector, name)
    short = [wave(rng, n_samples) for n_samples in (samples_needed(config) - 1, 100)]
    assert_no_score(content, short)
    (answer,) = answers(content, [wave(rng, samples_needed(config))])
    assert np.isfinite(answer.score)


def test_a_statistic_without_nodes_is_refused():
    output = Output("difference", "residual", "code")
    with pytest.raises(ValueError, match="no nodes for the statistic 'median'"):
        score_nodes._statistic(Graph(), small("default"), "median", "mel", output)
