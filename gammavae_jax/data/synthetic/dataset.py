"""Generates the built-in data set: synthetic clips in the challenge's folder layout.

The set is generated once and cached. Every clip depends only on its machine and name,
so the set is the same on every computer.
"""

import itertools
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from scipy.io import wavfile

from gammavae_jax.data.synthetic.machines import MACHINES, Condition, render
from gammavae_jax.data.synthetic.signals import RATE
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import read_text, unfinished_name, write_text
from gammavae_jax.log import Log
from gammavae_jax.process import cache_folder

VERSION = 1  # increment whenever the sound of any clip changes
MARKER = "SYNTHETIC.txt"
_TITLE = "Synthetic sounds, not recordings"


@dataclass(frozen=True)
class SyntheticSize:
    """The number and length of one machine's clips."""

    n_source: int = 90  # training clips
    n_target: int = 10  # training clips
    n_test: int = 16  # test clips for each combination of domain and label
    seconds: tuple[float, float] = (2.0, 2.0)  # the shortest and longest lengths


# Clip counts and lengths differ, so that runs on this set also test padding.
SIZES: Mapping[str, SyntheticSize] = {
    "ToyCar": SyntheticSize(),
    "ToyTrain": SyntheticSize(n_source=84, seconds=(2.2, 2.2)),
    "bearing": SyntheticSize(n_source=96),
    "fan": SyntheticSize(n_target=12, seconds=(1.8, 2.4)),
    "gearbox": SyntheticSize(n_source=88, n_test=15),
    "slider": SyntheticSize(n_source=92, n_target=8, seconds=(1.9, 2.3)),
    "valve": SyntheticSize(n_test=17),
}


def _kind(machine: str) -> str:
    """Return a machine's kind: `fan` for `fan0003`."""
    return machine.rstrip("0123456789")


class _Clip(NamedTuple):
    machine: str
    split: str
    domain: str
    label: str
    index: int
    seconds: tuple[float, float]

    @property
    def condition(self) -> Condition:
        machine = MACHINES[_kind(self.machine)]
        conditions = machine.source if self.domain == "source" else machine.target
        return conditions[self.index % len(conditions)]

    @property
    def path(self) -> str:
        """The path relative to the set's folder, as in the attribute file."""
        speed, background = self.condition
        return (
            f"{self.machine}/{self.split}/section_00_{self.domain}_{self.split}_"
            f"{self.label}_{self.index:04d}_speed_{speed}_bg_{background}.wav"
        )


def synthetic_root(log: Log | None = None) -> Path:
    """Return the folder of the built-in set; the first call generates the set.

    This folder is in `GAMMAVAE_CACHE_DIR` (default: the user's cache folder).

    Raises:
        InputError: the folder cannot be written or contains something else.
    """
    root = cache_folder() / f"synthetic-v{VERSION}"
    try:
        return make_synthetic(root, log=log)
    except OSError as error:
        raise InputError(
            f"{printable(root)}: {error.strerror}: set GAMMAVAE_CACHE_DIR to a "
            "writable folder"
        ) from error


def make_synthetic(
    root: Path,
    sizes: Mapping[str, SyntheticSize] = SIZES,
    log: Log | None = None,
) -> Path:
    """Write a synthetic set atomically, unless it exists; return `root`.

    The log, if there is one, shows progress. Several processes may write the same set
    simultaneously. Machines are named as in `MACHINES`, optionally with a number
    appended.

    Raises:
        InputError: the folder exists and contains something else.
        OSError: the folder cannot be written.
    """
    if os.path.lexists(root):
        return _require_same(root, sizes)
    unfinished = unfinished_name(root)
    try:
        unfinished.mkdir(parents=True)
        _write_set(unfinished, sizes, log or Log(Console(quiet=True)))
        os.replace(unfinished, root)
    except OSError:
        if not is_synthetic(root):  # unless another process was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return _require_same(root, sizes)


def is_synthetic(root: Path) -> bool:
    """Return whether `make_synthetic` wrote this folder."""
    return _marker_of(root).startswith(_TITLE)


def _write_set(root: Path, sizes: Mapping[str, SyntheticSize], log: Log) -> None:
    clips: list[_Clip] = []
    for name, size in sizes.items():
        for split in ("train", "test"):
            (root / name / split).mkdir(parents=True)
        machine_clips = list(_clips(name, size))
        write_text(root / name / "attributes_00.csv", _attributes(machine_clips))
        clips += machine_clips
    with ThreadPoolExecutor() as pool, log.progress("clips made", len(clips)) as show:
        for _ in pool.map(lambda clip: _write_clip(root, clip), clips):
            show()
    write_text(root / MARKER, _marker(sizes))


def _clips(machine: str, size: SyntheticSize) -> Iterator[_Clip]:
    """Yield the training clips, then the test clips, in the challenge's order."""
    counts = {"source": size.n_source, "target": size.n_target}
    groups = [("train", domain, "normal", count) for domain, count in counts.items()]
    for domain, label in itertools.product(counts, ("normal", "anomaly")):
        groups.append(("test", domain, label, size.n_test))
    for split, domain, label, count in groups:
        for index in range(count):
            yield _Clip(machine, split, domain, label, index, size.seconds)


def _write_clip(root: Path, clip: _Clip) -> None:
    # CRC-32 is the same in every process and Python version, unlike hash().
    rng = np.random.default_rng([VERSION, zlib.crc32(clip.path.encode())])
    waveform = render(
        MACHINES[_kind(clip.machine)],
        clip.condition,
        round(rng.uniform(*clip.seconds) * RATE),
        rng,
        is_anomaly=clip.label == "anomaly",
    )
    samples = np.rint(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    wavfile.write(root / clip.path, RATE, samples)


def _attributes(clips: list[_Clip]) -> str:
    rows = ("{},speed,{},bg,{}\n".format(clip.path, *clip.condition) for clip in clips)
    return "file_name,d1p,d1v,d2p,d2v\n" + "".join(rows)


def _marker(sizes: Mapping[str, SyntheticSize]) -> str:
    """Return a description of the set; sets with the same description are identical."""
    text = (
        f"{_TITLE}, version {VERSION}.\n"
        "Made by gammavae_jax from tones, coloured noise and knocks, for trying the\n"
        "programs out. Results on them say nothing about real machines.\n\n"
    )
    for name, size in sizes.items():
        text += f"{name}: {size}, fault_db={MACHINES[_kind(name)].fault_db}\n"
    return text


def _require_same(root: Path, sizes: Mapping[str, SyntheticSize]) -> Path:
    if _marker_of(root) != _marker(sizes):
        raise InputError(
            f"{printable(root)} contains something other than this synthetic set: "
            "delete the folder, or choose another one"
        )
    return root


def _marker_of(root: Path) -> str:
    try:
        return read_text(root / MARKER, errors="replace")
    except OSError:
        return ""
