"""The `name,value` rows of score files and ground truth, matched by clip name.

Clip names are compared without their folder and without `.wav` or `.flac`.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gammavae_jax.data.names import FILE_NAME, clip_stem
from gammavae_jax.errors import InputError

Section = tuple[str, str]  # machine and section


def file_name(kind: str, machine: str, section: str) -> str:
    """Return the name of a challenge file; `kind` is `anomaly_score` or the like."""
    return f"{kind}_{machine}_section_{section}_test.csv"


def find_files(folder: Path, kind: str) -> dict[Section, tuple[Path, ...]]:
    """Find the files `<kind>_*.csv` in a folder, sorted by machine and section.

    A section has one file, or one for each domain. Any other file of that kind is an
    InputError, and so is a missing folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one with {kind}_*.csv files")
    found: dict[Section, dict[str | None, Path]] = {}
    for path in filter(Path.is_file, folder.glob(f"{kind}_*.csv")):
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            remedy = f"name it {file_name(kind, '<machine>', '<id>')}"
            raise InputError(f"{path} names no machine and section: {remedy}")
        of_section = found.setdefault((match["machine"], match["section"]), {})
        domain = match["domain"]
        others = of_section if domain is None else {None, domain} & of_section.keys()
        for other in others:
            first, second = sorted([of_section[other].name, path.name])
            problem = f"{folder} has {first} and {second} for one section"
            raise InputError(f"{problem}: keep one")
        of_section[domain] = path
    return {key: tuple(sorted(found[key].values())) for key in sorted(found)}


def require_files(
    wanted: dict[Section, tuple[Path, ...]],
    folder: Path,
    kind: str,
    found: dict[Section, tuple[Path, ...]],
) -> None:
    """Raise an InputError that names the first wanted file a folder does not have."""
    for key in sorted(wanted.keys() - found.keys()):
        remedy = f"add it, or remove {join_paths(wanted[key])}"
        raise InputError(f"{folder} has no {file_name(kind, *key)}: {remedy}")


def join_paths(paths: tuple[Path, ...]) -> str:
    """Return the paths as they read in a message."""
    return " and ".join(map(str, paths))


def year_of_files(folder: Path) -> int | None:
    """Return 2020 or 2021 if all score files have that year's names, else None.

    The year of any other folder is None. Raises an InputError as `find_files` does.
    """
    paths = [p for ps in find_files(folder, "anomaly_score").values() for p in ps]
    names = {match.groups() for p in paths if (match := FILE_NAME.fullmatch(p.name))}
    if {word for _, word, _, _ in names} == {"id"}:
        return 2020
    domains = {domain for *_, domain in names}
    return 2021 if domains and None not in domains else None


_NUMBER = re.compile(r"[-+.0-9eE\s]+", re.ASCII)
# A line such as `x.wav;0,5` of a spreadsheet that writes decimal commas, cut at the
# comma: the name would end in a separator and the digits before the comma.
_NAME_AND_NUMBER = re.compile(
    r".*(?:[;\t|]\s*[-+]?[\d.]*|\.(?:wav|flac)\W+\d[\d.]*)\s*",
    re.DOTALL | re.IGNORECASE,
)


def flags_by_clip(
    path: Path | str, rows: dict[str, list[str]], clip_of: dict[str, str]
) -> dict[str, bool]:
    """Return `values_by_clip` as booleans, or raise an InputError for another value."""
    values = values_by_clip(path, rows, clip_of)
    for clip, value in values.items():
        if value not in (0, 1):
            raise InputError(f"{path}: the value of {clip!r} is {value}: give 0 or 1")
    return {clip: value == 1 for clip, value in values.items()}


def values_by_clip(
    path: Path | str, rows: dict[str, list[str]], clip_of: dict[str, str]
) -> dict[str, float]:
    """Return one number for each clip, by the clip's first name.

    `rows` come from `read_rows`, `path` is for messages, and `clip_of` has each clip's
    first name by every name it may have. Raises an InputError unless every clip has one
    finite number.
    """
    values: dict[str, float] = {}
    refuse_duplicates(path, (clip_of.get(name, name) for name in rows))
    for name, fields in rows.items():
        number = _number(path, name, fields)  # first, to name a header as what it is
        if name not in clip_of:
            raise InputError(f"{path}: the clip {name!r} is unknown: remove it")
        values[clip_of[name]] = number
    for clip in clip_of.values():
        if clip not in values:
            raise InputError(f"{path}: the clip {clip!r} is missing: add it")
    return values


def _number(path: Path | str, name: str, fields: list[str]) -> float:
    try:
        # `float` alone also accepts 1_0 and the digits of other scripts.
        value = float(fields[0]) if _NUMBER.fullmatch(fields[0]) else math.nan
    except ValueError:
        value = math.nan
    if len(fields) > 1 or not math.isfinite(value):
        problem = f"{path}: the value of {name!r} is {','.join(fields)!r}"
        remedy = "give one finite number with a decimal point, and no header"
        raise InputError(f"{problem}: {remedy}")
    return value


def read_rows(*paths: Path) -> dict[str, list[str]]:
    """Return the fields after each clip name in the files of one section.

    They are given by the clip's name without suffix. A line without a value is an
    InputError, and so is a clip that is listed twice.
    """
    rows: dict[str, list[str]] = {}
    for path in paths:
        lines = read_lines(path)
        for line in lines:
            if len(line) < 2:
                raise InputError(f"{path}: {line[0]!r} has no value: write name,value")
        refuse_duplicates(path, [*rows, *(clip_stem(line[0]) for line in lines)])
        rows |= {clip_stem(line[0]): line[1:] for line in lines}
    return rows


def read_lines(path: Path) -> list[list[str]]:
    """Return the fields of each line that is not blank, or raise an InputError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        problem = f"{path} is not CSV text ({error})"
        raise InputError(f"{problem}: write it as UTF-8") from error
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{path} is empty: write a line name,value for each clip")
    for name, *values in lines:
        if values and _NAME_AND_NUMBER.fullmatch(name):
            raise InputError(
                f"{path}: {','.join([name, *values])!r} has a decimal comma or another "
                "separator than a comma: write name,value with a decimal point"
            )
    return lines


def refuse_duplicates(path: Path | str, clips: Iterable[str]) -> None:
    """Raise an `InputError` that names `path` and the first clip listed twice."""
    for clip, count in Counter(clips).items():
        if count > 1:
            problem = f"{path}: the clip {clip!r} is listed {count} times"
            raise InputError(f"{problem}: keep one")
