"""Machine folders on disk: which recordings there are, and what their names say.

A *machine* that gets one model is a machine type and a section of it, as in the
official baseline.
"""

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.clip_name import AUDIO_SUFFIXES, ClipName, parse_clip_name
from gammavae_jax.errors import InputError

_SPLITS = ("train", "test")  # in the order of `MachineFiles`


class ClipFile(NamedTuple):
    """A recording and what its name says."""

    path: Path
    name: ClipName


class MachineFiles(NamedTuple):
    """The recordings of one machine."""

    machine: str
    section: str
    train: tuple[ClipFile, ...]
    test: tuple[ClipFile, ...]

    @property
    def name(self) -> str:
        """Machine type and section, as the challenge's files write them."""
        return unit_name(self.machine, self.section)


def find_machines(data_root: Path) -> list[str]:
    """Names of the machine folders in a data root, or in its `raw` folder.

    Raises:
        InputError: the folder is missing, or holds no machine folder.
    """
    root = machine_root(data_root)
    found = sorted(
        folder.name
        for folder in root.iterdir()
        if (folder / "train").is_dir() or (folder / "test").is_dir()
    )
    if not found:
        raise InputError(
            f"no machine found in {str(root)!r}: it must hold folders such as "
            "fan/train and fan/test"
        )
    return found


def machine_root(data_root: Path) -> Path:
    """The folder of machine folders: `data_root` itself, or its `raw`.

    Raises:
        InputError: there is no such folder.
    """
    if not data_root.is_dir():
        raise InputError(f"data root {str(data_root)!r} is no folder: check the path")
    raw = data_root / "raw"
    return raw if raw.is_dir() else data_root


def find_clips(
    data_root: Path, machine: str, splits: Collection[str] = _SPLITS
) -> list[MachineFiles]:
    """The recordings of a machine type, one entry a section.

    Only the folders of the named splits are looked into; the others count as empty.

    Raises:
        InputError: no such machine, or no training or test clips, also of a section.
    """
    known = find_machines(data_root)
    if machine not in known:
        raise InputError(
            f"no machine {machine!r} in {str(data_root)!r}: found {', '.join(known)}"
        )
    folder = machine_root(data_root) / machine
    found = {split: _by_section(folder / split) for split in splits}
    sections = sorted(set().union(*found.values()))
    for split, section in itertools.product(splits, sections):
        if section not in found[split]:
            raise InputError(
                f"section {section} of {machine} has no {split} clips: add them to "
                f"{str(folder / split)!r}, or take the section out of the other folder"
            )
    return [
        MachineFiles(
            machine, section, *(found.get(s, {}).get(section, ()) for s in _SPLITS)
        )
        for section in sections
    ]


def unit_name(machine: str, section: str) -> str:
    """`<machine>_section_<id>`, the name of what gets one model."""
    return f"{machine}_section_{section}"


def _by_section(folder: Path) -> dict[str, tuple[ClipFile, ...]]:
    """The recordings of a folder, sorted by name, by section."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [
        ClipFile(path, parse_clip_name(path.name))
        for path in paths
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")
    ]
    if not files:
        raise InputError(
            f"no recordings in {str(folder)!r}: it must hold .wav or .flac files"
        )
    sections = sorted({file.name.section for file in files})
    return {s: tuple(f for f in files if f.name.section == s) for s in sections}
