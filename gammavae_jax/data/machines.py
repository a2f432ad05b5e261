"""Machine folders, on disk or in zip archives: which recordings there are.

A *machine* that gets one model is a machine type and a section of it (in 2020: an id),
as in the official baseline. Every year has its own folders of test clips:

- `test`, in every year but 2021. Names in an evaluation set tell nothing.
- `source_test` and `target_test` in 2021. The baseline copies both into `test`.
- `test_rename`, which the baseline's tools make of an evaluation set once its ground
  truth is known: the clips of `test` under names that tell all.

The challenge's archives hold such folders, one archive a machine, or two, with its
training and its test clips. All archives beside the machine folders count, by what they
hold. Where a machine has a folder with clips of a split, its archives' are not looked
at. `dev_fan_r2.zip` is `dev_fan.zip`, issued again: clips in both are taken from it.
"""

import difflib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.data.archives import is_archive, recordings_in
from gammavae_jax.data.names import (
    AUDIO_SUFFIXES,
    ClipName,
    clip_stem,
    has_machine_id,
    parse_clip_name,
)
from gammavae_jax.errors import InputError, names_text

_DOMAIN_FOLDERS = ("source_test", "target_test")
_SPLITS = ("train", "test")  # in the order of `MachineFiles`
# The first set of folders that holds recordings is the split. In a set, the first
# folder may hold copies of what is in the others.
_FOLDERS = {
    "train": [["train"]],
    "test": [["test_rename"], ["test", *_DOMAIN_FOLDERS]],
}
SUPPLEMENTAL = "supplemental"
_MARKS = {name for sets in _FOLDERS.values() for names in sets for name in names}


class ClipFile(NamedTuple):
    """A recording and what its name says."""

    path: Path  # may lead through an archive: `dev_fan.zip/fan/train/x.wav`
    name: ClipName


_Reader = Callable[[str], list[ClipFile]]  # the recordings in a folder by its name


class MachineFiles(NamedTuple):
    """The recordings of one machine."""

    machine: str
    section: str
    train: tuple[ClipFile, ...]
    test: tuple[ClipFile, ...]
    # 2025 on: the machine without noise, or the noise alone; trained on if asked for.
    supplemental: tuple[ClipFile, ...] = ()
    has_domain_folders: bool = False  # of test clips, as in 2021

    @property
    def name(self) -> str:
        """Machine type and section, as the challenge's files write them."""
        return unit_name(self.machine, self.section)


def find_machines(data_root: Path) -> list[str]:
    """Names of the machines in a data root, or in its `raw` folder.

    Raises:
        InputError: the folder is missing, or holds no machine, or an archive that
            cannot be used.
    """
    root = machine_root(data_root)
    found = {
        folder.name
        for folder in root.iterdir()
        if any((folder / mark).is_dir() for mark in _MARKS)
    }
    for archive in _archives(root):
        names = (parts for parts in recordings_in(archive) if len(parts) >= 3)
        found |= {machine for *_, machine, folder, _ in names if folder in _MARKS}
    if not found:
        raise InputError(
            f"no machine found in {str(root)!r}: it must hold folders such as "
            "fan/train and fan/test, or zip archives of them"
        )
    return sorted(found)


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
        InputError: no such machine, no training or test clips, also of a section,
            two clips of one name, or an archive that cannot be used.
    """
    return next(find_clips_of_all(data_root, [machine], splits))


def find_clips_of_all(
    data_root: Path, machines: Iterable[str], splits: Collection[str] = _SPLITS
) -> Iterator[list[MachineFiles]]:
    """`find_clips` of each machine in turn; the data root is looked through once.

    Raises:
        InputError: see `find_clips`.
    """
    known, root = find_machines(data_root), machine_root(data_root)
    archives = sorted(_archives(root), key=issue_of, reverse=True)
    for machine in machines:
        if machine not in known:
            near = difflib.get_close_matches(machine, known, n=1)
            hint = f"did you mean {near[0]!r}? There are" if near else "found"
            raise InputError(
                f"no machine {machine!r} in {str(data_root)!r}: {hint} "
                + names_text(known)
            )
        yield _find_clips(root / machine, archives, splits)


def _find_clips(
    folder: Path, archives: Sequence[Path], splits: Collection[str]
) -> list[MachineFiles]:
    machine, readers = folder.name, _readers(folder, archives)
    found = {s: _by_section(_of_split(readers, s, folder)) for s in splits}
    sections = _sections_of_all(machine, found)
    unused = next(filter(None, (read(SUPPLEMENTAL) for read in readers)), [])
    found[SUPPLEMENTAL] = _by_section(unused)
    by_domain = any(read(name) for read in readers for name in _DOMAIN_FOLDERS)
    return [
        MachineFiles(
            machine,
            section,
            *(found.get(s, {}).get(section, ()) for s in (*_SPLITS, SUPPLEMENTAL)),
            has_domain_folders=by_domain,
        )
        for section in sections
    ]


def is_supplemental(file: ClipFile) -> bool:
    """Whether a recording is of a folder of supplemental clips."""
    return file.path.parent.name == SUPPLEMENTAL


def year_of_layout(machines: Sequence[MachineFiles]) -> int | None:
    """2020 or 2021, whose metrics are their own, if all machines tell; else None.

    In 2020 names have machine ids; in 2021 each domain has a folder of test clips.
    """
    if all(machine.has_domain_folders for machine in machines):
        return 2021
    names = [file.path.name for machine in machines for file in machine.test]
    return 2020 if all(map(has_machine_id, names)) else None


def unit_name(machine: str, section: str) -> str:
    """`<machine>_section_<id>`, the name of what gets one model."""
    return f"{machine}_section_{section}"


def issue_of(archive: Path) -> tuple[str, int]:
    """`dev_fan` and 2 of `dev_fan_r2.zip`, `dev_fan` and 1 of `dev_fan.zip`."""
    found = re.fullmatch(r"(.+)_r(\d+)", archive.stem, re.DOTALL)
    return (found[1], int(found[2])) if found else (archive.stem, 1)


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


def _of_split(readers: Sequence[_Reader], split: str, folder: Path) -> list[ClipFile]:
    """The recordings of a split of a machine, wherever its year puts them.

    Raises:
        InputError: there are none, or two of one name.
    """
    for read, (first, *others) in itertools.product(readers, _FOLDERS[split]):
        files = read(first)
        copied = {clip_stem(file.path.name) for file in files}
        files = files + [
            file
            for other in others
            for file in read(other)
            if clip_stem(file.path.name) not in copied
        ]
        if files:
            _refuse_doubled(files)
            return files
    raise InputError(
        f"no recordings in {str(folder / split)!r}: it must hold .wav or .flac files, "
        "or a zip archive beside the machine's folder must"
    )


def _readers(folder: Path, archives: Sequence[Path]) -> list[_Reader]:
    """Of a machine's folders: those on disk, and those in archives beside it."""
    packed = _in_archives(folder, archives)
    return [lambda name: _recordings(folder / name), lambda name: packed[name]]


def _in_archives(folder: Path, archives: Sequence[Path]) -> dict[str, list[ClipFile]]:
    """A machine's recordings in archives by folder, each from its latest issue."""
    files, issued = defaultdict(list), set()
    for archive in archives:
        base, _ = issue_of(archive)
        found = [
            (parts[-2], _clip_file(archive.joinpath(*parts)))
            for parts in recordings_in(archive)
            if len(parts) >= 3 and parts[-3] == folder.name
        ]
        # An issue may mend attributes, which are a part of the name.
        which = [
            (base, place, name._replace(attributes="") if name.index else path.name)
            for place, (path, name) in found
        ]
        for (place, file), clip in zip(found, which, strict=True):
            if clip not in issued:
                files[place].append(file)
        issued.update(which)
    return files


def _archives(root: Path) -> Iterator[Path]:
    return filter(is_archive, root.iterdir())


def _clip_file(path: Path) -> ClipFile:
    return ClipFile(path, parse_clip_name(path.name))


def _recordings(folder: Path) -> list[ClipFile]:
    """The recordings in a folder; none where there is no such folder."""
    return [
        _clip_file(path)
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
