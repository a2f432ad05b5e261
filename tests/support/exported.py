"""Small trained detectors, and the outputs of their exported files."""

from typing import NamedTuple

import numpy as np
from support.detectors import Fitted, fitted
from support.probes import clips

from gammavae_jax.config import Config, FeatureConfig
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.features import log_mel, mel_filterbank, samples_needed
from gammavae_jax.export.checked_files import onnx_session
from gammavae_jax.export.machine import MachineDetector, narrowed, of_machine
from gammavae_jax.export.onnx_file import onnx_model, to_bytes
from gammavae_jax.scoring.detector import Detector

N_CLIPS = (14, 10)  # of the machines "mixed", which has target clips, and "source"


class Answer(NamedTuple):
    """The outputs of an exported file for one wave."""

    score: float
    p_value: float
    threshold: float
    is_anomaly: bool


def wave(rng, n_samples, tone=0.0) -> np.ndarray:
    """Return noise at a random level, with a tone."""
    level = 10 ** rng.uniform(-2, -1)
    phase = 2 * np.pi * 0.11 * np.arange(n_samples)
    sound = rng.standard_normal(n_samples) + tone * np.sin(phase)
    return (level * sound).astype(np.float32)


def training_waves(config: FeatureConfig):
    """Return clips of different lengths for each machine."""
    rng = np.random.default_rng(1)
    extra = 12 * config.hop_length
    return [
        [
            wave(rng, samples_needed(config) + int(n))
            for n in rng.integers(0, extra, count)
        ]
        for count in N_CLIPS
    ]


def of_waves(waves, config: FeatureConfig, **kwargs) -> Clips:
    bank = mel_filterbank(config)
    return clips([log_mel(sound, bank, config) for sound in waves], **kwargs)


def trained(config: Config, epochs: int, change=lambda state: state) -> Fitted:
    mixed, source = training_waves(config.features)
    machines = [
        ("mixed", of_waves(mixed, config.features, n_target=4)),
        ("source", of_waves(source, config.features)),
    ]
    return fitted(config, machines, epochs, change)


def part(
    detector: Detector, score: str | None = None, machine: int = 0, seed=None
) -> MachineDetector:
    return of_machine(narrowed(detector, seed=seed, score=score), machine)


def onnx_bytes(detector: Detector, *args, **kwargs) -> bytes:
    return to_bytes(onnx_model(part(detector, *args, **kwargs)))


def answers(content: bytes, waves) -> list[Answer]:
    session = onnx_session(content)
    return [Answer(*session.run(list(Answer._fields), {"wave": w})) for w in waves]
