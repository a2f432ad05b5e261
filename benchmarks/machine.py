"""Describes the computer and counts a model's FLOPs and memory."""

import importlib.metadata
import itertools
import os
import platform
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.matmul import has_torch
from gammavae_jax.config import Config
from gammavae_jax.presets import preset
from gammavae_jax.process import available_cores
from gammavae_jax.runs.result_files import describe_environment
from gammavae_jax.training.step import init_state, train_step


def describe() -> dict[str, Any]:
    """Describe the computer as the package does; add other facts that affect times."""
    return {
        **describe_environment(preset("default").model.sampler),
        "torch": _torch_version(),
        "processor": _processor(),
        "cores": available_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average_before": os.getloadavg()[0],
    }


def flops_by_formula(config: Config) -> float:
    """Return how many multiplications and additions a training step takes per window.

    Only the dense layers count: the forward pass, and the gradients with respect to
    weights and inputs, except for the first layer's input.
    """
    model, n_features = config.model, config.features.n_features
    n_heads = 1 if model.latent == "deterministic" else 2
    weights = (
        _weights(n_features, *model.hidden)
        + n_heads * _weights(model.hidden[-1], model.n_latent)
        + _weights(model.n_latent, *model.hidden, n_features)
    )
    return 2.0 * (3 * weights - _weights(n_features, model.hidden[0]))


def flops_by_compiler(config: Config) -> float | None:
    """Return XLA's FLOP count for a compiled step of one machine, per window.

    None if the device does not report it.
    """
    size, key = config.train.batch_size, jax.random.key(0)
    windows = jnp.zeros((size, config.features.n_features))
    step = jax.jit(lambda *arguments: train_step(config, *arguments))
    arguments = key, init_state(config, key), windows, jnp.ones(size)
    analysis = step.lower(*arguments).compile().cost_analysis() or {}
    return analysis["flops"] / size if "flops" in analysis else None


def device_bytes() -> int:
    """Return the bytes of all arrays on this process's devices, including copies."""
    shards = (s for array in jax.live_arrays() for s in array.addressable_shards)
    return sum(shard.data.nbytes for shard in shards)


def device_peak_bytes() -> int | None:
    """Return the peak memory of all devices, or None if they do not report it."""
    stats: Iterable[Any] = [device.memory_stats() for device in jax.local_devices()]
    peaks = [s.get("peak_bytes_in_use") for s in stats if s]
    return sum(peaks) if peaks and None not in peaks else None


def _weights(*widths: int) -> int:
    return sum(a * b for a, b in itertools.pairwise(widths))


def _torch_version() -> str | None:
    if not has_torch():
        return None
    return importlib.metadata.version("torch")


def _processor() -> str:
    """Return the name of the CPU if the system reports it, or else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line for line in file if line.startswith("model name")]
        return names[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return platform.machine()
