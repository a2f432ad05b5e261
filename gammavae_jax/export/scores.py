"""A model's scores of a clip, as ONNX nodes; see `score`, `pooling`, `neighbours`."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular

from gammavae_jax.config import Config
from gammavae_jax.export import statistics
from gammavae_jax.export.graph import Graph, Tensor
from gammavae_jax.export.machine_detector import Member
from gammavae_jax.export.network import NETWORK, Output, add_network
from gammavae_jax.scoring.neighbours import Reference
from gammavae_jax.scoring.residuals import RANK_DECAY, TOP_FRACTION, GaussianFit
from gammavae_jax.scoring.scorer import Scorer, rows_in_window


def add_scores(
    graph: Graph, config: Config, member: Member, log_mel: Tensor, windows: Tensor
) -> dict[str, Tensor]:
    """What one member gives of `Config.computed_scores`, each a scalar."""
    with graph.scope(NETWORK):
        output = add_network(graph, config, member.scorer, windows)
    scores = {}
    for name in config.computed_scores:
        if name in _POOLED:
            scores[name] = _POOLED[name](graph, _squared_error(graph, output.residual))
        elif name in _MAHALANOBIS:
            add = _MAHALANOBIS[name]
            scores[name] = add(graph, config, output.residual, member.scorer)
        else:
            what, _, kind = name.rpartition("_")
            statistic = _statistic(graph, config, what, log_mel, output)
            by_radius = kind == "density"
            scores[name] = _nearest(
                graph, statistic, member.references[what], by_radius
            )
    return scores


def _squared_error(graph: Graph, residual: Tensor) -> Tensor:
    """Of each window, the mean over its features."""
    square = graph.op("Mul", residual, residual)
    return graph.op("ReduceMean", square, axes=[1], keepdims=0)


def _mean(graph: Graph, values: Tensor) -> Tensor:
    return graph.op("ReduceMean", values, keepdims=0)


def _largest(graph: Graph, values: Tensor) -> Tensor:
    return graph.op("ReduceMax", values, keepdims=0)


def _top(graph: Graph, values: Tensor) -> Tensor:
    """`pooling.top`."""
    share = graph.op("Mul", graph.float_length(values), TOP_FRACTION)
    count = graph.as_int(graph.op("Max", graph.op("Ceil", share), 1.0))
    return _mean(graph, graph.op("TopK", values, count, n_outputs=2))


def _ranked(graph: Graph, values: Tensor) -> Tensor:
    """`pooling.ranked`."""
    count = graph.length(values)
    ordered = graph.op("TopK", values, count, n_outputs=2)
    ranks = graph.op("Range", 0.0, graph.op("Squeeze", graph.float_length(values)), 1.0)
    weight = graph.op("Pow", RANK_DECAY, ranks)
    total, of_weights = (
        graph.op("ReduceSum", x, [0], keepdims=0)
        for x in (graph.op("Mul", weight, ordered), weight)
    )
    return graph.op("Div", total, of_weights)


_POOLED: dict[str, Callable[[Graph, Tensor], Tensor]] = {
    "mse": _mean,
    "mse_top": _top,
    "mse_max": _largest,
    "mse_ranked": _ranked,
}


def _mahalanobis(
    graph: Graph, config: Config, residual: Tensor, scorer: Scorer
) -> Tensor:
    """`score.mahalanobis`."""
    rows = graph.op("Reshape", residual, [-1, config.features.n_mels])
    mean = graph.op("ReduceMean", rows, axes=[0])
    return _mean(graph, _nearer_domain(graph, mean, scorer))


def _mahalanobis_framewise(
    graph: Graph, config: Config, residual: Tensor, scorer: Scorer
) -> Tensor:
    """`score.mahalanobis_framewise`."""
    rows = graph.op("Reshape", residual, [-1, config.features.n_mels])
    return _mean(graph, _nearer_domain(graph, rows, scorer))


_MAHALANOBIS: dict[str, Callable[[Graph, Config, Tensor, Scorer], Tensor]] = {
    "mahalanobis": _mahalanobis,
    "mahalanobis_framewise": _mahalanobis_framewise,
}


def _nearer_domain(graph: Graph, rows: Tensor, scorer: Scorer) -> Tensor:
    """Of each row, the squared distance to the nearer of both fits."""
    fits = (scorer.source, scorer.target)
    return graph.op("Min", *(_squared_distance(graph, rows, fit) for fit in fits))


def _squared_distance(graph: Graph, rows: Tensor, fit: GaussianFit) -> Tensor:
    """`score.squared_distance`.

    ONNX has no triangular solve. This is the one place where something is inverted: in
    float64, and the factor, not the covariance, whose condition is the square of its.
    """
    factor = np.asarray(fit.factor, np.float64)
    inverse = solve_triangular(factor, np.eye(len(factor)), lower=True)
    centred = graph.op("Sub", rows, np.asarray(fit.location))
    whitened = graph.op("MatMul", centred, inverse.T)
    return graph.op("ReduceSumSquare", whitened, axes=[1], keepdims=0)


def _statistic(
    graph: Graph, config: Config, name: str, log_mel: Tensor, output: Output
) -> Tensor:
    """The named one of `config.STATISTICS`."""
    if name == "spectrum":
        return statistics.add_spectrum(graph, log_mel)
    if name == "latent":
        return statistics.add_latent(graph, output.code)
    of_frames = statistics.add_frame_residual(
        graph, output.residual, config.features.n_mels, rows_in_window(config)
    )
    if name == "residual":
        return statistics.add_residual(graph, of_frames)
    return statistics.add_peak(graph, of_frames)


def _nearest(
    graph: Graph, statistic: Tensor, reference: Reference, by_radius: bool
) -> Tensor:
    """One of `neighbours.distances`."""
    centred = graph.op("Sub", statistic, np.asarray(reference.location))
    point = graph.op("Div", centred, np.asarray(reference.scale))
    known = np.asarray(reference.clips[reference.is_clip])
    distance = graph.op("ReduceL2", graph.op("Sub", known, point), axes=[1], keepdims=0)
    if by_radius:
        radius = np.asarray(reference.radius[reference.is_clip])
        distance = graph.op("Div", distance, radius)
    return graph.op("ReduceMin", distance, keepdims=0)
