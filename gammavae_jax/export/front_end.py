"""A wave to windows of its log-mel, as ONNX nodes; see `features`."""

import math

import numpy as np
from jaxtyping import Float32

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import FLOOR, hann
from gammavae_jax.export.graph import Graph, Tensor


def add_log_mel(
    graph: Graph,
    wave: Tensor,
    filterbank: Float32[np.ndarray, "bin mel"],
    config: FeatureConfig,
) -> Tensor:
    """`features.log_mel` of `wave`, `frame mel` in dB.

    Between the two is the rounding of two Fourier transforms in float32. That is 1e-4
    dB where a band holds noise, and more in a band that lies 100 dB below a tone,
    where either transform returns hardly more than its rounding.
    """
    half = config.n_fft // 2
    padded = graph.op("Pad", wave, [half, half])
    signal = graph.op("Unsqueeze", padded, [0, 2])
    hop, length = np.array(config.hop_length), np.array(config.n_fft)
    spectrum = graph.op(
        "STFT", signal, hop, hann(config.n_fft), length, onesided=1
    )  # of shape `1 frame bin 2`
    power = graph.op("ReduceSumSquare", spectrum, axes=[0, 3], keepdims=0)
    if config.power != 2.0:
        power = graph.op("Pow", power, config.power / 2.0)
    mel = graph.op("MatMul", power, filterbank)
    nepers = graph.op("Log", graph.op("Max", mel, float(FLOOR)))
    return graph.op("Mul", nepers, 20.0 / config.power / math.log(10.0))


def add_windows(graph: Graph, log_mel: Tensor, n_context: int) -> Tensor:
    """`features.windows` of a log-mel, `window feature`."""
    shifted = [
        graph.rows(log_mel, first, (first - n_context + 1) or None)
        for first in range(n_context)
    ]
    return graph.op("Concat", *shifted, axis=1)
