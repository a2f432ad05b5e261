"""Machine folders on disk: which recordings there are, and what their names say.

A *machine* that gets one model is a machine type and a section of it (in 2020: an id),
as in the official baseline. Every year has its own folders of test clips:

- `test`, in every year but 2021. Names in an evaluation set tell nothing.
- `source_test` and `target_test` in 2021. The baseline copies both into `test`.
- `test_rename`, which the baseline's tools make of an evaluation set once its ground
  truth is known: the clips of `test` under names that tell all.
"""

import itertools
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.clip_name import (
    AUDIO_SUFFIXES,
    ClipName,
    clip_stem,
    parse_clip_name,
)
from gammavae_jax.errors import InputError

_SPLITS = ("train", "test")  # in the order of `MachineFiles`
# The first set of folders that holds recordings is the split. In a set, the first
# folder may hold copies of what is in the others.
_FOLDERS = {
    "train": [["train"]],
    "test": [["test_rename"], ["test", "source_test", "target_test"]],
}
_SUPPLEMENTAL = "supplemental"


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
    # 2025 on: the machine without noise, or the noise alone. Listed, not trained on.
    supplemental: tuple[ClipFile, ...] = ()

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
    marks = {name for sets in _FOLDERS.values() for names in sets for name in names}
    found = sorted(
        folder.name
        for folder in root.iterdir()
        if any((folder / mark).is_dir() for mark in marks)
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

    Only the folders of the named splits, and supplemental clips, are looked for; the
    other split counts as empty.

    Raises:
        InputError: no such machine, no training or test clips, also of a section, or
            two clips of one name.
    """
    known = find_machines(data_root)
    if machine not in known:
        raise InputError(
            f"no machine {machine!r} in {str(data_root)!r}: found {', '.join(known)}"
        )
    folder = machine_root(data_root) / machine
    found = {split: _by_section(_of_split(folder, split)) for split in splits}
    sections = _sections_of_all(machine, found)
    found[_SUPPLEMENTAL] = _by_section(_recordings(folder / _SUPPLEMENTAL))
    return [
        MachineFiles(
            machine,
            section,
            *(found.get(s, {}).get(section, ()) for s in (*_SPLITS, _SUPPLEMENTAL)),
        )
        for section in sections
    ]


def unit_name(machine: str, section: str) -> str:
    """`<machine>_section_<id>`, the name of what gets one model."""
    return f"{machine}_section_{section}"


def _sections_of_all(
    machine: str, found: dict[str, dict[str, tuple[ClipFile, ...]]]
) -> list[str]:
    """The sections of the splits that were found, sorted.

    Raises:
        InputError: a section that is not in all of them.
    """
    sections = sorted(set().union(*found.values()))
    for split, section in itertools.product(found, sections):
        if section not in found[split]:
            folder = next(iter(found[split].values()))[0].path.parent
            raise InputError(
                f"section {section} of {machine} has no {split} clips: add them to "
                f"{str(folder)!r}, or take the section out of the other folder"
            )
    return sections


def _of_split(folder: Path, split: str) -> list[ClipFile]:
    """The recordings of a split of a machine, wherever its year puts them.

    Raises:
        InputError: there are none, or two of one name.
    """
    for first, *others in _FOLDERS[split]:
        files = _recordings(folder / first)
        copied = {clip_stem(file.path.name) for file in files}
        for other in others:
            files += [
                file
                for file in _recordings(folder / other)
                if clip_stem(file.path.name) not in copied
            ]
        if files:
            _refuse_doubled(files)
            return files
    raise InputError(
        f"no recordings in {str(folder / split)!r}: it must hold .wav or .flac files"
    )


def _recordings(folder: Path) -> list[ClipFile]:
    """The recordings in a folder; none where there is no such folder."""
    return [
        ClipFile(path, parse_clip_name(path.name))
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")
    ]


def _refuse_doubled(files: list[ClipFile]) -> None:
    """Refuse names that differ in the suffix alone: score files do not tell it.

    Raises:
        InputError: two recordings with one name, in whatever folders.
    """
    counts = Counter(clip_stem(file.path.name) for file in files)
    for stem, count in counts.items():
        if count > 1:
            paths = sorted(str(f.path) for f in files if clip_stem(f.path.name) == stem)
            raise InputError(
                f"{' and '.join(map(repr, paths))} have one name: keep one"
            )


def _by_section(files: list[ClipFile]) -> dict[str, tuple[ClipFile, ...]]:
    """The recordings of each section, both in the order of their names."""
    files = sorted(files, key=lambda file: file.path.name)
    sections = sorted({file.name.section for file in files})
    return {s: tuple(f for f in files if f.name.section == s) for s in sections}
