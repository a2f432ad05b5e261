"""Parses the names of clips and score files from every challenge year.

2020: `normal_id_01_00000000.wav`; from 2021 on:
`section_00_source_train_normal_0000_<attributes>.wav`, where parts may be missing
(as in anonymous `section_00_0000.wav`, or 2024's `section_00_source_normal_0035_...`).
Relying on positions would silently mislabel such clips, so the parser looks for words.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

from gammavae_jax.errors import InputError

DOMAINS = ("source", "target")
SPLITS = ("train", "test")
LABELS = ("normal", "anomaly")
AUDIO_SUFFIXES = (".wav", ".wave", ".flac")

# Line breaks, control characters, and surrogates, which are not valid UTF-8.
_UNWRITABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"

_LABELLED = re.compile(
    r"(?:section_\d+_)?(?:(?:source|target)_)?(?:(?:train|test)_)?"
    r"(?:normal|anomaly)(?:_id_\d+)?_\d+(?:_.*)?",
    re.DOTALL | re.ASCII,
)

FILE_NAME = re.compile(
    r"(?i:anomaly_score|decision_result|ground_truth)_(?:DCASE20\d\dT2)?"
    rf"(?P<machine>[^/\\{_UNWRITABLE}]+?)_(?P<word>section|id)_(?P<section>\d+)"
    r"(?P<domain>_source|_target)?(?:_test(?:_.*)?)?(?i:\.csv)"
)


class ClipName(NamedTuple):
    """The parts of a clip's name; a missing part is ""."""

    section: str  # "00" if the name has none; the machine id in 2020
    domain: str  # "source" or "target"
    split: str  # "train" or "test"
    label: str  # "normal" or "anomaly"
    index: str  # digits
    attributes: str  # everything after the index, unparsed


def nfc(name: str) -> str:
    """Return a name in composed Unicode (NFC); macOS stores file names decomposed."""
    return unicodedata.normalize("NFC", name)


def clip_stem(file_name: str) -> str:
    """Return a file's base name in NFC, without an audio suffix such as `.wav`."""
    path = PurePath(nfc(file_name))
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else path.name


def parse_clip_name(file_name: str) -> ClipName:
    """Parse a clip's name, with or without folders and the audio suffix.

    The index is the first number that does not belong to the section. Only words
    before the index count, because attribute values may also be words like "normal" or
    "source". A label counts only if the whole name follows the pattern of labelled
    clips: `not_normal_3.wav` has none. A name with `id_` and no domain is from 2020,
    when all clips were from one domain, later called source; the official baseline
    reads such names the same way.

    This never fails: for a name without any of these parts, the section is "00" and all
    other parts are "".
    """
    tokens = clip_stem(file_name).split("_")
    section, at = _section_and_index(tokens)
    words, index, rest = tokens[:at], tokens[at : at + 1], tokens[at + 1 :]
    return ClipName(
        section=section[1],
        domain=_first(words, DOMAINS) or ("source" if section[0] == "id" else ""),
        split=_first(words, SPLITS),
        label=_first(words, LABELS) if is_labelled(file_name) else "",
        index="".join(index),
        attributes="_".join(rest),
    )


def is_labelled(file_name: str) -> bool:
    """Return whether the whole name follows the pattern of labelled clips.

    The word "normal" alone is not enough: `not_normal_3.wav` is not labelled.
    """
    return _LABELLED.fullmatch(clip_stem(file_name)) is not None


def section_word(file_name: str) -> str:
    """Return the word before the section's number: "section", "id" (2020) or ""."""
    (word, _), _ = _section_and_index(clip_stem(file_name).split("_"))
    return word


def _section_and_index(tokens: list[str]) -> tuple[tuple[str, str], int]:
    """Return the word before the section, the section, and the index's position."""
    section, at = ("", "00"), 0
    while at < len(tokens) and not tokens[at].isdecimal():
        is_section = tokens[at] in ("section", "id")
        if is_section and at + 1 < len(tokens) and tokens[at + 1].isdecimal():
            section = tokens[at], tokens[at + 1]
            at += 1
        at += 1
    return section, at


def _first(words: list[str], vocabulary: tuple[str, ...]) -> str:
    return next((word for word in words if word in vocabulary), "")


def machine_and_section(file_name: str) -> tuple[str, str] | None:
    """Parse the machine and section from a score file's name; None for other names."""
    match = FILE_NAME.fullmatch(file_name)
    return (match["machine"], match["section"]) if match else None


def require_names(machine: str, section: str, names: Iterable[str]) -> None:
    """Raise an InputError if score files cannot contain these names."""
    file_name = f"anomaly_score_{machine}_section_{section}_test.csv"
    if machine_and_section(file_name) != (machine, section):
        raise InputError(
            f"machine {machine!r} and section {section!r} cannot be part of a score "
            "file's name: use letters and digits, and only digits for the section"
        )
    for name in names:
        if not name or re.search(f"[{_UNWRITABLE}]", name):
            problem = f"the name {name!r} cannot be written to a score file"
            raise InputError(f"{problem}: rename the recording")
