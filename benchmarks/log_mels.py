"""Synthetic log-mels that every process can generate identically.

Their level and roughness resemble a machine's noise; nothing else is realistic.
"""

from pathlib import Path

import numpy as np

from gammavae_jax.data.arrays import TrainingArrays, stack_machines
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import ClipFile
from gammavae_jax.data.names import parse_clip_name

N_MELS, N_CONTEXT = 128, 5
SAMPLE_RATE, SECONDS = 16000, 10  # the challenge's clips
N_FRAMES = 1 + SAMPLE_RATE * SECONDS // 512
_TARGET_EVERY = 10  # one clip in ten is from the target domain


def synthetic_log_mels(machine: int, n_clips: int, n_frames: int) -> np.ndarray:
    """Return a machine's clips in dB, as an array `clip frame mel`."""
    rng = np.random.default_rng(machine)
    log_mels = rng.standard_normal((n_clips, n_frames, N_MELS), dtype=np.float32)
    log_mels *= np.float32(4.0)
    falling = np.linspace(-20.0, -50.0, N_MELS) + 3.0 * rng.standard_normal(N_MELS)
    log_mels += falling.astype(np.float32)
    return log_mels


def window_starts(n_clips: int, n_frames: int) -> np.ndarray:
    """Return the first frame of each window, as `clip * n_frames + frame`."""
    first = np.arange(n_clips)[:, None] * n_frames
    return (first + np.arange(n_frames - N_CONTEXT + 1)).ravel()


def synthetic_machines(
    n_machines: int, n_clips: int, n_frames: int, split: str = "train"
) -> TrainingArrays:
    """Return machines in host memory, stacked as the package stacks them."""
    machines = []
    for machine in range(n_machines):
        log_mels = synthetic_log_mels(machine, n_clips, n_frames)
        files = tuple(_file(split, clip) for clip in range(n_clips))
        machines.append((f"machine_{machine}", Clips(files, tuple(log_mels))))
    return stack_machines(machines, N_CONTEXT)


def _file(split: str, clip: int) -> ClipFile:
    domain = "target" if clip % _TARGET_EVERY == _TARGET_EVERY - 1 else "source"
    name = f"section_00_{domain}_{split}_normal_{clip:04d}.wav"
    return ClipFile(Path(name), parse_clip_name(name))
