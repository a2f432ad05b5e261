"""The same file with the networks' weights in eight bits, and what that costs."""

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
    """A model with int8 weights in its networks.

    What goes into a layer is put into eight bits as well, at each run by its own
    range. Log-mels, statistics and distances stay float32: all that is small in them
    would be lost.

    Raises:
        InputError: the score asks no network.
    """
    props = {entry.key: entry.value for entry in model.metadata_props}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    add_pre_process_metadata(copy)  # or it is advised, aloud; shapes are known here
    layers = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and f"{NETWORK}/" in node.name
    ]
    if not layers:
        raise InputError(
            f"score {props['score']!r} asks no model, so that int8 weights would save "
            "nothing: leave out --int8"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            copy,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=layers,
            weight_type=QuantType.QInt8,
            # Seven bits: products of eight overflow on CPUs without VNNI.
            reduce_range=True,
        )
        made = onnx.load(path)
    del made.metadata_props[:]
    onnx.helper.set_model_props(made, props | {"weights": "int8"})
    return made


def cost(
    scores: Float[np.ndarray, "clip"],
    before: Float[np.ndarray, "clip"],
    is_anomaly: Bool[np.ndarray, "clip"] | None,
) -> str:
    """How scores of int8 weights differ from those before, in words.

    Args:
        scores: with int8 weights.
        before: with float32 weights.
        is_anomaly: of each clip; None where that is not known.
    """
    if is_anomaly is not None and is_anomaly.any() and not is_anomaly.all():
        was, now = (100 * auc(x, is_anomaly) for x in (before, scores))
        return f"AUC {was:.2f} to {now:.2f} % ({now - was:+.2f})"
    largest = np.max(np.abs(scores - before))
    correlation, _ = scipy.stats.spearmanr(scores, before)
    return f"scores differ by at most {largest:.2g}, rank correlation {correlation:.4f}"
