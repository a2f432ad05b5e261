"""Folders with recordings of noise, or with empty files."""

from pathlib import Path

import numpy as np
import soundfile


def write_machine(folder: Path, **shapes) -> None:
    """Write a normal clip of each shape to each split, such as `train=[4000]`."""
    rng = np.random.default_rng(0)
    for split, of_clips in shapes.items():
        (folder / split).mkdir(parents=True)
        for number, shape in enumerate(of_clips):
            name = f"section_00_source_{split}_normal_{number:04}.wav"
            soundfile.write(folder / split / name, 0.1 * rng.normal(size=shape), 16000)


def noise(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Return quiet white noise as float32."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (round(seconds * rate),)).astype(np.float32)


def fill(root: Path, *names: str) -> Path:
    """Create empty files, with their folders, and return `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root
