"""Reads the `name,value` rows of score files and ground truth.

Clip names are compared without their folder and without `.wav` or `.flac`. Differences
in Unicode form are ignored, and so are differences in case where that is unambiguous.
"""

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from gammavae_jax.data.names import FILE_NAME, clip_stem, nfc
from gammavae_jax.errors import InputError
from gammavae_jax.files import read_bytes

Section = tuple[str, str]  # machine and section


def file_name(kind: str, machine: str, section: str) -> str:
    """Return a challenge file's name; `kind` is a prefix such as `anomaly_score`."""
    return f"{kind}_{machine}_section_{section}_test.csv"


def find_files(folder: Path, kind: str) -> dict[Section, tuple[Path, ...]]:
    """Find the files `<kind>_*.csv` in a folder, sorted by machine and section.

    The prefix and the suffix may be in upper or lower case. A section has one file, or
    one for each domain. See `left_out_files` for the files that are ignored.

    Raises:
        InputError: the folder cannot be listed, or a CSV file with the prefix has an
            invalid name or overlaps with another file of its section.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: pass one with {kind}_*.csv files")
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        problem = f"{folder} cannot be listed: {error.strerror}"
        raise InputError(f"{problem}: pass a folder that this user can read") from error
    found: dict[Section, dict[str | None, Path]] = {}
    for path in paths:
        if not _is_of_kind(path, kind) or not _is_csv(path):
            continue
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            remedy = f"rename it to {file_name(kind, '<machine>', '<id>')}"
            problem = f"the file name {path} must contain a machine and a section"
            raise InputError(f"{problem}: {remedy}")
        of_section = found.setdefault((nfc(match["machine"]), match["section"]), {})
        domain = match["domain"]
        others = of_section if domain is None else {None, domain} & of_section.keys()
        for other in others:
            first, second = sorted([of_section[other].name, path.name])
            problem = f"{folder} has {first} and {second} for the same section"
            raise InputError(f"{problem}: keep only one")
        of_section[domain] = path
    return {key: tuple(sorted(found[key].values())) for key in sorted(found)}


def _is_of_kind(path: Path, kind: str) -> bool:
    return path.name.lower().startswith(f"{kind}_")


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and not path.is_dir()


def left_out_files(folder: Path) -> list[str]:
    """Return the paths in a folder that are named like score files but are not read.

    Such files are in a subfolder, or their suffix is not `.csv`.
    """
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if any(_is_of_kind(path, kind) for kind in ("anomaly_score", "decision_result"))
        and (path.parent != folder or not _is_csv(path))
    )


def require_files(
    wanted: dict[Section, tuple[Path, ...]],
    folder: Path,
    kind: str,
    found: dict[Section, tuple[Path, ...]],
) -> None:
    """Raise an InputError if a wanted file is missing; the message names the file."""
    for key in sorted(wanted.keys() - found.keys()):
        remedy = f"add it, or remove {join_paths(wanted[key])}"
        raise InputError(f"{folder} has no {file_name(kind, *key)}: {remedy}")


def join_paths(paths: tuple[Path, ...]) -> str:
    """Join paths with "and", for a message."""
    return " and ".join(map(str, paths))


def year_of_files(folder: Path) -> int | None:
    """Return 2020 or 2021 if all score files are named as in that year, or else None.

    Raises:
        InputError: see `find_files`.
    """
    paths = [p for ps in find_files(folder, "anomaly_score").values() for p in ps]
    names = {match.groups() for p in paths if (match := FILE_NAME.fullmatch(p.name))}
    if {word for _, word, _, _ in names} == {"id"}:
        return 2020
    domains = {domain for *_, domain in names}
    return 2021 if domains and None not in domains else None


_NUMBER = re.compile(r"[-+.0-9eE\s]+", re.ASCII)
# A spreadsheet with decimal commas writes lines such as `x.wav;0,5`. If such a line is
# split at the comma, the name ends in a separator and digits.
_NAME_AND_NUMBER = re.compile(
    r".*(?:[;\t|]\s*[-+]?[\d.]*|\.(?:wav|flac)\W+\d[\d.]*)\s*",
    re.DOTALL | re.IGNORECASE,
)


def flags_by_clip(
    path: Path | str, rows: dict[str, list[str]], clip_of: dict[str, str]
) -> dict[str, bool]:
    """Read values as `values_by_clip` does and require each to be 0 or 1."""
    values = values_by_clip(path, rows, clip_of)
    for clip, value in values.items():
        if value not in (0, 1):
            raise InputError(f"{path}: the value of {clip!r} is {value}: write 0 or 1")
    return {clip: value == 1 for clip, value in values.items()}


def values_by_clip(
    path: Path | str, rows: dict[str, list[str]], clip_of: dict[str, str]
) -> dict[str, float]:
    """Return each clip's value as a number, keyed by the clip's original name.

    `rows` come from `read_rows`, messages begin with `path`, and `clip_of` maps every
    possible name of a clip to its original name.

    Raises:
        InputError: a clip does not have exactly one finite number.
    """
    values: dict[str, float] = {}
    clip_of = clip_of | {
        name: clip_of[known] for name, known in _other_case(rows, clip_of).items()
    }
    refuse_duplicates(path, (clip_of.get(name, name) for name in rows))
    for name, fields in rows.items():
        number = _number(path, name, fields)  # first, because it also rejects headers
        if name not in clip_of:
            raise InputError(f"{path}: the clip {name!r} is unknown: remove it")
        values[clip_of[name]] = number
    for clip in clip_of.values():
        if clip not in values:
            raise InputError(f"{path}: the clip {clip!r} is missing: add it")
    return values


def _other_case(rows: Iterable[str], clip_of: Mapping[str, str]) -> dict[str, str]:
    """Map unknown names to known names that differ only in case, if unambiguous."""
    known: dict[str, set[str]] = defaultdict(set)
    for name in clip_of:
        known[name.casefold()].add(name)
    others = (name for name in rows if name not in clip_of)
    found = {name: known[name.casefold()] for name in others}
    return {name: min(names) for name, names in found.items() if len(names) == 1}


def _number(path: Path | str, name: str, fields: list[str]) -> float:
    try:
        # `float` alone also accepts 1_0 and the digits of other scripts.
        value = float(fields[0]) if _NUMBER.fullmatch(fields[0]) else math.nan
    except ValueError:
        value = math.nan
    if len(fields) > 1 or not math.isfinite(value):
        problem = f"{path}: the value of {name!r} is {','.join(fields)!r}"
        remedy = "write one finite number per clip, with a decimal point, and no header"
        raise InputError(f"{problem}: {remedy}")
    return value


def read_rows(*paths: Path) -> dict[str, list[str]]:
    """Read one section's files; return each clip's fields, keyed by its name.

    Names have no suffix such as `.wav`.

    Raises:
        InputError: a line has no value, or a clip is listed twice.
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
    """Return the fields of each line that is not blank.

    Raises:
        InputError: the file is empty, or cannot be read as CSV.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        problem = f"{path} is not CSV text ({error})"
        raise InputError(f"{problem}: save it as UTF-8 CSV") from error
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{path} is empty: write one name,value line per clip")
    for name, *values in lines:
        if values and _NAME_AND_NUMBER.fullmatch(name):
            raise InputError(
                f"{path}: {','.join([name, *values])!r} has a decimal comma, or a "
                "separator that is not a comma: write name,value with a decimal point"
            )
    return lines


def refuse_duplicates(path: Path | str, clips: Iterable[str]) -> None:
    """Raise an InputError if a clip is listed twice; the message begins with `path`."""
    for clip, count in Counter(clips).items():
        if count > 1:
            problem = f"{path}: the clip {clip!r} is listed {count} times"
            raise InputError(f"{problem}: keep only one")
