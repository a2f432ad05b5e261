"""Logs notes about recordings.

The notes name files that are left out and clips that are in both splits, and say how
much of the sound a reference channel explains.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from gammavae_jax.data.clips import NamedClips, clip_identities
from gammavae_jax.data.listing import (
    BROKEN,
    ELSEWHERE,
    UNREADABLE,
    holds_recordings,
    left_out_lines,
    require_listing,
)
from gammavae_jax.data.machines import (
    FOLDERS_READ,
    entries,
    find_machines,
    machine_folders,
    machine_root,
)
from gammavae_jax.data.names import nfc
from gammavae_jax.errors import names_text, printable
from gammavae_jax.log import Log

_MOST_NAMES = 3
# If noise and machine are equally loud at the near microphone, a reference that hears
# all of the noise explains 3 dB. Neighbouring microphones of MIMII's circular array,
# which all hear the machine, explain 6 to 7 dB of each other.
_MOST_EXPLAINED_DB = 5.0


def left_out(data_root: Path, machines: Collection[str]) -> list[str]:
    """Return lines that say which files of the machines are left out, and why.

    If `machines` has every machine in the data root, the lines also list recordings
    outside the machine folders.
    """
    root, found = machine_root(data_root), {}
    are_all = set(map(nfc, machines)) >= set(find_machines(data_root))
    folders = machine_folders(root)
    for path in entries(root):
        if path not in folders:
            if are_all and holds_recordings(path):
                found[path.name] = ELSEWHERE
        elif nfc(path.name) in map(nfc, machines):
            listing = require_listing(path)
            for name, reason in listing.left_out.items():
                if name.split("/")[0] in FOLDERS_READ or reason in (BROKEN, UNREADABLE):
                    found[f"{path.name}/{name}"] = reason
            beside = {name.split("/")[0] for name in listing.recordings} - FOLDERS_READ
            found |= {f"{path.name}/{name}": ELSEWHERE for name in beside}
    return left_out_lines(root, found)


def note_left_out(data_root: Path, machines: Collection[str], log: Log) -> None:
    """Log each line of `left_out` as a note."""
    for line in left_out(data_root, machines):
        log.note(line)


def note_shared_clips(
    train: Mapping[str, Iterable[str]], test: NamedClips, log: Log
) -> None:
    """Log a note on test clips whose sound is identical to that of a training clip.

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
    """Log how much of each machine's training clips the reference channel explains.

    A reference that explains much probably hears the machine itself, and subtracting it
    removes the machine's sound.
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
                "hears the machine itself, unless the noise drowns the machine: move "
                "that microphone away, or fit without features.reference_channel"
            )
