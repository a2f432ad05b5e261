"""Logs notes on files left out, clips in both splits, and reference channels."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from gammavae_jax.data.audio.archives import is_archive, left_out_in, recordings_in
from gammavae_jax.data.audio.listing import (
    BROKEN,
    ELSEWHERE,
    OTHER_FORMAT,
    UNREADABLE,
    Reason,
    holds_recordings,
    is_broken_link,
    is_hidden,
    is_other_format,
    left_out_lines,
    require_listing,
)
from gammavae_jax.data.clips import NamedClips, clip_identities
from gammavae_jax.data.machines import (
    FOLDERS_READ,
    entries,
    find_machines,
    machine_folders,
    machine_root,
    place_of,
)
from gammavae_jax.data.names import nfc
from gammavae_jax.errors import names_text, printable
from gammavae_jax.log import Log

BESIDE_RAW = ("machine{s} or archive{s} beside the folder raw", "move {them} into raw")
_MOST_NAMES = 3
# If noise and machine are equally loud at the near microphone, subtracting a reference
# channel that picks up all of the noise lowers the power by 3 dB. In MIMII's circular
# array, whose microphones all pick up the machine, subtracting a neighbouring one
# lowers it by 6 to 7 dB.
_MOST_EXPLAINED_DB = 5.0


def left_out(data_root: Path, machines: Collection[str]) -> list[str]:
    """Return lines that say which of the machines' files are left out, and why.

    If `machines` has every machine in the data root, the lines also name recordings
    outside the machine folders, archives in other formats and unreadable folders.
    """
    root, found = machine_root(data_root), {}
    names = set(map(nfc, machines))
    are_all = names >= set(find_machines(data_root))
    folders = machine_folders(root)
    for path in entries(root):
        if nfc(path.name) in names and path in folders:
            found |= _of_machine(path)
        elif is_archive(path):
            found |= _of_archive(path, names, are_all)
        elif path not in folders and are_all:
            found |= _of_no_machine(path)
    lines = left_out_lines(root, found)
    if root != data_root and are_all:
        archives = filter(is_archive, entries(data_root))
        beside = (path.name for path in (*machine_folders(data_root), *archives))
        lines += left_out_lines(data_root, dict.fromkeys(beside, BESIDE_RAW))
    return lines


def _of_machine(folder: Path) -> dict[str, Reason]:
    """Return the files of a machine's folder that are not used, with the reasons."""
    found, listing = {}, require_listing(folder)
    for name, reason in listing.left_out.items():
        if name.split("/")[0] in FOLDERS_READ or reason in (BROKEN, UNREADABLE):
            found[f"{folder.name}/{name}"] = reason
    beside = {name.split("/")[0] for name in listing.recordings} - FOLDERS_READ
    return found | {f"{folder.name}/{name}": ELSEWHERE for name in beside}


def _of_archive(
    archive: Path, machines: Collection[str], are_all: bool
) -> dict[str, Reason]:
    """Return the files of an archive that are not used, with the reasons.

    Files that belong to none of the machines are not mentioned.
    """
    found = {}
    for parts, reason in left_out_in(archive).items():
        machine, _, below = place_of(parts) or ("", "", ())
        above = parts[: len(parts) - len(below)]
        # A hidden machine is not one: macOS copies all folders to __MACOSX.
        if machine in machines and not any(map(is_hidden, above)):
            found["/".join((archive.name, *parts))] = reason
    for parts in recordings_in(archive):
        is_of_machine = not {nfc(part) for part in parts[:-1]}.isdisjoint(machines)
        if place_of(parts) is None and (are_all or is_of_machine):
            found["/".join((archive.name, *parts))] = ELSEWHERE
    return found


def _of_no_machine(path: Path) -> dict[str, Reason]:
    """Return why a file or folder in the data root is left out, if worth mentioning."""
    unreadable: list[OSError] = []
    if holds_recordings(path, unreadable.append):
        return {path.name: ELSEWHERE}
    if unreadable:
        return {path.name: UNREADABLE}
    if path.is_file() and is_other_format(path.name):
        return {path.name: OTHER_FORMAT}
    return {path.name: BROKEN} if is_broken_link(path) else {}


def note_left_out(data_root: Path, machines: Collection[str], log: Log) -> None:
    """Log each line of `left_out` as a note."""
    for line in left_out(data_root, machines):
        log.note(line)


def note_shared_clips(
    train: Mapping[str, Iterable[str]], test: NamedClips, log: Log
) -> None:
    """Log a note that names any test clips that are identical to training clips.

    `train` maps each machine to its training clips' identities; see `clip_identities`.
    """
    shared = []
    for machine, clips in test:
        sounds = {identity.rpartition(" ")[2] for identity in train.get(machine, ())}
        shared += [
            f"{machine}/{printable(file.path.name)}"
            for file, identity in zip(clips.files, clip_identities(clips), strict=True)
            if identity.rpartition(" ")[2] in sounds
        ]
    if shared:
        are = "test clip is also a training clip"
        if shared[1:]:
            are = "test clips are also training clips"
        log.note(
            f"{len(shared)} {are} ({names_text(shared, _MOST_NAMES)}): remove each "
            "from one of the two sets, because clips used in training score too low"
        )


def note_reference_channel(train: NamedClips, log: Log) -> None:
    """Log how much subtracting the reference channel lowers the training clips' power.

    If it lowers it by much, the channel probably picks up the machine itself. The
    machine's sound is then subtracted, too.
    """
    for machine, clips in train:
        if not clips.explained:
            continue
        name, level = printable(machine), float(np.median(clips.explained))
        log.note(
            f"{name}: subtracting the reference channel lowers the power by "
            f"{level:.1f} dB (median over clips)"
        )
        if level > _MOST_EXPLAINED_DB:
            log.note(
                f"{name}: subtracting the reference channel lowers the power by more "
                f"than {_MOST_EXPLAINED_DB:g} dB, so the reference microphone probably "
                "picks up the machine itself, unless noise drowns it out: move that "
                "microphone away, or fit without features.reference_channel"
            )
