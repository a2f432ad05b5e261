"""Machines with known properties, as log-mels without audio or files."""

from pathlib import Path

import numpy as np

from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import clip_file


def clips(log_mels, n_target=0, split="train", labels=None) -> Clips:
    """Return clips with these log-mels; the last `n_target` are target clips."""
    labels = labels or ["normal"] * len(log_mels)
    files = []
    for i, label in enumerate(labels):
        domain = "target" if i >= len(log_mels) - n_target else "source"
        name = f"section_00_{domain}_{split}_{label}_{i:04d}.wav"
        files.append(clip_file(Path(name)))
    return Clips(tuple(files), tuple(np.asarray(x, np.float32) for x in log_mels))


def noise(rng, n_clips, n_frames: int | np.ndarray = 20, n_mels=128):
    """Return clips with a steady spectrum plus noise of 3 dB."""
    spectrum = -60 + 10 * np.sin(np.arange(n_mels) / 7)
    lengths = np.broadcast_to(n_frames, n_clips)
    return [spectrum + 3 * rng.standard_normal((n, n_mels)) for n in lengths]


def tone(rng, n_clips, band, gain, **kwargs):
    """Return clips like those of `noise`, with `gain` dB added to one mel band."""
    spectra = noise(rng, n_clips, **kwargs)
    for spectrum in spectra:
        spectrum[:, band] += gain
    return spectra


def crowd(rng, counts=(12, 30, 7)):
    """Return machines with different numbers of clips, of different lengths."""
    return [
        (
            f"m{m}_section_00",
            clips(noise(rng, n, rng.integers(8, 20, n)), n_target=n // 5),
        )
        for m, n in enumerate(counts)
    ]
