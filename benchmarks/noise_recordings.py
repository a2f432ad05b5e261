"""Writes many recordings of noise quickly, in the challenge's layout.

They are only for measuring time. This module does not import JAX, because each process
that writes recordings imports this module.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from gammavae_jax.process import available_cores

_RATE = 16000
_LEVELS = (0.003, 0.03)  # standard deviations, relative to full scale
_TARGET_EVERY = 10  # one training clip in ten is from the target domain
_TEST_CLIPS = 5  # for each combination of domain and label
_AT_A_TIME = 16  # files that a process writes before it asks for more


def make_recordings(root: Path, machines: int, clips: int, seconds: float) -> None:
    """Write the recordings of all machines, in one process per core.

    Args:
        root: the folder for the machines' folders.
        machines: the number of machines.
        clips: training clips per machine.
        seconds: the length of a clip.
    """
    names = [name for machine in range(machines) for name in _names(machine, clips)]
    for folder in {(root / name).parent for name in names}:
        folder.mkdir(parents=True)
    spawn = multiprocessing.get_context("spawn")
    write = partial(_write, root, seconds)
    with ProcessPoolExecutor(available_cores(), spawn) as pool:
        list(pool.map(write, enumerate(names), chunksize=_AT_A_TIME))


def _names(machine: int, clips: int) -> Iterator[str]:
    folder = f"machine{machine}"
    for index in range(clips):
        is_target = index % _TARGET_EVERY == _TARGET_EVERY - 1
        yield _name(
            folder, "train", "target" if is_target else "source", "normal", index
        )
    for domain in ("source", "target"):
        for label in ("normal", "anomaly"):
            for index in range(_TEST_CLIPS):
                yield _name(folder, "test", domain, label, index)


def _name(folder: str, split: str, domain: str, label: str, index: int) -> str:
    name = f"section_00_{domain}_{split}_{label}_{index:04d}_noAttribute.wav"
    return f"{folder}/{split}/{name}"


def write_noise(path: Path, seconds: float, number: int) -> None:
    """Write a recording of noise, which depends only on the number and the length."""
    rng = np.random.default_rng(number)
    noise = rng.standard_normal(round(seconds * _RATE), dtype=np.float32)
    noise *= np.float32(32767 * rng.uniform(*_LEVELS))
    wavfile.write(path, _RATE, noise.astype(np.int16))


def _write(root: Path, seconds: float, numbered: tuple[int, str]) -> None:
    number, name = numbered
    write_noise(root / name, seconds, number)
