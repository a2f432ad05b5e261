"""The built-in recordings: a small synthetic set in the challenge's layout.

Made once and cached. Every clip is a function of its machine and name alone, so the set
is the same wherever it is made.
"""

import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import wavfile

from gammavae_jax.data.synthetic.machines import MACHINES, Condition, render
from gammavae_jax.data.synthetic.signals import RATE
from gammavae_jax.errors import InputError, printable
from gammavae_jax.process import cache_folder

VERSION = 1  # raise it whenever the same name would sound different
MARKER = "SYNTHETIC.txt"
_TITLE = "Synthetic sounds, not recordings"

Progress = Callable[[int, int], None]  # clips done, clips in all


@dataclass(frozen=True)
class SyntheticSize:
    """How much there is of one machine."""

    n_source: int = 90  # training clips
    n_target: int = 10  # training clips
    n_test: int = 16  # clips in each of the four groups of domain and label
    seconds: tuple[float, float] = (2.0, 2.0)  # shortest and longest clip


# Counts differ between machines and lengths within two: a run on this set pads.
SIZES: Mapping[str, SyntheticSize] = {
    "ToyCar": SyntheticSize(),
    "ToyTrain": SyntheticSize(n_source=84, seconds=(2.2, 2.2)),
    "bearing": SyntheticSize(n_source=96),
    "fan": SyntheticSize(n_target=12, seconds=(1.8, 2.4)),
    "gearbox": SyntheticSize(n_source=88, n_test=15),
    "slider": SyntheticSize(n_source=92, n_target=8, seconds=(1.9, 2.3)),
    "valve": SyntheticSize(n_test=17),
}


def fleet_sizes(n_machines: int, size: SyntheticSize) -> dict[str, SyntheticSize]:
    """A fleet for `make_synthetic`: machines of all kinds in turn, with a number."""
    kinds = sorted(MACHINES)
    return {
        f"{kinds[number % len(kinds)]}{number:04d}": size
        for number in range(n_machines)
    }


def _kind(machine: str) -> str:
    """`fan` of `fan0003`: machines of a kind differ by what is drawn for each."""
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
        """Below the set's folder, as the attribute file writes it."""
        speed, background = self.condition
        return (
            f"{self.machine}/{self.split}/section_00_{self.domain}_{self.split}_"
            f"{self.label}_{self.index:04d}_speed_{speed}_bg_{background}.wav"
        )


def synthetic_root(progress: Progress | None = None) -> Path:
    """The folder of the built-in set, made by the first call on this computer.

    It lies in the folder that `GAMMAVAE_CACHE_DIR` names, else in the user's cache.

    Args:
        progress: called after each clip that is made.

    Raises:
        InputError: the folder cannot be written, or holds something else.
    """
    root = cache_folder() / f"synthetic-v{VERSION}"
    try:
        return make_synthetic(root, progress=progress)
    except OSError as error:
        raise InputError(
            f"{printable(root)}: {error.strerror}: set GAMMAVAE_CACHE_DIR to a folder "
            "that can be written"
        ) from error


def make_synthetic(
    root: Path,
    sizes: Mapping[str, SyntheticSize] = SIZES,
    progress: Progress | None = None,
) -> Path:
    """Write a synthetic set, whole or not at all; a set already there is kept.

    Args:
        root: the new folder; several makers may race for it.
        sizes: by machine; names are those of `MACHINES`, or such with a number.
        progress: called after each clip.

    Returns:
        `root`.

    Raises:
        InputError: the folder exists and holds something else.
        OSError: the folder cannot be written.
    """
    if os.path.lexists(root):
        return _require_same(root, sizes)
    # Beside the final place, so that the renaming stays within one file system.
    unfinished = root.parent / f".{root.name}-{uuid.uuid4().hex}"
    try:
        unfinished.mkdir(parents=True)
        _write_set(unfinished, sizes, progress)
        os.replace(unfinished, root)
    except OSError:
        if not is_synthetic(root):  # else another maker was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return _require_same(root, sizes)


def is_synthetic(root: Path) -> bool:
    """Whether `make_synthetic` wrote this folder."""
    return _marker_of(root).startswith(_TITLE)


def _write_set(
    root: Path, sizes: Mapping[str, SyntheticSize], progress: Progress | None
) -> None:
    clips = {name: list(_clips(name, size)) for name, size in sizes.items()}
    for name, of_machine in clips.items():
        for split in ("train", "test"):
            (root / name / split).mkdir(parents=True)
        _write_text(root / name / "attributes_00.csv", _attributes(of_machine))
    every = [clip for of_machine in clips.values() for clip in of_machine]
    with ThreadPoolExecutor() as pool:
        jobs = pool.map(lambda clip: _write_clip(root, clip), every)
        for done, _ in enumerate(jobs, start=1):
            if progress is not None:
                progress(done, len(every))
    _write_text(root / MARKER, _marker(sizes))


def _clips(machine: str, size: SyntheticSize) -> Iterator[_Clip]:
    """Training clips, then test clips, as the challenge lists them."""
    groups = [
        ("train", "source", "normal", size.n_source),
        ("train", "target", "normal", size.n_target),
        ("test", "source", "normal", size.n_test),
        ("test", "source", "anomaly", size.n_test),
        ("test", "target", "normal", size.n_test),
        ("test", "target", "anomaly", size.n_test),
    ]
    for split, domain, label, count in groups:
        for index in range(count):
            yield _Clip(machine, split, domain, label, index, size.seconds)


def _write_clip(root: Path, clip: _Clip) -> None:
    # A text's CRC-32 is the same in every process and version, unlike its hash.
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
    lines = ["file_name,d1p,d1v,d2p,d2v"]
    for clip in clips:
        speed, background = clip.condition
        lines.append(f"{clip.path},speed,{speed},bg,{background}")
    return "\n".join(lines) + "\n"


def _marker(sizes: Mapping[str, SyntheticSize]) -> str:
    """What the set is; two sets with the same text are the same."""
    lines = [
        f"{_TITLE}, version {VERSION}.",
        "Made by gammavae_jax from tones, coloured noise and knocks, for trying the",
        "programs out. Results on them say nothing about real machines.",
        "",
    ]
    for name, size in sizes.items():
        lines.append(f"{name}: {size}, fault_db={MACHINES[_kind(name)].fault_db}")
    return "\n".join(lines) + "\n"


def _require_same(root: Path, sizes: Mapping[str, SyntheticSize]) -> Path:
    if _marker_of(root) != _marker(sizes):
        raise InputError(
            f"{printable(root)}: holds something other than this synthetic set: remove "
            "it or choose another folder"
        )
    return root


def _marker_of(root: Path) -> str:
    try:
        return (root / MARKER).read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", newline="\n")
