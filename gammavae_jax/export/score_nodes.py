"""A model's scores of a clip, as ONNX nodes; see `score`, `pooling`, `neighbours`."""

import math
from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular

from gammavae_jax.config import Config
from gammavae_jax.data.statistics import UPPER_QUANTILE
from gammavae_jax.export.graph import Graph, Tensor
from gammavae_jax.export.machine import Member
from gammavae_jax.export.nodes import NETWORK, Output, add_network
from gammavae_jax.scoring.neighbours import Reference
from gammavae_jax.scoring.residuals import RANK_DECAY, TOP_FRACTION, GaussianFit
from gammavae_jax.scoring.scorer import Scorer, rows_in_window

_DECIBELS = 10.0 / math.log(10.0)  # in a neper of power


def add_spectrum(graph: Graph, log_mel: Tensor) -> Tensor:
    """`clip_statistics.spectrum` of a log-mel, `frame mel`."""
    level = graph.op("ReduceMean", log_mel, keepdims=0)
    return _moments(graph, graph.op("Sub", log_mel, level))


def add_residual(graph: Graph, frame_residual: Tensor) -> Tensor:
    """`clip_statistics.residual` of each frame's residual, `frame mel`."""
    moments = _moments(graph, frame_residual)
    upper = _upper_quantile(graph, frame_residual)
    return graph.op("Concat", moments, upper, axis=0)


def add_peak(graph: Graph, frame_residual: Tensor) -> Tensor:
    """`clip_statistics.peak` of each frame's residual, `frame mel`."""
    nepers = graph.op("Div", frame_residual, _DECIBELS)
    total = graph.op("ReduceLogSumExp", nepers, axes=[0], keepdims=0)
    count = graph.op("Log", graph.float_length(frame_residual))
    return graph.op("Mul", graph.op("Sub", total, count), _DECIBELS)


def add_latent(graph: Graph, code: Tensor) -> Tensor:
    """`clip_statistics.latent` of a code, `window latent`."""
    mean = _mean_of_rows(graph, code)
    deviation = _deviation(graph, graph.op("Sub", code, mean))
    return graph.op("Concat", mean, deviation, axis=0)


def add_frame_residual(
    graph: Graph, residual: Tensor, n_mels: int, n_rows: int
) -> Tensor:
    """`clip_statistics.frame_residual` of the frames that windows tell of, `frame mel`.

    Args:
        graph: to be added to.
        residual: of each window, `window feature`.
        n_mels: of a frame.
        n_rows: frames of a window's residual; 1 is of its middle frame.
    """
    if n_rows == 1:
        return residual
    places = [(row, n_rows - 1 - row) for row in range(n_rows)]
    rows = graph.outputs_of(
        "Split", residual, [n_mels] * n_rows, n_outputs=n_rows, axis=1
    )
    # A row of ones for each window tells how many of them each frame is part of.
    shape = graph.op("Concat", graph.length(residual), [1], axis=0)
    ones = graph.op("Expand", 1.0, shape)
    total, count = (
        graph.op(
            "Sum",
            *(
                graph.op("Pad", row, [before, 0, after, 0])
                for row, (before, after) in zip(of_windows, places, strict=True)
            ),
        )
        for of_windows in (rows, [ones] * n_rows)
    )
    return graph.op("Div", total, count)


def _moments(graph: Graph, values: Tensor) -> Tensor:
    mean = _mean_of_rows(graph, values)
    change = graph.op("Sub", graph.rows(values, 1, None), graph.rows(values, 0, -1))
    of_values, of_change = (
        _deviation(graph, graph.op("Sub", x, _mean_of_rows(graph, x)))
        for x in (values, change)
    )
    return graph.op("Concat", mean, of_values, of_change, axis=0)


def _mean_of_rows(graph: Graph, values: Tensor) -> Tensor:
    """The mean over rows; 0 of no rows, which is how a single frame changes."""
    count = graph.op("Max", graph.float_length(values), 1.0)
    return graph.op("Div", graph.op("ReduceSum", values, [0], keepdims=0), count)


def _deviation(graph: Graph, centred: Tensor) -> Tensor:
    return graph.op("Sqrt", _mean_of_rows(graph, graph.op("Mul", centred, centred)))


def _upper_quantile(graph: Graph, values: Tensor) -> Tensor:
    """Per band, between the two nearest ranks, the last two of those from the top."""
    count = graph.float_length(values)
    last = graph.op("Sub", count, 1.0)
    place = graph.op("Mul", last, UPPER_QUANTILE)
    low = graph.op("Floor", place)
    n_top = graph.as_int(graph.op("Sub", count, low))
    top = graph.op("TopK", values, n_top, n_outputs=2, axis=0)
    below = graph.slice(top, -1, None, axis=0)
    # Where the quantile is the largest value there is none above it.
    above = graph.op("Gather", top, graph.op("Max", graph.op("Sub", n_top, [2]), [0]))
    between = graph.op(
        "Mul", graph.op("Sub", above, below), graph.op("Sub", place, low)
    )
    return graph.op("Squeeze", graph.op("Add", below, between), [0])


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
    """`residuals.top`."""
    share = graph.op("Mul", graph.float_length(values), TOP_FRACTION)
    count = graph.as_int(graph.op("Max", graph.op("Ceil", share), 1.0))
    return _mean(graph, graph.op("TopK", values, count, n_outputs=2))


def _ranked(graph: Graph, values: Tensor) -> Tensor:
    """`residuals.ranked`."""
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
        return add_spectrum(graph, log_mel)
    if name == "latent":
        return add_latent(graph, output.code)
    of_frames = add_frame_residual(
        graph, output.residual, config.features.n_mels, rows_in_window(config)
    )
    if name == "residual":
        return add_residual(graph, of_frames)
    return add_peak(graph, of_frames)


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
