"""Graphs have each needed node once, and compute log-mels as the package does."""

import numpy as np
import onnx
import pytest
from support.windows import windows

from gammavae_jax.config import Config, FeatureConfig
from gammavae_jax.data.features import log_mel, mel_filterbank, n_frames, samples_needed
from gammavae_jax.export.checked_files import onnx_session
from gammavae_jax.export.graph import Graph
from gammavae_jax.export.nodes import add_log_mel, add_windows


def value(name, shape):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def test_equal_nodes_are_added_once_and_unused_nodes_are_dropped():
    graph = Graph()
    with graph.scope("first"):
        doubled = graph.op("Mul", "x", 2.0)
    graph.op("Log", graph.op("Add", "x", np.arange(3.0)))
    assert graph.op("Mul", "x", 2.0) == doubled
    assert graph.op("Mul", "x", 3.0) != doubled
    sums = [graph.op("ReduceSum", "x", [0], keepdims=keep) for keep in (0, 1)]
    assert sums[0] != sums[1]
    graph.output("y", graph.op("Add", doubled, graph.op("Mul", "x", 2.0)))
    model = graph.model("test", [value("x", [3])], [value("y", [3])])
    assert [node.name for node in model.graph.node] == ["first/Mul_0", "Add_6", "y"]
    assert len(model.graph.initializer) == 1


FEATURES = [
    FeatureConfig(),
    FeatureConfig(n_fft=400, hop_length=160, n_mels=40, power=1.0, n_context=1),
    FeatureConfig(n_fft=401, hop_length=100, n_mels=20, power=1.5, n_context=3),
]


@pytest.mark.parametrize("config", FEATURES)
def test_the_graph_has_the_log_mel_and_windows_of_the_features(config):
    bank = mel_filterbank(config)
    graph = Graph()
    mels = add_log_mel(graph, "wave", bank, config)
    graph.output("mels", mels)
    graph.output("windows", add_windows(graph, mels, Config(features=config)))
    outputs = [
        value("mels", ["frame", config.n_mels]),
        value("windows", ["window", config.n_features]),
    ]
    model = graph.model("test", [value("wave", ["sample"])], outputs)
    session = onnx_session(model.SerializeToString())
    rng = np.random.default_rng(0)
    shortest = samples_needed(config)
    multiples = [shortest + i * config.hop_length for i in (1, 4)]
    for length in (shortest, *multiples, multiples[1] - 1, multiples[1] + 1, 9973):
        wave = (0.1 * rng.standard_normal(length)).astype(np.float32)
        expected = log_mel(wave, bank, config)
        ours, of_windows = session.run(["mels", "windows"], {"wave": wave})
        assert len(ours) == n_frames(length, config)
        np.testing.assert_allclose(ours, expected, atol=1e-3)
        np.testing.assert_array_equal(of_windows, windows(ours, config.n_context))
    silence = np.zeros(shortest, np.float32)
    (ours,) = session.run(["mels"], {"wave": silence})
    np.testing.assert_allclose(ours, log_mel(silence, bank, config), rtol=1e-6)
    (short,) = session.run(["mels"], {"wave": silence[1:]})
    assert len(short) == config.n_context - 1 or shortest == 1
