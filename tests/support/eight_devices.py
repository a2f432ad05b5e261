"""Trains on one, two, four and eight devices; a program that tests start.

Each argument is a number of machines. For each number of devices, the program prints
the largest relative difference of a parameter from training on one device, as JSON.
"""

import json
import sys
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from support.probes import crowd

from gammavae_jax.config_json import override
from gammavae_jax.data.arrays import stack_machines
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.devices.placement import Placement
from gammavae_jax.presets import preset
from gammavae_jax.training.epoch import make_trainer
from gammavae_jax.training.split import split_windows

CONFIG = override(
    preset("default"),
    ["model.hidden=[16]", "model.n_latent=4", "train.batch_size=32", "train.n_folds=3"],
)


def train(placement: Placement, arrays, window_use) -> list[np.ndarray]:
    trainer = make_trainer(CONFIG, placement, arrays, window_use)
    state: Any = trainer.initial
    for epoch in (1, 2):
        state, _ = trainer.epoch(epoch, state)
    return jax.tree.leaves(placement.get(state).params)


def differences(n_machines: int) -> dict[str, float]:
    machines = crowd(np.random.default_rng(0), [5, 8, 6, 9, 7][:n_machines])
    arrays = stack_machines(machines, CONFIG.features.n_context)
    window_use = split_windows(arrays, CONFIG).window_use
    work = (window_use[0] > 0).sum(-1).tolist()

    def placement(n_devices: int, batching: Any) -> Placement:
        return make_placement(
            work, CONFIG.n_members, jax.devices()[:n_devices], batching
        )

    expected = train(placement(1, "map"), arrays, window_use)
    largest = {}
    for n_devices in (1, 2, 4, 8):
        mesh: Any = placement(n_devices, "vmap")
        ours = train(replace(mesh, batching="map"), arrays, window_use)
        largest[str(n_devices)] = max(
            float(np.max(np.abs(a - b) / (np.abs(b) + 1e-6)))
            for a, b in zip(ours, expected, strict=True)
        )
    return largest


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    print(json.dumps([differences(int(n)) for n in sys.argv[1:]]))
