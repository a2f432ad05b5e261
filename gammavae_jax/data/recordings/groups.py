"""Groups training recordings that are related, such as recordings from one session.

Clips of one group are held out together and never compared with each other. Clips with
the same attributes are not compared either, but need not be held out together.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from gammavae_jax.data.clips import Clips, NamedClips, group_numbers, without_attributes
from gammavae_jax.data.machines import ClipFile, is_supplemental
from gammavae_jax.data.names import is_labelled, nfc, section_word
from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.errors import InputError, names_text, printable

_MOST_NAMES = 3  # in a note
_LARGEST_SHARE = 0.2  # of the clips with equal attributes, as of one fold of five


def group_clips(train: NamedClips, pattern: str) -> list[Int[np.ndarray, "_"]]:
    """Return, for every machine, the group number of each clip.

    Clips of one group (see `with_groups`) have the same number. If there are no groups,
    clips cut from one recording have the same number. A pattern also groups clips in
    whose paths it matches the same text: the text in its parentheses if it has any,
    otherwise the whole match. An empty pattern groups nothing.

    Raises:
        InputError: no clip of any machine matches the pattern, or all recordings of a
            machine form one group.
    """
    recordings = [group_numbers(clips) for _, clips in train]
    if not pattern:
        return recordings
    groups, is_found = [], False
    for (name, clips), recording in zip(train, recordings, strict=True):
        found = _matches(clips, pattern)
        is_found |= any(found)
        groups.append(
            _numbered(
                ("group", match.groups() or match.group()) if match else ("clip", own)
                for match, own in zip(found, recording.tolist(), strict=True)
            )
        )
        _require_two_groups(name, groups[-1], recording)
    if not is_found:
        name = printable(train[0][1].files[0].path)
        raise InputError(
            f"no training recording matches train.group_by={pattern!r}: choose a "
            f"pattern that is found in paths like {name}"
        )
    return groups


def _matches(clips: Clips, pattern: str) -> list[re.Match[str] | None]:
    """Search each clip's path for a pattern, after normalising both to NFC."""
    compiled = re.compile(nfc(pattern))
    return [compiled.search(nfc(file.path.as_posix())) for file in clips.files]


def unmatched_note(train: NamedClips, pattern: str) -> str:
    """Return a note that names recordings without a match, or "" if there are none."""
    if not pattern:
        return ""
    every = {
        (name, file.path): match
        for name, clips in train
        for file, match in zip(clips.files, _matches(clips, pattern), strict=True)
    }
    names = [printable(path) for (_, path), match in every.items() if not match]
    if not names:
        return ""
    return (
        f"{len(names)} of {len(every)} training recordings do not match "
        f"train.group_by={pattern!r} ({names_text(names, _MOST_NAMES)}): each is "
        "treated as a group of its own"
    )


def group_by_attributes(clips: Clips) -> Int[np.ndarray, "clip"]:
    """Number clips so that clips with the same attributes have the same number.

    File names of the challenge (`section_00_source_train_normal_0000_car_B1.wav`) state
    attributes after the clip's index. A clip without attributes has a number of its
    own. So does every clip if more than a fifth of the clips, not counting supplemental
    clips, have the same attributes; otherwise, too few clips could be compared.
    """
    stated = [f.name.attributes if _is_challenge(f) else "" for f in clips.files]
    groups = _numbered(
        index if attributes in ("", "noAttribute") else attributes
        for index, attributes in enumerate(stated)
    )
    counted = groups[[not is_supplemental(file) for file in clips.files]]
    largest = np.bincount(counted).max(initial=0)
    is_useful = largest <= _LARGEST_SHARE * len(counted)
    return groups if is_useful else np.arange(len(groups))


def _is_challenge(file: ClipFile) -> bool:
    """Return whether a clip's name has the form that states attributes."""
    name = file.path.name
    return is_labelled(name) and section_word(name) == "section"


def with_groups(
    loaded: Mapping[str, LoadedRecordings], groups: Any, needs_two: bool = True
) -> dict[str, LoadedRecordings]:
    """Give each clip the number of its recording's group.

    Args:
        loaded: the recordings of each machine.
        groups: the label of each recording's group, in the order of the recordings; a
            dict of such sequences if there are several machines. None: no groups.
        needs_two: whether several recordings must form at least two groups.

    Raises:
        InputError: the labels do not match the recordings, or form too few groups.
    """
    if groups is None:
        return dict(loaded)
    if not isinstance(groups, Mapping):
        groups = dict.fromkeys(loaded, groups) if len(loaded) == 1 else {}
    unknown = [name for name in loaded if name not in groups]
    if unknown or len(groups) != len(loaded):
        raise InputError(
            "the argument 'groups' must cover the same machines as the recordings: "
            f"pass a dict with the keys {', '.join(map(printable, loaded))}"
        )
    return {
        name: _with_groups(name, of, groups[name], needs_two)
        for name, of in loaded.items()
    }


def _with_groups(
    name: str, loaded: LoadedRecordings, groups: Any, needs_two: bool
) -> LoadedRecordings:
    labels: Sequence[Any] = () if isinstance(groups, str | bytes) else list(groups)
    if len(labels) != len(loaded.names):
        raise InputError(
            f"{printable(name)}: the argument 'groups' has {len(labels)} labels for "
            f"{len(loaded.names)} usable recordings: pass one label for each recording"
        )
    for recording, label in enumerate(labels):
        if label is None or label != label:  # NaN, from a table
            raise InputError(
                f"{printable(name)}: the argument 'groups' has no label for recording "
                f"{recording}: pass a unique label for a recording without a group"
            )
    number = _numbered(nfc(str(label)) for label in labels)
    if needs_two:
        _require_two_groups(name, number, np.arange(len(number)))
    # The labels decide, not the attributes in the names.
    files = without_attributes(loaded.clips.files)
    clips = loaded.clips._replace(files=files, group=number[loaded.recording])
    return loaded._replace(clips=clips)


def _require_two_groups(
    name: str, groups: Int[np.ndarray, "clip"], recordings: Int[np.ndarray, "clip"]
) -> None:
    """Raise an InputError if there are several recordings but only one group."""
    if len(np.unique(groups)) == 1 < len(np.unique(recordings)):
        raise InputError(
            f"{printable(name)}: all recordings are in one group, so none can be held "
            "out: use at least two groups, or no groups"
        )


def _numbered(labels: Iterable[Any]) -> Int[np.ndarray, "_"]:
    """Return a number for each label; equal labels get the same number."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], int)
