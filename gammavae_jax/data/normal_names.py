"""Rejects normal recordings whose names say that the machine was not normal.

Only whole words count: "abnormal" counts in `pump_abnormal_01.wav`, but "broken" does
not count in `unbroken.wav`. A word that is negated (`no_anomaly`, `fault-free`) or part
of the name of the task (`anomaly_detection`) does not count, but a negated "normal"
does. Recordings in a folder `test` or `test_data` beside a folder `train` are rejected
as well.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from gammavae_jax.data.names import parse_clip_name, section_word
from gammavae_jax.errors import InputError, printable

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
    """Return a name's first word that means "not normal", or None.

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
    """Reject recordings whose names contain a word such as "abnormal".

    Args:
        recordings: each recording's name, for the message, and the names to check:
            those of the folders that contain the recording, and its own.
        remedy: what the user can do, for the message.
        kind: what the recordings are, for the message.
        why: why they have to be normal, for the message.

    Raises:
        InputError: a name contains such a word, or a recording is in a folder whose
            name contains the word "test", beside a folder `train` or `normal`.
    """
    recordings = list(recordings)
    named = [(n, w) for n, parts in recordings if (w := _first_word(parts)) is not None]
    if named:
        name, word = named[0]
        several = f" ({len(named)} recordings have such names)" if named[1:] else ""
        raise InputError(
            f"{printable(name)}: the name or folder of this {kind} contains {word!r}, "
            f"but {why}: {remedy}{several}"
        )
    beside = defaultdict(set)
    for _, parts in recordings:
        for n in range(1, len(parts) - 1):
            beside[tuple(parts[:n])].add(parts[n].lower())
    for name, parts in recordings:
        for n in range(1, len(parts) - 1):
            normal = beside[tuple(parts[:n])] & _NORMAL_FOLDERS
            if normal and _holds_test_clips(parts[n]):
                raise InputError(
                    f"{printable(name)}: the folder {printable(parts[n])!r} is beside "
                    f"{min(normal)!r}, and test clips may be anomalous: pass "
                    f"the folder {min(normal)!r} only"
                )


def _holds_test_clips(folder: str) -> bool:
    words = [word.lower() for word in _WORD.findall(folder)]
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(w in _TEST_WORDS and after not in _PLACES_OF_TESTS for w, after in pairs)


def _first_word(parts: Sequence[str]) -> str | None:
    return next(filter(None, map(fault_word, parts)), None)
