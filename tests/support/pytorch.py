"""Weights of the official PyTorch autoencoder, converted to our variables and back.

A PyTorch state maps PyTorch's names (`encoder.0.weight`) to arrays, like the result of
`numpy.load` for an `.npz` file. PyTorch itself is not needed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gammavae_jax.config import Config, ModelConfig
from gammavae_jax.models import layers
from gammavae_jax.presets import preset

# Our names and PyTorch's names in a linear layer and in batch normalisation.
_DENSE = {"kernel": "weight", "bias": "bias"}
_SCALE = {"scale": "weight", "bias": "bias"}
_STATISTICS = {"mean": "running_mean", "var": "running_var"}


def official_start(golden: Path) -> tuple[Mapping[str, Any], Config, dict[str, Any]]:
    """Return the official code's numbers, our configuration, and the first weights."""
    stored, config = np.load(golden / "autoencoder.npz"), preset("autoencoder")
    weights = {name.removeprefix("init/"): stored[name] for name in stored.files}
    return stored, config, from_pytorch(weights, config.model)


def from_pytorch(
    state: Mapping[str, np.ndarray], config: ModelConfig
) -> dict[str, Any]:
    """Convert a PyTorch state to our `params` and `batch_stats`."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for collection, path, ours, name in _names(config):
        branch = variables[collection]
        for key in path:
            branch = branch.setdefault(key, {})
        branch[ours] = _transposed(np.asarray(state[name]), path, ours)
    return variables


def to_pytorch(
    variables: Mapping[str, Any], config: ModelConfig
) -> dict[str, np.ndarray]:
    """Convert our `params` and `batch_stats` to a PyTorch state."""
    state = {}
    for collection, path, ours, name in _names(config):
        branch = variables[collection]
        for key in path:
            branch = branch[key]
        state[name] = _transposed(np.asarray(branch[ours]), path, ours)
    return state


def _transposed(value: np.ndarray, path: tuple[str, ...], ours: str) -> np.ndarray:
    """Transpose the kernel of the output layer, the only array whose axes differ."""
    return value.T if (path[-1], ours) == (layers.OUTPUT, "kernel") else value


def _names(config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...], str, str]]:
    """Yield collection, path and name of each of our arrays, and PyTorch's name.

    PyTorch numbers linear layer, batch normalisation and ReLU as three layers.
    """
    depth = len(config.hidden)
    blocks: dict[str, tuple[str, ...]] = {f"encoder.{3 * depth}": (layers.CODE,)}
    for i in range(depth):
        blocks[f"encoder.{3 * i}"] = (layers.ENCODER, layers.BLOCK.format(i))
        blocks[f"decoder.{3 * i}"] = (layers.DECODER, layers.BLOCK.format(i))
    for linear, path in blocks.items():
        half, number = linear.split(".")
        norm = f"{half}.{int(number) + 1}"
        for ours, theirs in _DENSE.items():
            yield "params", (*path, layers.DENSE), ours, f"{linear}.{theirs}"
        for ours, theirs in _SCALE.items():
            yield "params", (*path, layers.BATCH_NORM), ours, f"{norm}.{theirs}"
        for ours, theirs in _STATISTICS.items():
            yield "batch_stats", (*path, layers.BATCH_NORM), ours, f"{norm}.{theirs}"
    for ours, theirs in _DENSE.items():
        last = f"decoder.{3 * depth}.{theirs}"
        yield "params", (layers.DECODER, layers.OUTPUT), ours, last
