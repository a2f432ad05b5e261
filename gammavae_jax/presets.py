"""The named configurations."""

from gammavae_jax.config import (
    OFFICIAL_SCORES,
    Config,
    ModelConfig,
    ScoringConfig,
    TrainConfig,
)
from gammavae_jax.errors import InputError, unknown_name

PRESETS: dict[str, Config] = {
    # What measured best: see docs/method.md and experiments/README.md.
    "default": Config(),
    # The report's Table 1 to the letter. It does not state its prior and its weight of
    # the KL divergence: these are the plainest readings.
    "paper": Config(
        preset="paper",
        score="mahalanobis",
        scores=OFFICIAL_SCORES,
        model=ModelConfig(heads="softmax"),
        train=TrainConfig(epochs=100, split="clip", kl_weight=1.0),
    ),
    "autoencoder": Config(
        preset="autoencoder",
        score="mse",
        scores=OFFICIAL_SCORES,
        model=ModelConfig(latent="deterministic"),
        train=TrainConfig(epochs=100, split="clip", kl_weight=0.0),
    ),
    # What the official code computes, its split and its threshold too.
    "official": Config(
        preset="official",
        score="mahalanobis",
        scores=("mse", "mahalanobis"),
        model=ModelConfig(latent="deterministic"),
        train=TrainConfig(epochs=100, split="window", kl_weight=0.0),
        scoring=ScoringConfig(threshold="official"),
    ),
    "vae": Config(
        preset="vae",
        score="mse",
        scores=OFFICIAL_SCORES,
        model=ModelConfig(latent="gaussian"),
        train=TrainConfig(epochs=100, split="clip"),
    ),
}


def preset(name: str) -> Config:
    """The named configuration.

    Raises:
        InputError: no preset has that name.
    """
    if name not in PRESETS:
        raise InputError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]
