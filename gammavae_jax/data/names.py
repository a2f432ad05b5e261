"""What a clip's file name says: the naming of every challenge year, read by token.

2020: `normal_id_01_00000000.wav`; from 2021 on:
`section_00_source_train_normal_0000_<attributes>.wav`, whose parts may be missing
(anonymous `section_00_0000.wav`, 2024's `section_00_source_normal_0035_...`). Fixed
positions mislabel such names silently, so only words are looked for.
"""

from pathlib import PurePath
from typing import NamedTuple

DOMAINS = ("source", "target")
SPLITS = ("train", "test")
LABELS = ("normal", "anomaly")
AUDIO_SUFFIXES = (".wav", ".flac")


class ClipName(NamedTuple):
    """The parts of a clip's name; "" stands for what the name does not say."""

    section: str  # "00" where the name has none; the machine id in 2020
    domain: str  # "source" or "target"
    split: str  # "train" or "test"
    label: str  # "normal" or "anomaly"
    index: str  # digits
    attributes: str  # everything after the index, as it stands


def clip_stem(file_name: str) -> str:
    """The base name without `.wav` or `.flac`; other dots belong to the name."""
    path = PurePath(file_name)
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else path.name


def parse_clip_name(file_name: str) -> ClipName:
    """Read a clip's name, with or without folders and the audio suffix.

    The index is the first number that is not the section's. Only words before it
    count, as attribute values may be words like "normal" or "source" too. A name with
    `id_` and no domain is of 2020, when every clip was what later is called source:
    the official baseline reads it so.

    Never fails: a name that carries nothing gives section "00" and unknowns.
    """
    tokens = clip_stem(file_name).split("_")
    section, at = _section_and_index(tokens)
    words, index, rest = tokens[:at], tokens[at : at + 1], tokens[at + 1 :]
    return ClipName(
        section=section[1],
        domain=_first(words, DOMAINS) or ("source" if section[0] == "id" else ""),
        split=_first(words, SPLITS),
        label=_first(words, LABELS),
        index="".join(index),
        attributes="_".join(rest),
    )


def names_section(file_name: str) -> bool:
    """Whether a name tells a section or a machine id at all."""
    (word, _), _ = _section_and_index(clip_stem(file_name).split("_"))
    return bool(word)


def has_machine_id(file_name: str) -> bool:
    """Whether a name is of 2020, when machines had ids and no sections."""
    (word, _), _ = _section_and_index(clip_stem(file_name).split("_"))
    return word == "id"


def _section_and_index(tokens: list[str]) -> tuple[tuple[str, str], int]:
    """What the section is called and its number, and the place of the index."""
    section, at = ("", "00"), 0
    while at < len(tokens) and not tokens[at].isdecimal():
        names_section = tokens[at] in ("section", "id")
        if names_section and at + 1 < len(tokens) and tokens[at + 1].isdecimal():
            section = tokens[at], tokens[at + 1]
            at += 1
        at += 1
    return section, at


def _first(words: list[str], known: tuple[str, ...]) -> str:
    return next((word for word in words if word in known), "")
