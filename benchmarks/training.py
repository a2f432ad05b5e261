"""Our side of the training benchmark: epochs of all machines and seeds."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from benchmarks.compile_clock import CompileClock
from benchmarks.grid_cases import Precision
from benchmarks.log_mels import N_MELS, synthetic_machines
from benchmarks.machine import (
    device_bytes,
    device_peak_bytes,
    flops_by_compiler,
    flops_by_formula,
)
from benchmarks.processes import Prepared
from gammavae_jax.config import OFFICIAL_SCORES, Config
from gammavae_jax.data.arrays import TRAIN
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.presets import preset
from gammavae_jax.training.epoch import make_trainer

Batching = Literal["auto", "vmap", "map"]
PRESET_OF_MODEL = {"autoencoder": "autoencoder", "gammavae": "default"}


def configuration(
    model: str, seeds: int, batch_size: int, precision: Precision = "float32"
) -> Config:
    """Return a model's preset, with one model per seed and the official scores."""
    config = preset(PRESET_OF_MODEL[model])
    return replace(
        config,
        score="mse",
        scores=OFFICIAL_SCORES,
        n_seeds=seeds,
        model=replace(config.model, precision=precision),
        train=replace(config.train, batch_size=batch_size, split="clip"),
    )


class Training:
    """All models, stacked, placed and compiled as in `gammavae run`.

    They train on every window of synthetic log-mels.
    """

    def __init__(
        self, config: Config, machines: int, clips: int, frames: int, batching: Batching
    ):
        clock = CompileClock()
        seeds = config.n_members
        arrays = synthetic_machines(machines, clips, frames)
        log_mel_bytes = 4 * N_MELS * int(arrays.clips.n_frames.sum())
        window_use = np.full((seeds, *arrays.window_start.shape), TRAIN, np.uint8)
        windows = arrays.window_start.shape[-1]
        placement = make_placement([windows] * machines, seeds, batching=batching)
        placed = placement.put(arrays, "machine")
        del arrays
        self._placement = placement
        self._trainer = make_trainer(config, placement, placed, window_use)
        self._state, self._epoch = self._trainer.initial, 0
        placement.wait(self._state)
        self.windows_per_epoch = seeds * machines * windows
        self.facts = {
            **clock.facts(),
            "device_bytes": device_bytes(),
            "log_mel_bytes": log_mel_bytes,
            "batching": placement.batching,
        }

    def run(self, epochs: int) -> None:
        """Train for some epochs and wait until all models have finished.

        As in real training, machines that have finished an epoch continue with the next
        one.
        """
        for _ in range(epochs):
            self._epoch += 1
            self._state, _ = self._trainer.epoch(self._epoch, self._state)
        self._placement.wait(self._state)

    def require_finite(self) -> None:
        """Raise an error if a model has diverged: a stopped model takes no time."""
        if np.any(self._placement.get(self._state).is_stopped):
            raise RuntimeError("a model diverged: nothing was measured")


def prepare(
    model: str,
    machines: int,
    seeds: int,
    batch_size: int,
    clips: int,
    frames: int,
    epochs: int,
    batching: Batching,
) -> Prepared:
    """Prepare to train; a repetition is `epochs` epochs."""
    config = configuration(model, seeds, batch_size)
    training = Training(config, machines, clips, frames, batching)

    def finish() -> dict[str, Any]:
        training.require_finite()
        return {
            "device_peak_bytes": device_peak_bytes(),
            "flops_per_window": {
                "formula": flops_by_formula(config),
                "cost_analysis": flops_by_compiler(config),
            },
        }

    work = float(epochs * training.windows_per_epoch)
    facts = {**training.facts, "epochs": epochs}
    return Prepared(lambda: training.run(epochs), work, facts, finish)
