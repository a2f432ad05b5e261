"""Builds an ONNX model of a machine's whole detector, from waveform to decision."""

import importlib.metadata
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from gammavae_jax.config import FUSION_SCORES
from gammavae_jax.config_json import to_dict
from gammavae_jax.errors import InputError
from gammavae_jax.export.graph import OPSET, Graph, Tensor, Value
from gammavae_jax.export.machine import MachineDetector
from gammavae_jax.export.nodes import NETWORK, add_log_mel, add_windows
from gammavae_jax.export.score_nodes import add_scores
from gammavae_jax.scoring.fusion import standard_of

FORMAT = 1  # increment when the meaning of inputs, outputs or metadata changes
_RULES = {"fusion_mean": "Mean", "fusion_max": "Max", "fusion_min": "Min"}


def onnx_model(detector: MachineDetector) -> onnx.ModelProto:
    """Build a model that scores a waveform of any length.

    The input `wave` is float32 with shape `sample`, in [-1, 1], at the sample rate of
    the features. The outputs are the scalars `score`, `p_value`, `threshold` and
    `is_anomaly`, each score that a fusion combines (under its own name), and `log_mel`
    with shape `frame mel`. A wave that is shorter than `min_samples`, or has a sample
    that is not finite, has the score NaN.
    """
    config, graph = detector.config, Graph()
    log_mel = add_log_mel(graph, "wave", detector.filterbank, config.features)
    windows = add_windows(graph, log_mel, config)
    by_member = []
    for number, member in enumerate(detector.members):
        with graph.scope(f"member{number}"):
            by_member.append(add_scores(graph, config, member, log_mel, windows))
    scores = {
        name: graph.op("Mean", *(of_member[name] for of_member in by_member))
        for name in by_member[0]
    }
    score = _add_headline(graph, detector, scores)
    score = graph.op("Where", _add_is_usable(graph, detector), score, np.nan)
    outputs: dict[str, Value] = {"score": score, **add_decision(graph, detector, score)}
    outputs |= {name: scores[name] for name in scores if name != config.score}
    outputs["log_mel"] = log_mel
    for name, value in outputs.items():
        graph.output(name, value)
    shapes = {"wave": ["sample"], "log_mel": ["frame", config.features.n_mels]}
    types = {"is_anomaly": onnx.TensorProto.BOOL}
    infos = {
        name: onnx.helper.make_tensor_value_info(
            name, types.get(name, onnx.TensorProto.FLOAT), shapes.get(name, [])
        )
        for name in ("wave", *outputs)
    }
    model = graph.model(detector.name, [infos.pop("wave")], list(infos.values()))
    onnx.helper.set_model_props(model, _metadata(detector))
    return model


def _add_headline(
    graph: Graph, detector: MachineDetector, scores: Mapping[str, Tensor]
) -> Tensor:
    """Compute the configured score, which may be a fusion; see `scoring.fusion`."""
    config = detector.config
    if config.score not in FUSION_SCORES:
        return scores[config.score]
    parts = []
    for name in config.scoring.fused:
        mean, unit = standard_of(name, detector.calibration[name])
        parts.append(graph.op("Div", graph.op("Sub", scores[name], mean[0]), unit[0]))
    if config.score in _RULES:
        return graph.op(_RULES[config.score], *parts)
    stacked = graph.op(
        "Concat", *(graph.op("Unsqueeze", part, [0]) for part in parts), axis=0
    )
    total = graph.op("ReduceLogSumExp", stacked, keepdims=0)
    return graph.op("Sub", total, math.log(len(parts)))


def add_decision(
    graph: Graph, detector: MachineDetector, score: Tensor
) -> dict[str, Value]:
    """Compute `p_value`, `threshold` and `is_anomaly`; return them by name.

    A score of NaN has the p-value NaN and is not an anomaly. With official thresholds,
    which need no held-out clips, every p-value is NaN.
    """
    held_out = detector.calibration.get(detector.config.score)
    if held_out is None:
        p_value: Value = np.nan
    else:
        is_as_high = graph.op("GreaterOrEqual", held_out, score)
        counted = graph.op("Mul", graph.as_float(is_as_high), detector.weights)
        count = graph.op("ReduceSum", counted, [0], keepdims=0)
        total = float(detector.weights.sum()) + 1.0
        p_value = graph.op("Div", graph.op("Add", count, 1.0), total)
        p_value = graph.op("Where", graph.op("IsNaN", score), np.nan, p_value)
    return {
        "p_value": p_value,
        "threshold": detector.threshold,
        "is_anomaly": graph.op("Greater", score, detector.threshold),
    }


def _add_is_usable(graph: Graph, detector: MachineDetector) -> Tensor:
    """Test whether the waveform is long enough and has only finite samples.

    Not every score becomes NaN by itself if the wave is unusable.
    """
    is_long = graph.op(
        "GreaterOrEqual", graph.length("wave"), np.array([detector.min_samples])
    )
    zeros = graph.op("Sub", "wave", "wave")  # NaN where a sample is not finite
    is_broken = graph.op("IsNaN", graph.op("ReduceSum", zeros, keepdims=0))
    return graph.op("And", graph.op("Squeeze", is_long), graph.op("Not", is_broken))


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantise the models' weights to int8.

    The input of each layer is quantised as well; its range is determined in every call.
    Log-mels, statistics and distances stay float32, because int8 would lose their small
    values.
    """
    props = {entry.key: entry.value for entry in model.metadata_props}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    add_pre_process_metadata(copy)  # otherwise, onnxruntime recommends shape inference
    layers = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and f"{NETWORK}/" in node.name
    ]
    if not layers:
        raise InputError(
            f"score {props['score']!r} does not use a model, so int8 weights would "
            "save nothing: leave out --int8"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            copy,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=layers,
            weight_type=QuantType.QInt8,
            # 7-bit weights: 8-bit products overflow on CPUs without VNNI.
            reduce_range=True,
        )
        small = onnx.load(path)
    del small.metadata_props[:]
    onnx.helper.set_model_props(small, props | {"weights": "int8"})
    return small


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Serialise a model; equal models have the same bytes."""
    return model.SerializeToString(deterministic=True)


def _metadata(detector: MachineDetector) -> dict[str, str]:
    """Return the file's metadata, with numbers as Python prints them."""
    config = detector.config
    return {
        "format": str(FORMAT),
        "machine": detector.machine,
        "section": detector.section,
        "score": config.score,
        "threshold": repr(detector.threshold),
        "false_alarm_rate": repr(config.scoring.false_alarm_rate),
        "calibration_clips": str(len(detector.calibration.get(config.score, ()))),
        "sample_rate": str(config.features.sample_rate),
        "channel": str(config.features.channel),
        "min_samples": str(detector.min_samples),
        "preset": config.preset,
        "seed": str(detector.seed),
        "models": str(len(detector.members)),
        "training_sha256": detector.training_sha256,
        "config": json.dumps(to_dict(config)),
        "gammavae_jax": importlib.metadata.version("gammavae-jax"),
        "onnx": onnx.__version__,
        "opset": str(OPSET),
    }
