"""A machine's detector as one ONNX file: a wave in, score and decision out."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from gammavae_jax.config import FUSION_SCORES
from gammavae_jax.config_json import to_dict
from gammavae_jax.export.graph import OPSET, Graph, Tensor, Value
from gammavae_jax.export.machine import MachineDetector
from gammavae_jax.export.nodes import add_log_mel, add_windows
from gammavae_jax.export.score_nodes import add_scores
from gammavae_jax.scoring.fusion import standard_of

_RULES = dict(zip(FUSION_SCORES, ("Mean", "Max", "Min"), strict=True))


def add_mean(
    graph: Graph, of_members: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The mean of each score over the members."""
    return {
        name: graph.op("Mean", *(scores[name] for scores in of_members))
        for name in of_members[0]
    }


def add_score(
    graph: Graph, detector: MachineDetector, scores: Mapping[str, Tensor]
) -> Tensor:
    """The one score: fused, if it is a fusion; see `fusion`."""
    config = detector.config
    if config.score not in _RULES:
        return scores[config.score]
    parts = []
    for name in config.scoring.fused:
        mean, unit = standard_of(name, detector.calibration[name])
        parts.append(graph.op("Div", graph.op("Sub", scores[name], mean[0]), unit[0]))
    return graph.op(_RULES[config.score], *parts)


def add_decision(
    graph: Graph, detector: MachineDetector, score: Tensor
) -> dict[str, Value]:
    """`p_value`, `threshold` and `is_anomaly`, by name.

    A score that is not a number has such a p-value, and is no alarm. So is every
    p-value where the thresholds are the official ones, which hold out no clips.
    """
    known = detector.calibration.get(detector.config.score)
    if known is None:
        p_value: Value = np.nan
    else:
        is_as_high = graph.op("GreaterOrEqual", known, score)
        count = graph.op("ReduceSum", graph.as_float(is_as_high), [0], keepdims=0)
        p_value = graph.op("Div", graph.op("Add", count, 1.0), len(known) + 1.0)
        p_value = graph.op("Where", graph.op("IsNaN", score), np.nan, p_value)
    return {
        "p_value": p_value,
        "threshold": detector.threshold,
        "is_anomaly": graph.op("Greater", score, detector.threshold),
    }


FORMAT = 1  # raised when inputs, outputs or metadata change their meaning


def onnx_model(detector: MachineDetector) -> onnx.ModelProto:
    """The whole chain for a wave of any length.

    The input `wave` is float32 of `sample`, in [-1, 1] at the sample rate of the
    features. Outputs are the scalars `score`, `p_value`, `threshold` and `is_anomaly`,
    those that a fusion fuses under their own names, and `log_mel`, `frame mel`. Of a
    wave that is shorter than `min_samples`, or has a sample that is no finite number,
    the score is not a number.
    """
    config, graph = detector.config, Graph()
    log_mel = add_log_mel(graph, "wave", detector.filterbank, config.features)
    windows = add_windows(graph, log_mel, config.features.n_context)
    of_members = []
    for number, member in enumerate(detector.members):
        with graph.scope(f"member{number}"):
            of_members.append(add_scores(graph, config, member, log_mel, windows))
    scores = add_mean(graph, of_members)
    score = add_score(graph, detector, scores)
    score = graph.op("Where", _is_usable(graph, detector), score, np.nan)
    named: dict[str, Value] = {"score": score, **add_decision(graph, detector, score)}
    named |= {name: scores[name] for name in scores if name != config.score}
    named["log_mel"] = log_mel
    for name, value in named.items():
        graph.output(name, value)
    shapes = {"log_mel": ["frame", config.features.n_mels]}
    types = {"is_anomaly": onnx.TensorProto.BOOL}
    model = graph.model(
        detector.name,
        [_value("wave", ["sample"])],
        [
            _value(name, shapes.get(name, []), types.get(name, onnx.TensorProto.FLOAT))
            for name in named
        ],
    )
    onnx.helper.set_model_props(model, metadata(detector))
    return model


def _is_usable(graph: Graph, detector: MachineDetector) -> Tensor:
    """Whether the wave can have a score.

    Some scores would say something of half a window, and some, such as a maximum, of
    what is left without the samples that are no numbers.
    """
    is_long = graph.op(
        "GreaterOrEqual", graph.length("wave"), np.array([detector.min_samples])
    )
    zeros = graph.op("Sub", "wave", "wave")  # but where a sample is infinite, or none
    is_broken = graph.op("IsNaN", graph.op("ReduceSum", zeros, keepdims=0))
    return graph.op("And", graph.op("Squeeze", is_long), graph.op("Not", is_broken))


def to_bytes(model: onnx.ModelProto) -> bytes:
    """A model as the bytes of its file, the same for equal models."""
    return model.SerializeToString(deterministic=True)


def metadata(detector: MachineDetector) -> dict[str, str]:
    """What a file says of itself; numbers as Python writes them."""
    config = detector.config
    known = detector.calibration.get(config.score, ())
    return {
        "format": str(FORMAT),
        "machine": detector.machine,
        "section": detector.section,
        "score": config.score,
        "threshold": repr(detector.threshold),
        "false_alarm_rate": repr(config.scoring.false_alarm_rate),
        "calibration_clips": str(len(known)),
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


def _value(
    name: str, shape: list, kind: int = onnx.TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, kind, shape)
