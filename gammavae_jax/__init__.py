"""Anomalous sound detection for machines with a Gamma variational autoencoder."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector as AnomalyDetector
    from gammavae_jax.config import Config as Config
    from gammavae_jax.data.loading import load_machines as load_machines
    from gammavae_jax.errors import InputError as InputError
    from gammavae_jax.evaluation.evaluate import evaluate_scores as evaluate_scores
    from gammavae_jax.presets import preset as preset
    from gammavae_jax.runs.checkpoint import restore_detector as load_detector
    from gammavae_jax.runs.checkpoint import save_detector as save_detector
    from gammavae_jax.scoring.fit import fit_detector as fit_detector
    from gammavae_jax.scoring.scored_clips import score_clips as score_clips
    from gammavae_jax.training.loop import train_machines as train_machines

# The module and name of each export. They are imported when first used: importing JAX
# takes seconds, and `--help` does not need it.
_EXPORTS = {
    "AnomalyDetector": ("anomaly_detector", "AnomalyDetector"),
    "Config": ("config", "Config"),
    "InputError": ("errors", "InputError"),
    "evaluate_scores": ("evaluation.evaluate", "evaluate_scores"),
    "fit_detector": ("scoring.fit", "fit_detector"),
    "load_detector": ("runs.checkpoint", "restore_detector"),
    "load_machines": ("data.loading", "load_machines"),
    "preset": ("presets", "preset"),
    "save_detector": ("runs.checkpoint", "save_detector"),
    "score_clips": ("scoring.scored_clips", "score_clips"),
    "train_machines": ("training.loop", "train_machines"),
}

__all__ = [*_EXPORTS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
