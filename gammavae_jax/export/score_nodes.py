"""Clip statistics and anomaly scores as ONNX nodes.

Their formulas are in `data.statistics` and `scoring`.
"""

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular

from gammavae_jax.config import Config
from gammavae_jax.data.features import edge_frames
from gammavae_jax.data.statistics import (
    DB_OF_E,
    SALIENCE,
    UPPER_QUANTILE,
)
from gammavae_jax.export.graph import Graph, Tensor
from gammavae_jax.export.machine import ExportedModel
from gammavae_jax.export.nodes import NETWORK, Output, add_network
from gammavae_jax.scoring.neighbours import Reference, divisor
from gammavae_jax.scoring.residuals import RANK_DECAY, TOP_FRACTION, GaussianFit
from gammavae_jax.scoring.scorer import FittedModel, rows_in_window


def _frame_residual(graph: Graph, residual: Tensor, n_mels: int, n_rows: int) -> Tensor:
    """Compute each frame's mean residual over the windows that cover it."""
    if n_rows == 1:
        return residual
    rows = graph.outputs_of(
        "Split", residual, [n_mels] * n_rows, n_outputs=n_rows, axis=1
    )
    # Adding ones in the same way counts the windows that cover each frame.
    shape = graph.op("Concat", graph.length(residual), [1], axis=0)
    ones = [graph.op("Expand", 1.0, shape)] * n_rows

    def overlap_add(parts: list[Tensor]) -> Tensor:
        padded = (
            graph.op("Pad", part, [row, 0, n_rows - 1 - row, 0])
            for row, part in enumerate(parts)
        )
        return graph.op("Sum", *padded)

    return graph.op("Div", overlap_add(rows), overlap_add(ones))


def _moments(graph: Graph, values: Tensor) -> Tensor:
    mean = _mean_of_rows(graph, values)
    change = graph.op("Sub", graph.slice(values, 1, None), graph.slice(values, 0, -1))
    of_values, of_change = (
        _deviation(graph, graph.op("Sub", x, _mean_of_rows(graph, x)))
        for x in (values, change)
    )
    return graph.op("Concat", mean, of_values, of_change, axis=0)


def _mean_of_rows(graph: Graph, values: Tensor) -> Tensor:
    """Compute the mean over rows, or 0 if there are no rows.

    A clip of a single frame has no changes between frames, so it has no rows of
    changes.
    """
    count = graph.op("Max", graph.float_length(values), 1.0)
    return graph.op("Div", graph.op("ReduceSum", values, [0], keepdims=0), count)


def _deviation(graph: Graph, centred: Tensor) -> Tensor:
    return graph.op("Sqrt", _mean_of_rows(graph, graph.op("Mul", centred, centred)))


def _upper_quantile(graph: Graph, values: Tensor) -> Tensor:
    """Compute each band's upper quantile, interpolated between the nearest ranks."""
    count = graph.float_length(values)
    last = graph.op("Sub", count, 1.0)
    place = graph.op("Mul", last, UPPER_QUANTILE)
    low = graph.op("Floor", place)
    n_top = graph.as_int(graph.op("Sub", count, low))
    top = graph.op("TopK", values, n_top, n_outputs=2, axis=0)
    below = graph.slice(top, -1, None, axis=0)
    # If `below` is the largest value, `above` is the same value.
    above = graph.op("Gather", top, graph.op("Max", graph.op("Sub", n_top, [2]), [0]))
    between = graph.op(
        "Mul", graph.op("Sub", above, below), graph.op("Sub", place, low)
    )
    return graph.op("Squeeze", graph.op("Add", below, between), [0])


def add_scores(
    graph: Graph,
    config: Config,
    member: ExportedModel,
    log_mel: Tensor,
    windows: Tensor,
) -> dict[str, Tensor]:
    """Compute one model's scores, as scalars keyed by the name of the score."""
    with graph.scope(NETWORK):
        output = add_network(graph, config, member.scorer, windows)
    scores, whole = {}, _whole_frames(graph, config, log_mel)
    for name in config.computed_scores:
        what, _, kind = name.rpartition("_")
        if name in _POOLED:
            square = graph.op("Mul", output.residual, output.residual)
            error = graph.op("ReduceMean", square, axes=[1], keepdims=0)
            scores[name] = _POOLED[name](graph, error)
        elif name.startswith("mahalanobis"):
            scores[name] = _mahalanobis(
                graph, config, output.residual, member.scorer, kind == "framewise"
            )
        else:
            statistic = _statistic(graph, config, what, whole, output)
            reference = member.references[what]
            scores[name] = _nearest(graph, statistic, reference, kind)
    return scores


def _whole_frames(graph: Graph, config: Config, log_mel: Tensor) -> Tensor:
    """Leave out the first and last frames; see `statistics.whole_frames`."""
    n_edge, length = edge_frames(config.features), graph.length(log_mel)
    is_enough = graph.op("Greater", length, [2 * n_edge])
    edge = graph.op("Mul", graph.as_int(is_enough), [n_edge])
    return graph.op("Slice", log_mel, edge, graph.op("Sub", length, edge), [0])


def _mean(graph: Graph, values: Tensor) -> Tensor:
    return graph.op("ReduceMean", values, keepdims=0)


def _top(graph: Graph, values: Tensor) -> Tensor:
    """Compute the same score as `residuals.top`."""
    share = graph.op("Mul", graph.float_length(values), TOP_FRACTION)
    count = graph.as_int(graph.op("Max", graph.op("Ceil", share), 1.0))
    return _mean(graph, graph.op("TopK", values, count, n_outputs=2))


def _ranked(graph: Graph, values: Tensor) -> Tensor:
    """Compute the same score as `residuals.ranked`."""
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
    "mse_max": lambda graph, values: graph.op("ReduceMax", values, keepdims=0),
    "mse_ranked": _ranked,
}


def _mahalanobis(
    graph: Graph, config: Config, residual: Tensor, scorer: FittedModel, framewise: bool
) -> Tensor:
    """Compute the score `mahalanobis` or, if `framewise`, `mahalanobis_framewise`."""
    rows = graph.op("Reshape", residual, [-1, config.features.n_mels])
    if not framewise:
        rows = graph.op("ReduceMean", rows, axes=[0])
    fits = (scorer.source, scorer.target)
    distances = (_squared_distance(graph, rows, fit) for fit in fits)
    return _mean(graph, graph.op("Min", *distances))


def _squared_distance(graph: Graph, rows: Tensor, fit: GaussianFit) -> Tensor:
    """Compute the same distance as `residuals.squared_distance`.

    ONNX has no triangular solve, so a matrix is inverted here, and nowhere else.
    The Cholesky factor is inverted, in float64, rather than the covariance, because the
    condition number of the covariance is the square of the factor's.
    """
    factor = np.asarray(fit.factor, np.float64)
    inverse = solve_triangular(factor, np.eye(len(factor)), lower=True)
    centred = graph.op("Sub", rows, np.asarray(fit.location))
    whitened = graph.op("MatMul", centred, inverse.T)
    return graph.op("ReduceSumSquare", whitened, axes=[1], keepdims=0)


def _statistic(
    graph: Graph, config: Config, name: str, log_mel: Tensor, output: Output
) -> Tensor:
    """Compute the named statistic of a clip; see `data.statistics`.

    Raises:
        ValueError: this module has no nodes for the statistic.
    """
    if name == "spectrum":
        level = graph.op("ReduceMean", log_mel, keepdims=0)
        return _moments(graph, graph.op("Sub", log_mel, level))
    if name == "latent":
        mean = _mean_of_rows(graph, output.code)
        deviation = _deviation(graph, graph.op("Sub", output.code, mean))
        return graph.op("Concat", mean, deviation, axis=0)
    if name == "gamma":
        mean, power = _mean_of_rows(graph, log_mel), _log_mean_power(graph, log_mel)
        level = graph.op("ReduceMean", log_mel, keepdims=0)
        parts = graph.op("Sub", power, level), graph.op("Sub", power, mean)
        return graph.op("Concat", *parts, axis=0)
    if name == "maximum":
        return _shape(graph, graph.op("ReduceMax", log_mel, axes=[0], keepdims=0))
    if name == "salient":
        return _salient(graph, log_mel)
    n_mels, n_rows = config.features.n_mels, rows_in_window(config)
    if name == "residual":
        residual = _frame_residual(graph, output.residual, n_mels, n_rows)
        moments = _moments(graph, residual)
        return graph.op("Concat", moments, _upper_quantile(graph, residual), axis=0)
    if name == "peak":
        difference = _frame_residual(graph, output.difference, n_mels, n_rows)
        return _log_mean_power(graph, difference)
    raise ValueError(f"no nodes for the statistic {name!r}")


def _log_mean_power(graph: Graph, values: Tensor) -> Tensor:
    """Compute the mean power of each band, in dB; see `statistics.peak`."""
    nepers = graph.op("Div", values, DB_OF_E)
    total = graph.op("ReduceLogSumExp", nepers, axes=[0], keepdims=0)
    count = graph.op("Log", graph.float_length(values))
    return graph.op("Mul", graph.op("Sub", total, count), DB_OF_E)


def _shape(graph: Graph, spectrum: Tensor) -> Tensor:
    """Subtract the mean over bands from a spectrum."""
    return graph.op("Sub", spectrum, graph.op("ReduceMean", spectrum, keepdims=0))


def _salient(graph: Graph, log_mel: Tensor) -> Tensor:
    """Compute the same statistic as `statistics.salient`."""
    centred = graph.op("Sub", log_mel, _mean_of_rows(graph, log_mel))
    distance = graph.op("ReduceL2", centred, axes=[1], keepdims=1)
    largest = graph.op("Max", graph.op("ReduceMax", distance, keepdims=0), 1e-12)
    relative = graph.op("Div", distance, largest)
    half = graph.op("Div", graph.op("Add", relative, 1.0), 2.0)
    weight = graph.op("Pow", half, SALIENCE)
    total = graph.op("ReduceSum", graph.op("Mul", weight, log_mel), [0], keepdims=0)
    mean = graph.op("Div", total, graph.op("ReduceSum", weight, keepdims=0))
    return _shape(graph, mean)


def _nearest(
    graph: Graph, statistic: Tensor, reference: Reference, rule: str
) -> Tensor:
    """Compute the distance to the nearest reference clip under the given rule.

    See `neighbours.distances`.
    """
    centred = graph.op("Sub", statistic, np.asarray(reference.location))
    point = graph.op("Div", centred, np.asarray(reference.scale))
    clips = np.asarray(reference.clips[reference.is_clip])
    distance = graph.op("ReduceL2", graph.op("Sub", clips, point), axes=[1], keepdims=0)
    if rule != "neighbour":
        divided_by = np.asarray(divisor(reference, rule))[reference.is_clip]
        distance = graph.op("Div", distance, divided_by)
    return graph.op("ReduceMin", distance, keepdims=0)
