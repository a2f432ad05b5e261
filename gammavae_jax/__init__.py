"""Anomalous sound detection for machines with a Gamma variational autoencoder."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector as AnomalyDetector
    from gammavae_jax.data.loading import load_machines as load_machines
    from gammavae_jax.evaluation.metrics import evaluate_scores as evaluate_scores
    from gammavae_jax.scoring.detector import fit_detector as fit_detector
    from gammavae_jax.scoring.detector import score_clips as score_clips
    from gammavae_jax.training.loop import train_machines as train_machines

# Imported when asked for: JAX takes seconds, and `--help` needs none of it.
_HOMES = {
    "AnomalyDetector": "anomaly_detector",
    "evaluate_scores": "evaluation.metrics",
    "fit_detector": "scoring.detector",
    "load_machines": "data.loading",
    "score_clips": "scoring.detector",
    "train_machines": "training.loop",
}

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(home, name)
