"""From scores of a seed's members to a decision, as ONNX nodes; float32 throughout."""

from collections.abc import Mapping, Sequence

import numpy as np

from gammavae_jax.config import FUSION_SCORES
from gammavae_jax.export.graph import Graph, Tensor, Value
from gammavae_jax.export.machine_detector import MachineDetector
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
