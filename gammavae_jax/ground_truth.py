"""What is known of a section's clips, and files and values matched to them by name.

Labels and domains come from the clips' names or from the files that the official
evaluators ship. Such a file, like a score file, is lines of `name,value` without a
header, and its own name tells machine and section. Clips are matched by name without
`.wav` or `.flac`, never by order: the official evaluators sort both sides and drop the
names, so that one wrong name shifts every label after it.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.clip_name import clip_stem, parse_clip_name
from gammavae_jax.errors import InputError

_FILE_NAME = re.compile(
    r"(?:anomaly_score|decision_result|ground_truth)_(?:DCASE20\d\dT2)?"
    r"(?P<machine>[^/\\\x00-\x1f]+?)_(?:section|id)_(?P<section>\d+)"
    r"(?:_test(?:_.*)?)?\.csv"
)


class GroundTruth(NamedTuple):
    """Labels and domains of a section; clips go by their names without suffix."""

    is_anomaly: dict[str, bool]
    is_target: dict[str, bool]
    clip_of: dict[str, str]  # every name that a clip may have


def truth_from_names(path: Path, clips: Iterable[str]) -> GroundTruth:
    """What the clips' names tell; clips that do not tell their domain are source.

    `path` is where the names were read, for the message.

    Raises:
        InputError: a name without a label.
    """
    names = {clip: parse_clip_name(clip) for clip in clips}
    for clip, name in names.items():
        if not name.label:
            raise InputError(
                f"{path}: {clip!r} is called neither normal nor anomaly: "
                "give the folder with the ground truth"
            )
    return GroundTruth(
        is_anomaly={clip: name.label == "anomaly" for clip, name in names.items()},
        is_target={clip: name.domain == "target" for clip, name in names.items()},
        clip_of={clip: clip for clip in names},
    )


def truth_from_files(data: Path) -> GroundTruth:
    """What a file in `ground_truth_data` and those of its name beside it tell.

    `ground_truth_attributes` gives clips the names that they got later, and
    `ground_truth_domain` their domains (1: target); without it, the names tell them.

    Raises:
        InputError: a file that `read_rows` or `flags_by_clip` refuses, or a clip whose
            domain neither file nor name tells.
    """
    domain, attributes = (
        data.parent.with_name(f"ground_truth_{kind}") / data.name
        for kind in ("domain", "attributes")
    )
    rows = read_rows(data)
    clip_of = {clip: clip for clip in rows}
    is_anomaly = flags_by_clip(data, rows, clip_of)
    if attributes.exists():
        aliases = read_rows(attributes)
        clip_of |= {clip_stem(a): clip for clip in rows for a in aliases.get(clip, [])}
    if domain.exists():
        is_target = flags_by_clip(domain, read_rows(domain), clip_of)
    else:
        is_target = _domains_from_names(domain, clip_of)
    return GroundTruth(is_anomaly, is_target, clip_of)


def _domains_from_names(path: Path, clip_of: dict[str, str]) -> dict[str, bool]:
    domains = {clip: parse_clip_name(name).domain for name, clip in clip_of.items()}
    for clip, domain in domains.items():
        if not domain:
            raise InputError(f"{path} is missing, and {clip!r} tells no domain: add it")
    return {clip: domain == "target" for clip, domain in domains.items()}


def flags_by_clip(
    path: Path, rows: dict[str, list[str]], clip_of: dict[str, str]
) -> dict[str, bool]:
    """`values_by_clip` of a file whose values are 0 (false) and 1 (true).

    Raises:
        InputError: another value, or what `values_by_clip` refuses.
    """
    values = values_by_clip(path, rows, clip_of)
    for clip, value in values.items():
        if value not in (0, 1):
            raise InputError(f"{path}: the value of {clip!r} is {value}: give 0 or 1")
    return {clip: value == 1 for clip, value in values.items()}


def values_by_clip(
    path: Path, rows: dict[str, list[str]], clip_of: dict[str, str]
) -> dict[str, float]:
    """One number for each clip, by the clip's first name.

    Args:
        path: the file of the rows, for the message.
        rows: as `read_rows` gives them.
        clip_of: the clip's first name, by each of its names.

    Raises:
        InputError: a clip that is unknown, missing or there under two names, or a
            value that is not one finite number.
    """
    values: dict[str, float] = {}
    refuse_doubled(path, (clip_of.get(name, name) for name in rows))
    for name, fields in rows.items():
        number = _number(path, name, fields)  # first: a header is no unknown clip
        if name not in clip_of:
            raise InputError(f"{path}: the clip {name!r} is unknown: take it away")
        values[clip_of[name]] = number
    for clip in clip_of.values():
        if clip not in values:
            raise InputError(f"{path}: the clip {clip!r} is missing: add it")
    return values


def _number(path: Path, name: str, fields: list[str]) -> float:
    try:
        value = float(fields[0])
    except ValueError:
        value = math.nan
    if len(fields) > 1 or not math.isfinite(value):
        text = ",".join(fields)
        raise InputError(
            f"{path}: the value of {name!r} is {text!r}: give one finite number"
        )
    return value


def read_rows(path: Path) -> dict[str, list[str]]:
    """The fields after each name, by name without suffix; blank lines do not count.

    Raises:
        InputError: a file that is unreadable, no UTF-8 CSV or empty, a line without a
            value, or a clip that comes twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} is no CSV text ({error}): write it as UTF-8"
        ) from error
    lines = [line for line in lines if line]
    for line in lines:
        if len(line) < 2:
            raise InputError(f"{path}: {line[0]!r} has no value: write name,value")
    if not lines:
        raise InputError(f"{path} is empty: write a line name,value for each clip")
    refuse_doubled(path, (clip_stem(line[0]) for line in lines))
    return {clip_stem(line[0]): line[1:] for line in lines}


def refuse_doubled(path: Path, clips: Iterable[str]) -> None:
    """Raise an `InputError` that names the first clip which comes twice, and `path`."""
    for clip, count in Counter(clips).items():
        if count > 1:
            raise InputError(f"{path}: the clip {clip!r} comes {count} times: keep one")


def machine_and_section(file_name: str) -> tuple[str, str] | None:
    """What the name of a score, decision or ground truth file tells; None if not both.

    `<kind>_<machine>_section_<id>_test.csv`; the baseline's own names, with a data set
    before the machine and a tag at the end, and those of 2020 (`_id_`) are read too.
    """
    match = _FILE_NAME.fullmatch(file_name)
    return (match["machine"], match["section"]) if match else None


def find_files(folder: Path, kind: str) -> dict[tuple[str, str], Path]:
    """The files `<kind>_*.csv` in a folder by machine and section, sorted.

    Raises:
        InputError: no folder, a file whose name does not tell its section, or two
            files for one section.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one that holds {kind}_*.csv")
    found: dict[tuple[str, str], Path] = {}
    for path in filter(Path.is_file, folder.glob(f"{kind}_*.csv")):
        key = machine_and_section(path.name)
        if key is None:
            raise InputError(
                f"{path} names no machine and section: "
                f"name it {kind}_<machine>_section_<id>_test.csv"
            )
        if key in found:
            first, second = sorted([found[key].name, path.name])
            raise InputError(
                f"{folder} has {first} and {second} for one section: keep one"
            )
        found[key] = path
    return dict(sorted(found.items()))


def require_files(
    wanted: dict[tuple[str, str], Path],
    folder: Path,
    kind: str,
    found: dict[tuple[str, str], Path],
) -> None:
    """Refuse sections that are in `wanted` but not among the files found in a folder.

    Raises:
        InputError: names the first such section's missing file and its file in
            `wanted`.
    """
    for machine, section in sorted(wanted.keys() - found.keys()):
        raise InputError(
            f"{folder} has no {kind}_{machine}_section_{section}_test.csv: "
            f"add it, or take away {wanted[machine, section]}"
        )
