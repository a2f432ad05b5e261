"""What an export is tried on: built-in sounds, or the test clips of a data root."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from gammavae_jax.data.arrays import is_anomaly
from gammavae_jax.data.clips import clip_waveform
from gammavae_jax.data.loading import Job, find_all
from gammavae_jax.errors import InputError
from gammavae_jax.export.machine_detector import MachineDetector
from gammavae_jax.log import Log
from gammavae_jax.scoring.detector import Detector

N_SOUNDS = 24  # that are built in
_SECONDS = 3.0  # of the longest, beyond the shortest length there can be


class Sounds(NamedTuple):
    """Waves, and whether each is of an anomaly; None where that is not known."""

    waves: list[Float32[np.ndarray, "_"]]
    is_anomaly: Bool[np.ndarray, "clip"] | None


def recorded(detector: Detector, data_root: Path, log: Log) -> list[Sounds]:
    """The test clips of each machine of a detector.

    Raises:
        InputError: a machine has none, or a recording cannot be used.
    """
    machines = tuple(dict.fromkeys(machine for machine, _ in detector.machines))
    job = Job(data_root, machines, out=Path())
    found = {(f.machine, f.section): f.test for f in find_all(job, ["test"])}
    for machine, section in detector.machines:
        if (machine, section) not in found:
            raise InputError(
                f"the checkpoint's {machine} section {section} is not in "
                f"{str(data_root)!r}: give the data that it was trained for"
            )
    files = [found[machine] for machine in detector.machines]
    made = []
    with log.progress("test clips", sum(map(len, files))) as advance:
        for of_machine in files:
            waves = []
            for file in of_machine:
                waves.append(clip_waveform(file.path, detector.config.features))
                advance()
            made.append(Sounds(waves, is_anomaly(of_machine)))
    return made


def built_in(detector: MachineDetector) -> Sounds:
    """Coloured noise with tones and knocks, and silence; the first is the shortest.

    Lengths go from `min_samples` up; few of them are multiples of the hop.
    """
    rng = np.random.default_rng(0)
    sample_rate = detector.config.features.sample_rate
    step = _SECONDS * sample_rate / (N_SOUNDS - 1)
    lengths = [detector.min_samples + round(step * place) for place in range(N_SOUNDS)]
    waves = [_sound(rng, length, sample_rate) for length in lengths]
    waves[N_SOUNDS // 2] = np.zeros_like(waves[N_SOUNDS // 2])
    return Sounds(waves, None)


def _sound(
    rng: np.random.Generator, n_samples: int, sample_rate: int
) -> Float32[np.ndarray, "sample"]:
    """Noise with a slope and a level of its own, a tone in it, and a knock."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    slope = np.arange(1, len(spectrum) + 1) ** -rng.uniform(0.0, 1.0)
    noise = np.fft.irfft(spectrum * slope, n_samples)
    noise /= np.sqrt(np.mean(noise**2))
    phase = 2 * np.pi * rng.uniform(0.01, 0.4) * np.arange(n_samples)
    tone = rng.uniform(0.0, 2.0) * np.sin(phase)
    since = np.arange(n_samples) - rng.integers(n_samples)
    knock = 5.0 * np.exp(-np.maximum(since, 0) / (0.01 * sample_rate)) * (since >= 0)
    level = 10.0 ** rng.uniform(-3.0, -1.0)
    return (level * (noise * (1.0 + knock) + tone)).astype(np.float32)
