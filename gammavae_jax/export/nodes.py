"""Log-mels, windows and the autoencoder as ONNX nodes.

Batch normalisation with running statistics is linear, so it is folded into the layer
before it, in float64.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from gammavae_jax.config import Config, FeatureConfig, ModelConfig
from gammavae_jax.data.features import FLOOR, hann
from gammavae_jax.data.statistics import DB_OF_E
from gammavae_jax.export.graph import Graph, Tensor
from gammavae_jax.models import layers
from gammavae_jax.models.distributions import MAX_PARAMETER, MIN_PARAMETER
from gammavae_jax.models.layers import EPS
from gammavae_jax.models.likelihood import (
    FAR,
    LARGEST_LOG_RATIO,
    concentrations_of,
)
from gammavae_jax.scoring.scorer import FittedModel, rows_in_window


def add_log_mel(
    graph: Graph,
    wave: Tensor,
    filterbank: Float32[np.ndarray, "bin mel"],
    config: FeatureConfig,
) -> Tensor:
    """Compute the log-mel of `wave`, as `features.log_mel` does.

    The result has shape `frame mel` and is in dB. Both functions compute the Fourier
    transform in float64.
    """
    half = config.n_fft // 2
    padded = graph.op("Pad", wave, [half, half])
    signal = graph.double(graph.op("Unsqueeze", padded, [0, 2]))
    window = graph.double(hann(config.n_fft))
    sizes = np.array(config.hop_length), window, np.array(config.n_fft)
    spectrum = graph.op("STFT", signal, *sizes, onesided=1)  # shape: 1 frame bin 2
    power = graph.op("ReduceSumSquare", spectrum, axes=[0, 3], keepdims=0)
    power = graph.as_float(power)
    if config.power != 2.0:
        power = graph.op("Pow", power, config.power / 2.0)
    mel = graph.op("MatMul", power, filterbank)
    nepers = graph.op("Log", graph.op("Max", mel, float(FLOOR)))
    return graph.op("Mul", nepers, 20.0 / config.power / math.log(10.0))


def add_windows(graph: Graph, log_mel: Tensor, config: Config) -> Tensor:
    """Cut a log-mel into all windows of `n_context` frames, flattened frame by frame.

    The result has shape `window feature`. For normalised bands, the level of the clip
    is subtracted first.
    """
    n_context = config.features.n_context
    if config.model.normalises_bands:
        level = graph.op("ReduceMean", log_mel, keepdims=0)
        log_mel = graph.op("Sub", log_mel, level)
    shifted = [
        graph.slice(log_mel, first, (first - n_context + 1) or None)
        for first in range(n_context)
    ]
    return graph.op("Concat", *shifted, axis=1)


NETWORK = "network"  # the scope of the autoencoder's nodes


class Output(NamedTuple):
    """A model's outputs for each window: difference, residual and latent code.

    The difference is the target minus the reconstruction; see `ModelOutput`. It and the
    residual have shape `window output`, and the code has shape `window latent`.
    """

    difference: Tensor
    residual: Tensor
    code: Tensor


def add_network(
    graph: Graph, config: Config, scorer: FittedModel, windows: Tensor
) -> Output:
    """Compute each window's residual and latent code with the autoencoder."""
    params, batch_stats = scorer.params, scorer.batch_stats
    seen, target = _inputs(graph, config, batch_stats, windows)
    x = _blocks(graph, params[layers.ENCODER], batch_stats[layers.ENCODER], seen)
    if config.model.latent == "deterministic":
        code = _block(graph, params[layers.CODE], batch_stats[layers.CODE], x)
    else:
        code = _posterior_mean(graph, config.model, params, x)
    x = _blocks(graph, params[layers.DECODER], batch_stats[layers.DECODER], code)
    last = params[layers.DECODER][layers.OUTPUT]
    reconstruction = _linear(graph, x, last["kernel"], last["bias"])
    difference = graph.op("Sub", target, reconstruction)
    if config.model.normalises_bands:  # here the target is standardised, too
        deviation = np.sqrt(_running(config, batch_stats)["var"] + EPS)
        difference = graph.op("Mul", difference, _of_cells(config, deviation))
    if not config.model.has_power_likelihood:
        return Output(difference, difference, code)
    residual = _deviance_residual(graph, config, params[layers.LIKELIHOOD], difference)
    return Output(difference, residual, code)


def _running(config: Config, batch_stats: Any) -> dict[str, np.ndarray]:
    """Return the running statistics that normalise the input."""
    name = layers.BANDS if config.model.normalises_bands else layers.STANDARDISE
    return _float64(batch_stats[layers.INPUTS][name])


def _of_cells(config: Config, of_bands: np.ndarray) -> np.ndarray:
    """Repeat a vector of band values for each row of a window's residual."""
    return np.tile(of_bands, rows_in_window(config))


def _deviance_residual(
    graph: Graph, config: Config, params: Any, difference: Tensor
) -> Tensor:
    """Compute the deviance residual from the difference in dB.

    Log ratios above `FAR` (F, 130 dB) or `LARGEST_LOG_RATIO` (Gamma, 87 dB) are
    clipped, whereas `likelihood.deviance_residual` uses other formulas for them.
    """
    trained = concentrations_of(params)
    far = FAR if trained.scale is not None else LARGEST_LOG_RATIO
    log_ratio = graph.op("Div", difference, DB_OF_E)
    near = graph.op("Min", log_ratio, far)
    growth = graph.op("Sub", graph.op("Exp", near), 1.0)
    k = _of_cells(config, np.asarray(trained.power, np.float64))
    rise = growth
    if trained.scale is not None:
        a = _of_cells(config, np.asarray(trained.scale, np.float64))
        ratio = graph.op("Add", graph.op("Mul", growth, k / (k + a)), 1.0)
        rise = graph.op("Mul", graph.op("Log", ratio), (k + a) / k)
    excess = graph.op("Mul", graph.op("Sub", rise, near), 2.0 * k)
    size = graph.op("Sqrt", graph.op("Max", excess, 0.0))
    return graph.op("Mul", graph.op("Sign", log_ratio), size)


def _inputs(
    graph: Graph, config: Config, batch_stats: Any, windows: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the model's input and reconstruction target."""
    model = config.model
    if model.normalises_bands or model.inputs == "standardised":
        running = _running(config, batch_stats)
        n_repeated = config.features.n_features // len(running["mean"])
        mean, variance = (np.tile(running[n], n_repeated) for n in ("mean", "var"))
        windows = graph.op("Sub", windows, mean)
        windows = graph.op("Mul", windows, (variance + EPS) ** -0.5)
    seen = target = windows
    if model.target == "centre":
        n_mels = config.features.n_mels
        first = config.features.n_context // 2 * n_mels
        before = graph.slice(windows, 0, first, axis=1)
        target = graph.slice(windows, first, first + n_mels, axis=1)
        after = graph.slice(windows, first + n_mels, None, axis=1)
        seen = graph.op("Concat", before, after, axis=1)
    if model.inputs == "centred":
        level = graph.op("ReduceMean", seen, axes=[1])
        seen, target = (graph.op("Sub", x, level) for x in (seen, target))
    return seen, target


def _posterior_mean(
    graph: Graph, config: ModelConfig, params: Any, x: Tensor
) -> Tensor:
    """Compute the posterior mean of the latent code from the encoder's output.

    See `autoencoder.posterior_from_heads`.
    """
    heads = [
        _linear(graph, x, params[head]["kernel"].T, params[head]["bias"])
        for head in layers.HEADS
    ]
    if config.latent == "gaussian":
        return heads[0]
    first, second = (_positive(graph, config, head) for head in heads)
    if config.parameters == "mean_variance":
        return first
    return graph.op("Div", first, second)


def _positive(graph: Graph, config: ModelConfig, head: Tensor) -> Tensor:
    if config.heads == "softmax":
        positive = graph.op("Softmax", head, axis=1)
    else:
        positive = graph.op("Softplus", head)
    return graph.op("Clip", positive, MIN_PARAMETER, MAX_PARAMETER)


def _blocks(graph: Graph, params: Any, batch_stats: Any, x: Tensor) -> Tensor:
    """Apply the blocks of a module, one after the other."""
    for name in map(layers.BLOCK.format, range(len(batch_stats))):
        x = _block(graph, params[name], batch_stats[name], x)
    return x


def _block(graph: Graph, params: Any, batch_stats: Any, x: Tensor) -> Tensor:
    """Apply a `layers.Block`, with batch normalisation folded into the dense layer."""
    dense, norm = _float64(params[layers.DENSE]), _float64(params[layers.BATCH_NORM])
    running = _float64(batch_stats[layers.BATCH_NORM])
    spread = norm["scale"] / np.sqrt(running["var"] + EPS)
    bias = (dense["bias"] - running["mean"]) * spread + norm["bias"]
    return graph.op("Relu", _linear(graph, x, dense["kernel"].T * spread, bias))


def _linear(graph: Graph, x: Tensor, kernel: np.ndarray, bias: np.ndarray) -> Tensor:
    return graph.op("Add", graph.op("MatMul", x, kernel), bias)


def _float64(leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items()}
