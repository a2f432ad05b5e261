"""What a clip is like as a whole, as ONNX nodes; see `clip_statistics`.

There is no padding here, and so no weight: every row counts.
"""

import math

from gammavae_jax.data.statistics import UPPER_QUANTILE
from gammavae_jax.export.graph import Graph, Tensor

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
    mean = _mean(graph, code)
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
    mean = _mean(graph, values)
    change = graph.op("Sub", graph.rows(values, 1, None), graph.rows(values, 0, -1))
    of_values, of_change = (
        _deviation(graph, graph.op("Sub", x, _mean(graph, x))) for x in (values, change)
    )
    return graph.op("Concat", mean, of_values, of_change, axis=0)


def _mean(graph: Graph, values: Tensor) -> Tensor:
    """The mean over rows; 0 of no rows, which is how a single frame changes."""
    count = graph.op("Max", graph.float_length(values), 1.0)
    return graph.op("Div", graph.op("ReduceSum", values, [0], keepdims=0), count)


def _deviation(graph: Graph, centred: Tensor) -> Tensor:
    return graph.op("Sqrt", _mean(graph, graph.op("Mul", centred, centred)))


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
