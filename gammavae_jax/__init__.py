"""Detects anomalous machine sounds with a Gamma variational autoencoder."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gammavae_jax.anomaly_detector import AnomalyDetector as AnomalyDetector
    from gammavae_jax.config import Config as Config
    from gammavae_jax.data.loading import load_machines as load_machines
    from gammavae_jax.errors import InputError as InputError
    from gammavae_jax.evaluation.tables import evaluate_scores as evaluate_scores
    from gammavae_jax.presets import preset as preset
    from gammavae_jax.runs.checkpoint import load_detector as load_detector
    from gammavae_jax.runs.checkpoint import save_detector as save_detector
    from gammavae_jax.scoring.fit import fit_detector as fit_detector
    from gammavae_jax.scoring.scored_clips import score_clips as score_clips
    from gammavae_jax.training.loop import train_machines as train_machines

# The module that defines each exported name. It is imported only when the name is
# first used, because importing JAX takes seconds and `--help` does not need it.
_HOMES = {
    "AnomalyDetector": "anomaly_detector",
    "Config": "config",
    "InputError": "errors",
    "evaluate_scores": "evaluation.tables",
    "fit_detector": "scoring.fit",
    "load_detector": "runs.checkpoint",
    "load_machines": "data.loading",
    "preset": "presets",
    "save_detector": "runs.checkpoint",
    "score_clips": "scoring.scored_clips",
    "train_machines": "training.loop",
}

__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("gammavae-jax")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
