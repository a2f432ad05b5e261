"""Parses names of clips and score files, and finds names that say "not normal".

Clips from 2020 are called `normal_id_01_00000000.wav`; later ones are called
`section_00_source_train_normal_0000_<attributes>.wav`, where parts may be missing (as
in `section_00_0000.wav`, or in 2024's `section_00_source_normal_0035_...`). Relying on
positions would silently mislabel such clips, so the parser looks for words.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

from gammavae_jax.errors import InputError, printable

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
    "source". A label is ignored unless `is_labelled` is true. A name with `id_` and no
    domain is from 2020, when all clips were from one domain, later called source; the
    official baseline reads such names the same way. A name without any of these parts
    has the section "00".
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
    """Parse the machine and section from a score file's name, or return None."""
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


# Words that say "not normal". Only whole words count: "broken", but not "unbroken".
# Neither negated words (`no_anomaly`, `fault-free`) nor the names of tasks
# (`anomaly_detection`) count, but a negated "normal" does.
_WORDS = {
    *("abnormal", "abnormality", "abnormalities", "nonnormal"),
    *("anomaly", "anomalies", "anomalous", "faulty", "fault", "faults"),
    *("broken", "damaged", "defect", "defective", "defects", "failure", "failures"),
    *("breakdown", "malfunction", "malfunctioning", "nok"),
}
_CAPITALS = {"NG"}  # "not good"; in small letters, it may be a name or a unit
_NEGATIONS_BEFORE = {"no", "non", "not", "without", "zero", "before"}
_NEGATIONS_AFTER = {
    *("free", "monitoring", "prediction", "diagnosis"),
    *("detection", "detector", "detectors"),
}
_NEGATIONS_OF_NORMAL = {"ab", "non", "not", "un"}
_TEST_WORDS = {"test", "tests", "testing"}  # in the name of a folder
_PLACES_OF_TESTS = {"bed", "bench", "rig", "room", "stand"}  # `test_bench` is a place
_NORMAL_FOLDERS = {"train", "normal"}
_WORD = re.compile(r"[^\W\d_]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+")
_TOKEN = re.compile(r"[^\W\d_]+")  # `AbNormal` is one token, but two words


def fault_word(name: str) -> str | None:
    """Return the first word in a name that means "not normal", or None.

    A name in the challenge's form whose label is "normal" is always accepted, because
    the attributes after the label may contain any words.
    """
    if section_word(name) and parse_clip_name(name).label == "normal":
        return None
    text = unicodedata.normalize("NFKC", name)
    found = (_first_fault(form.findall(text)) for form in (_WORD, _TOKEN))
    return next(filter(None, found), None)


def _first_fault(words: Sequence[str]) -> str | None:
    lower = [word.lower() for word in words]
    around = zip(["", *lower], lower, [*lower[1:], ""], words, strict=False)
    for before, word, after, written in around:
        if word == "normal" and before in _NEGATIONS_OF_NORMAL:
            return f"{before} {word}"
        is_negated = before in _NEGATIONS_BEFORE or after in _NEGATIONS_AFTER
        if (word in _WORDS or written in _CAPITALS) and not is_negated:
            return word
    return None


def require_normal_names(
    recordings: Iterable[tuple[str | PurePath, Sequence[str]]],
    remedy: str,
    kind: str = "training clip",
    why: str = "models learn from normal sounds only",
) -> None:
    """Reject recordings whose names say that the machine was not normal.

    Args:
        recordings: each recording's name, for the message, and the names to check: the
            recording's own and the names of the folders that contain it.
        remedy: what the user can do; this and the other arguments are for the message.
        kind: what the recordings are.
        why: why they have to be normal.

    Raises:
        InputError: a name contains a word such as "abnormal", or a recording is in a
            folder such as `test` or `test_data`, beside a folder `train` or `normal`.
    """
    recordings = list(recordings)
    found = ((n, filter(None, map(fault_word, parts))) for n, parts in recordings)
    named = [(name, word) for name, words in found if (word := next(words, None))]
    if named:
        name, word = named[0]
        several = f" ({len(named)} recordings have such names)" if named[1:] else ""
        raise InputError(
            f"{printable(name)}: the name or folder of this {kind} contains {word!r}, "
            f"but {why}: {remedy}{several}"
        )
    folders = [
        (name, tuple(parts[:n]), parts[n])
        for name, parts in recordings
        for n in range(1, len(parts) - 1)
    ]
    beside = defaultdict(set)
    for _, parent, folder in folders:
        beside[parent].add(folder.lower())
    for name, parent, folder in folders:
        normal = beside[parent] & _NORMAL_FOLDERS
        if normal and _holds_test_clips(folder):
            raise InputError(
                f"{printable(name)}: the folder {printable(folder)!r} is beside "
                f"{min(normal)!r}, and test clips may be anomalous: pass "
                f"the folder {min(normal)!r} only"
            )


def _holds_test_clips(folder: str) -> bool:
    words = [word.lower() for word in _WORD.findall(folder)]
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(w in _TEST_WORDS and after not in _PLACES_OF_TESTS for w, after in pairs)
