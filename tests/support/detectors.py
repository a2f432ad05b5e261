"""Detectors trained on probe machines."""

from typing import Any, NamedTuple

import jax
import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import override
from gammavae_jax.data.arrays import TrainingArrays, stack_clips, stack_machines
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.devices.placement import Placement
from gammavae_jax.presets import preset
from gammavae_jax.scoring.detector import Detector, compile_scores, fit_scores
from gammavae_jax.training.epoch import make_trainer
from gammavae_jax.training.split import Split, split_windows

SMALL = [
    "model.hidden=[32]",
    "model.n_latent=4",
    "train.batch_size=32",
    "train.n_folds=2",
    "train.learning_rate=0.01",
]


class Fitted(NamedTuple):
    """A detector, and everything that was used to fit it."""

    detector: Detector
    placement: Placement
    arrays: TrainingArrays
    split: Split
    state: Any

    def scores(self, *test: Clips) -> dict[str, np.ndarray]:
        """Return the scores of test clips, one set for each machine."""
        n_context = self.detector.config.features.n_context
        arrays = stack_clips(test, n_context)
        return compile_scores(self.detector, self.placement, arrays)()


def small(name: str, *assignments: str) -> Config:
    """Return a preset with a small model."""
    return override(preset(name), [*SMALL, *assignments])


def fitted(
    config: Config,
    machines,
    epochs: int,
    change=lambda state: state,
    attributes=None,
) -> Fitted:
    """Train for some epochs, apply `change` to the state on the host, and fit."""
    arrays = stack_machines(machines, config.features.n_context)
    split = split_windows(arrays, config, attributes=attributes)
    n_windows = (split.window_use[0] > 0).sum(-1).tolist()
    placement = make_placement(n_windows, config.n_members, jax.devices()[:1])
    trainer = make_trainer(config, placement, arrays, split.window_use)
    state = trainer.initial
    for epoch in range(1, epochs + 1):
        state, _ = trainer.epoch(epoch, state)
    state = change(placement.get(state))
    detector = fit_scores(
        config,
        placement,
        [(name, "00") for name, _ in machines],
        mel_filterbank(config.features),
        placement.put(state, "model"),
        arrays,
        split,
    )
    return Fitted(detector, placement, arrays, split, state)
