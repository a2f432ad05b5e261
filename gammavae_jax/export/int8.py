"""Quantises the networks of an exported model to int8, and measures the cost."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import scipy.stats
from jaxtyping import Bool, Float
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import auc
from gammavae_jax.export.nodes import NETWORK


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose networks have int8 weights.

    The input of each layer is quantised as well, by its own range in each call.
    Log-mels, statistics and distances stay float32, because int8 would lose their small
    values.
    """
    props = {entry.key: entry.value for entry in model.metadata_props}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    add_pre_process_metadata(copy)  # silences advice to infer shapes, which are known
    layers = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and f"{NETWORK}/" in node.name
    ]
    if not layers:
        raise InputError(
            f"score {props['score']!r} does not use a network, so int8 weights would "
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


def cost(
    scores: Float[np.ndarray, "clip"],
    before: Float[np.ndarray, "clip"],
    is_anomaly: Bool[np.ndarray, "clip"] | None,
) -> str:
    """Describe in words how int8 weights change scores.

    Args:
        scores: with int8 weights.
        before: with float32 weights.
        is_anomaly: the labels of the clips; None if unknown.
    """
    if is_anomaly is not None and is_anomaly.any() and not is_anomaly.all():
        was, now = (100 * auc(x, is_anomaly) for x in (before, scores))
        return f"AUC {was:.2f} to {now:.2f} % ({now - was:+.2f})"
    largest = np.max(np.abs(scores - before))
    correlation, _ = scipy.stats.spearmanr(scores, before)
    return f"scores differ by at most {largest:.2g}, rank correlation {correlation:.4f}"
