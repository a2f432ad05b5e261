"""The presets: named configurations."""

from typing import Any

from gammavae_jax.config import (
    OFFICIAL_SCORES,
    Config,
    ModelConfig,
    ScoringConfig,
    TrainConfig,
)
from gammavae_jax.errors import InputError, unknown_name

_DENSITIES = ("spectrum_density", "residual_density", "peak_density")
_AUTOENCODER = ModelConfig(latent="deterministic")
_GAMMAVAE = ModelConfig(sampler="built_in")


def _single(name: str, score: str, model: ModelConfig, **train: Any) -> Config:
    """Return a preset that trains one model per machine and seed for 100 epochs."""
    settings = TrainConfig(epochs=100, split="clip", **train)
    return Config(name, score, OFFICIAL_SCORES, model=model, train=settings)


PRESETS: dict[str, Config] = {
    # The best settings that we measured: see docs/method.md and experiments/README.md.
    "default": Config(model=_GAMMAVAE),
    # The GammaVAE, with its residuals compared to those of the training clips.
    "gammavae": Config(
        preset="gammavae",
        score="fusion_mean",
        scores=("fusion_mean", *_DENSITIES, *OFFICIAL_SCORES),
        model=_GAMMAVAE,
        scoring=ScoringConfig(fused=_DENSITIES),
    ),
    # Exactly Table 1 of the report. The report states neither the prior nor the weight
    # of the KL divergence; the values here are the most obvious choices.
    "paper": _single(
        "paper", "mahalanobis", ModelConfig(heads="softmax"), kl_weight=1.0
    ),
    "autoencoder": _single("autoencoder", "mse", _AUTOENCODER, kl_weight=0.0),
    # The same computation as in the official code, with the same split and threshold.
    "official": Config(
        preset="official",
        score="mahalanobis",
        scores=("mse", "mahalanobis"),
        model=_AUTOENCODER,
        train=TrainConfig(epochs=100, split="window", kl_weight=0.0),
        scoring=ScoringConfig(threshold="official"),
    ),
    "vae": _single("vae", "mse", ModelConfig(latent="gaussian")),
}


def preset(name: str) -> Config:
    """Return the configuration of a preset.

    Raises:
        InputError: the preset is unknown.
    """
    if name not in PRESETS:
        raise InputError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]
