"""Our side of the training benchmark: epochs of all machines and seeds."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from benchmarks.compile_clock import CompileClock
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
from gammavae_jax.devices.deal import make_placement
from gammavae_jax.presets import preset
from gammavae_jax.training.epoch import make_trainer

PRESET_OF_MODEL = {"autoencoder": "autoencoder", "gammavae": "default"}


def configuration(model: str, seeds: int, batch_size: int) -> Config:
    """Return a model's preset, with one model per seed and the official scores."""
    config = preset(PRESET_OF_MODEL[model])
    return replace(
        config,
        score="mse",
        scores=OFFICIAL_SCORES,
        n_seeds=seeds,
        train=replace(config.train, batch_size=batch_size, split="clip"),
    )


def prepare(
    model: str,
    machines: int,
    seeds: int,
    batch_size: int,
    clips: int,
    frames: int,
    epochs: int,
    batching: Literal["auto", "vmap", "map"],
) -> Prepared:
    """Stack, place and compile like the main job, and train on every window.

    A repetition is `epochs` epochs. As in real training, machines that have finished
    an epoch continue with the next one.
    """
    clock = CompileClock()
    config = configuration(model, seeds, batch_size)
    arrays = synthetic_machines(machines, clips, frames)
    log_mel_bytes = 4 * N_MELS * int(arrays.clips.n_frames.sum())
    group = np.full((seeds, *arrays.window_start.shape), TRAIN, np.uint8)
    windows = arrays.window_start.shape[-1]
    placement = make_placement([windows] * machines, seeds, batching=batching)
    placed = placement.put(arrays, "machine")
    del arrays
    trainer = make_trainer(config, placement, placed, group)
    state, epoch = trainer.initial, 0
    placement.wait(state)

    def repeat() -> None:
        nonlocal state, epoch
        for _ in range(epochs):
            epoch += 1
            state, _ = trainer.epoch(epoch, state)
        placement.wait(state)

    def finish() -> dict[str, Any]:
        # A stopped model takes no time.
        if np.any(placement.get(state).is_stopped):
            raise RuntimeError("a model diverged: nothing was measured")
        return {
            "device_peak_bytes": device_peak_bytes(),
            "flops_per_window": {
                "formula": flops_by_formula(config),
                "cost_analysis": flops_by_compiler(config),
            },
        }

    facts = {
        **clock.facts(),
        "device_bytes": device_bytes(),
        "log_mel_bytes": log_mel_bytes,
        "batching": placement.batching,
        "epochs": epochs,
    }
    work = float(epochs * seeds * machines * windows)
    return Prepared(repeat, work, facts, finish)
