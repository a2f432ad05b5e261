"""Weights of the official PyTorch autoencoder, into our variables and back.

A PyTorch state is a mapping from its own names (`encoder.0.weight`) to arrays, as
`numpy.load` gives it for an `.npz`; PyTorch itself is not needed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gammavae_jax.config import ModelConfig
from gammavae_jax.errors import InputError

# Ours and theirs, in a linear layer and in a batch normalisation.
_DENSE = {"kernel": "weight", "bias": "bias"}
_SCALE = {"scale": "weight", "bias": "bias"}
_STATISTICS = {"mean": "running_mean", "var": "running_var"}


def from_pytorch(
    state: Mapping[str, np.ndarray], config: ModelConfig
) -> dict[str, Any]:
    """Our `params` and `batch_stats` from a PyTorch state.

    Raises:
        InputError: a weight is missing.
    """
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for collection, path, ours, name in _names(config):
        if name not in state:
            raise InputError(
                f"the PyTorch state has no {name!r}: is it the baseline's?"
            )
        branch = variables[collection]
        for key in path:
            branch = branch.setdefault(key, {})
        branch[ours] = _turned(np.asarray(state[name]), path, ours)
    return variables


def to_pytorch(
    variables: Mapping[str, Any], config: ModelConfig
) -> dict[str, np.ndarray]:
    """The PyTorch state of our `params` and `batch_stats`."""
    state = {}
    for collection, path, ours, name in _names(config):
        branch = variables[collection]
        for key in path:
            branch = branch[key]
        state[name] = _turned(np.asarray(branch[ours]), path, ours)
    return state


def _turned(value: np.ndarray, path: tuple[str, ...], ours: str) -> np.ndarray:
    """An array with its axes as the other side has them: only one differs."""
    return value.T if (path[-1], ours) == ("Output_0", "kernel") else value


def _names(config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...], str, str]]:
    """Collection, path and name of each of our arrays, and PyTorch's name for it.

    PyTorch counts linear layer, batch normalisation and ReLU as three.
    """
    depth = len(config.hidden)
    blocks: dict[str, tuple[str, ...]] = {f"encoder.{3 * depth}": ("Block_0",)}
    for i in range(depth):
        blocks[f"encoder.{3 * i}"] = ("Encoder_0", f"Block_{i}")
        blocks[f"decoder.{3 * i}"] = ("Decoder_0", f"Block_{i}")
    for linear, path in blocks.items():
        half, number = linear.split(".")
        norm = f"{half}.{int(number) + 1}"
        for ours, theirs in _DENSE.items():
            yield "params", (*path, "Dense_0"), ours, f"{linear}.{theirs}"
        for ours, theirs in _SCALE.items():
            yield "params", (*path, "BatchNorm_0"), ours, f"{norm}.{theirs}"
        for ours, theirs in _STATISTICS.items():
            yield "batch_stats", (*path, "BatchNorm_0"), ours, f"{norm}.{theirs}"
    for ours, theirs in _DENSE.items():
        last = f"decoder.{3 * depth}.{theirs}"
        yield "params", ("Decoder_0", "Output_0"), ours, last
