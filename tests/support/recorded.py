"""Folders of machines with recordings of noise."""

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
