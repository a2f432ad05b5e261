"""The named configurations."""

from gammavae_jax.config import (
    Config,
    ModelConfig,
    ScoringConfig,
    TrainConfig,
    unknown_name,
)
from gammavae_jax.errors import InputError

PRESETS: dict[str, Config] = {
    "default": Config(),
    # The report's Table 1 to the letter. It does not state its prior and its weight of
    # the KL divergence: these are the plainest readings.
    "paper": Config(
        preset="paper",
        score="mahalanobis",
        model=ModelConfig(heads="softmax"),
        train=TrainConfig(kl_weight=1.0),
    ),
    "autoencoder": Config(
        preset="autoencoder",
        model=ModelConfig(latent="deterministic"),
        train=TrainConfig(kl_weight=0.0),
    ),
    # What the official code computes, its split and its threshold too.
    "official": Config(
        preset="official",
        model=ModelConfig(latent="deterministic"),
        train=TrainConfig(kl_weight=0.0, split="window"),
        scoring=ScoringConfig(threshold="official"),
        score="mahalanobis",
        scores=("mse", "mahalanobis"),
    ),
    "vae": Config(preset="vae", model=ModelConfig(latent="gaussian")),
}


def preset(name: str) -> Config:
    """The named configuration.

    Raises:
        InputError: no preset has that name.
    """
    if name not in PRESETS:
        raise InputError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]
