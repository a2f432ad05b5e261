"""Finds each machine's recordings, in folders or in zip archives.

Here, a *machine* is one section of a machine type (in 2020: one machine id), and a
*split* is its training clips or its test clips. The test clips' folder varies:

- `test` in every year but 2021. In an evaluation set, the file names have no labels.
- `source_test` and `target_test` in 2021. The baseline copies both into `test`.
- `test_rename` has copies of an evaluation set's clips, renamed to include the labels.
  The baseline's tools create this folder once the ground truth is published.

If no folder has clips of a split, the archives beside the machine folders are searched
for the same folders. `dev_fan_r2.zip` is a revision of `dev_fan.zip`; if several
revisions contain a clip, the latest one is used.
"""

import difflib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.data.audio.archives import is_archive, recordings_in
from gammavae_jax.data.audio.listing import is_hidden, not_listed, require_listing
from gammavae_jax.data.names import (
    ClipName,
    clip_stem,
    nfc,
    parse_clip_name,
    section_word,
)
from gammavae_jax.errors import InputError, names_text, path_remedy

_DOMAIN_FOLDERS = ("source_test", "target_test")
_SPLITS = ("train", "test")  # in the order of `MachineFiles`
# A split is read from its first set of folders that has recordings. Within a set, the
# first folder may contain copies of the clips in the others.
_FOLDERS = {
    "train": [["train"]],
    "test": [["test_rename"], ["test", *_DOMAIN_FOLDERS]],
}
SUPPLEMENTAL = "supplemental"
_MARKS = {name for sets in _FOLDERS.values() for names in sets for name in names}
FOLDERS_READ = _MARKS | {SUPPLEMENTAL}


class ClipFile(NamedTuple):
    """A recording and its parsed name."""

    path: Path  # may lead through an archive: `dev_fan.zip/fan/train/x.wav`
    name: ClipName


def clip_file(path: Path) -> ClipFile:
    """Parse a recording's name."""
    return ClipFile(path, parse_clip_name(path.name))


_Reader = Callable[[str], list[ClipFile]]  # a folder's name -> its recordings
_Sections = dict[str, tuple[ClipFile, ...]]


class MachineFiles(NamedTuple):
    """One machine's recordings."""

    machine: str
    section: str
    train: tuple[ClipFile, ...]
    test: tuple[ClipFile, ...]
    # From 2025 on: clips of only the machine or only the noise, optional in training.
    supplemental: tuple[ClipFile, ...] = ()
    has_domain_folders: bool = False  # for test clips, as in 2021

    @property
    def name(self) -> str:
        """The machine's name: its type and section, as in the challenge's files."""
        return unit_name(self.machine, self.section)


def find_machines(data_root: Path) -> list[str]:
    """Return the sorted machine types in a data root or its `raw` folder.

    Raises:
        InputError: the folder is missing or contains no machine, or an archive is
            unusable.
    """
    root = machine_root(data_root)
    machines = {nfc(folder.name) for folder in machine_folders(root)}
    for archive in filter(is_archive, entries(root)):
        places = map(place_of, recordings_in(archive))
        machines |= {place[0] for place in places if place and place[1] in _MARKS}
    if not machines:
        raise InputError(
            f"no machine found in {str(root)!r}: it must contain folders like "
            "fan/train and fan/test, or zip archives of such folders"
        )
    return sorted(machines)


def entries(root: Path) -> list[Path]:
    """Return a data root's files and folders, sorted; hidden ones are left out."""
    try:
        return sorted(path for path in root.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise not_listed(root, error) from error


def machine_folders(root: Path) -> list[Path]:
    """Return the machine folders in a data root."""
    found = entries(root)
    return [p for p in found if any(os.path.isdir(p / mark) for mark in _MARKS)]


def place_of(parts: Sequence[str]) -> tuple[str, str, tuple[str, ...]] | None:
    """Split a path into the machine, its folder (such as `train`), and the rest."""
    for i in range(len(parts) - 2, 0, -1):
        if parts[i] in FOLDERS_READ:
            return nfc(parts[i - 1]), parts[i], tuple(parts[i + 1 :])
    return None


def parts_below(path: Path) -> tuple[str, ...]:
    """Return the parts of a clip's path below `train`, `test` or a similar folder."""
    place = place_of(path.parts)
    return path.parts[-1:] if place is None else place[2]


def machine_root(data_root: Path) -> Path:
    """Return the folder that holds machine folders: the data root, or `raw` in it."""
    if not data_root.is_dir():
        remedy = "check the path"
        if not data_root.exists():
            remedy = path_remedy(data_root, remedy)
        raise InputError(f"data root {str(data_root)!r} is not a folder: {remedy}")
    raw = data_root / "raw"
    return raw if raw.is_dir() else data_root


def find_clips(
    data_root: Path, machine: str, splits: Collection[str] = _SPLITS
) -> list[MachineFiles]:
    """List a machine type's recordings in these splits, one entry per section.

    Raises:
        InputError: the machine is unknown, a split of a section has no clips, two
            clips have the same name, or an archive is unusable.
    """
    return next(find_clips_of_all(data_root, [machine], splits))


def find_clips_of_all(
    data_root: Path, machines: Iterable[str], splits: Collection[str] = _SPLITS
) -> Iterator[list[MachineFiles]]:
    """Yield each machine type's recordings, searching the data root only once."""
    existing, root = find_machines(data_root), machine_root(data_root)
    archives = sorted(filter(is_archive, entries(root)), key=issue_of, reverse=True)
    folders = machine_folders(root)
    for machine in map(nfc, machines):
        if machine not in existing:
            near = difflib.get_close_matches(machine, existing, n=1)
            hint = f"did you mean {near[0]!r}? Available" if near else "available"
            raise InputError(
                f"no machine {machine!r} in {str(data_root)!r}: {hint}: "
                + names_text(existing)
            )
        own = [path for path in folders if nfc(path.name) == machine]
        if own[1:]:
            names = " and ".join(ascii(path.name) for path in own)
            raise InputError(
                f"the folders {names} have equivalent Unicode names: merge them"
            )
        yield _find_clips((own or [root / machine])[0], archives, splits)


def _find_clips(
    folder: Path, archives: Sequence[Path], splits: Collection[str]
) -> list[MachineFiles]:
    machine, packed = nfc(folder.name), _in_archives(nfc(folder.name), archives)
    readers = [lambda name: _recordings(folder / name), lambda name: packed[name]]
    clips = {split: _by_section(_split(readers, split, folder)) for split in splits}
    sections = _common_sections(machine, clips)
    extra = next(filter(None, (read(SUPPLEMENTAL) for read in readers)), [])
    clips[SUPPLEMENTAL] = _by_section(extra)
    by_domain = any(read(name) for read in readers for name in _DOMAIN_FOLDERS)
    return [
        MachineFiles(
            machine,
            section,
            *(clips.get(s, {}).get(section, ()) for s in (*_SPLITS, SUPPLEMENTAL)),
            has_domain_folders=by_domain,
        )
        for section in sections
    ]


def is_supplemental(file: ClipFile) -> bool:
    """Return whether a recording is in a folder of supplemental clips."""
    return (place_of(file.path.parts) or ("", ""))[1] == SUPPLEMENTAL


def year_of_layout(machines: Sequence[MachineFiles]) -> int | None:
    """Return the year if the layout shows that it is 2020 or 2021, or else None.

    These years have their own metrics. In 2020, file names contain machine ids; in
    2021, each domain has its own folder of test clips.
    """
    if all(machine.has_domain_folders for machine in machines):
        return 2021
    names = [file.path.name for machine in machines for file in machine.test]
    return 2020 if all(section_word(name) == "id" for name in names) else None


def unit_name(machine: str, section: str) -> str:
    """Return `<machine>_section_<id>`, or only `<machine>` if there is no section."""
    return f"{machine}_section_{section}" if section else machine


def issue_of(archive: Path) -> tuple[str, int]:
    """Parse an archive's name and revision: `("dev_fan", 2)` for `dev_fan_r2.zip`."""
    match = re.fullmatch(r"(.+)_r(\d+)", archive.stem, re.DOTALL)
    return (match[1], int(match[2])) if match else (archive.stem, 1)


def _common_sections(machine: str, clips: dict[str, _Sections]) -> list[str]:
    """Return the sorted sections; reject a section that is missing from any split."""
    sections = sorted(set().union(*clips.values()))
    for split, section in itertools.product(clips, sections):
        if section not in clips[split]:
            folder = next(iter(clips[split].values()))[0].path.parent
            raise InputError(
                f"section {section} of {machine} has no {split} clips: add some to "
                f"{str(folder)!r}, or remove the section from the other folder"
            )
    return sections


def _split(readers: Sequence[_Reader], split: str, folder: Path) -> list[ClipFile]:
    """List a split's recordings, from the first set of folders that contains any."""
    for read, (first, *others) in itertools.product(readers, _FOLDERS[split]):
        files = read(first)
        copied = {clip_stem(file.path.name) for file in files}
        more = (file for other in others for file in read(other))
        files = [*files, *(f for f in more if clip_stem(f.path.name) not in copied)]
        if files:
            _refuse_duplicates(files, split)
            return files
    raise InputError(
        f"no recordings in {str(folder / split)!r}: put .wav or .flac files there, or "
        "a zip archive of them next to the machine's folder"
    )


def _in_archives(machine: str, archives: Sequence[Path]) -> dict[str, list[ClipFile]]:
    """List the latest revisions of a machine's archived recordings, by folder."""
    files, issued = defaultdict(list), set()
    for archive in archives:
        clips = set()
        for parts in recordings_in(archive):
            of_machine, folder, below = place_of(parts) or ("", "", ())
            if of_machine != machine:
                continue
            path, name = file = clip_file(archive.joinpath(*parts))
            # A revision may correct attributes, which are part of the name.
            key = name._replace(attributes="") if name.index else path.name
            clip = (issue_of(archive)[0], folder, below[:-1], key)
            if clip not in issued:
                files[folder].append(file)
            clips.add(clip)
        issued |= clips
    return files


def _recordings(folder: Path) -> list[ClipFile]:
    """List the recordings in a folder and its subfolders, if the folder exists."""
    names = require_listing(folder).recordings if os.path.isdir(folder) else ()
    return [clip_file(folder / name) for name in names]


def _refuse_duplicates(files: list[ClipFile], split: str) -> None:
    """Reject clips whose names differ only in the suffix, which score files omit.

    Training clips, which are in no score file, may share a name across subfolders.
    """
    paths = defaultdict(list)
    for file in files:
        subfolder = parts_below(file.path)[:-1] if split == "train" else ()
        paths[*subfolder, clip_stem(file.path.name)].append(str(file.path))
    if same := next((found for found in paths.values() if len(found) > 1), None):
        names = " and ".join(map(repr, sorted(same)))
        raise InputError(f"{names} have the same base name: rename or remove one")


def _by_section(files: list[ClipFile]) -> _Sections:
    """Group recordings by section, sorted by section and then by name."""
    files = sorted(files, key=lambda file: (file.name.section, file.path.name))
    groups = itertools.groupby(files, lambda file: file.name.section)
    return {section: tuple(group) for section, group in groups}
