"""Lines of `name,value`, as score files and ground truth have them, matched by name.

A clip's name is taken without folders and without `.wav` or `.flac`.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gammavae_jax.data.names import clip_stem
from gammavae_jax.data.score_file_names import FILE_NAME
from gammavae_jax.errors import InputError

Section = tuple[str, str]  # machine and section


def find_files(folder: Path, kind: str) -> dict[Section, tuple[Path, ...]]:
    """The files `<kind>_*.csv` in a folder by machine and section, sorted.

    Raises:
        InputError: no folder, a file whose name does not tell its section, or two
            files for one section, unless each is of a domain of its own.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one that holds {kind}_*.csv")
    found: dict[Section, dict[str | None, Path]] = {}
    for path in filter(Path.is_file, folder.glob(f"{kind}_*.csv")):
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            raise InputError(
                f"{path} names no machine and section: "
                f"name it {kind}_<machine>_section_<id>_test.csv"
            )
        of_section = found.setdefault((match["machine"], match["section"]), {})
        domain = match["domain"]
        others = of_section if domain is None else {None, domain} & of_section.keys()
        for other in others:
            first, second = sorted([of_section[other].name, path.name])
            raise InputError(
                f"{folder} has {first} and {second} for one section: keep one"
            )
        of_section[domain] = path
    return {key: tuple(sorted(found[key].values())) for key in sorted(found)}


def require_files(
    wanted: dict[Section, tuple[Path, ...]],
    folder: Path,
    kind: str,
    found: dict[Section, tuple[Path, ...]],
) -> None:
    """Refuse sections that are in `wanted` but not among the files found in a folder.

    Raises:
        InputError: names the first such section's missing file and its file in
            `wanted`.
    """
    for machine, section in sorted(wanted.keys() - found.keys()):
        raise InputError(
            f"{folder} has no {kind}_{machine}_section_{section}_test.csv: "
            f"add it, or take away {together(wanted[machine, section])}"
        )


def together(paths: tuple[Path, ...]) -> str:
    """The files of a section, in a message."""
    return " and ".join(map(str, paths))


def year_of_files(folder: Path) -> int | None:
    """2020 or 2021, if the names of all score files in a folder tell it; else None.

    Raises:
        InputError: see `find_files`.
    """
    paths = [p for ps in find_files(folder, "anomaly_score").values() for p in ps]
    told = {match.groups() for p in paths if (match := FILE_NAME.fullmatch(p.name))}
    if {word for _, word, _, _ in told} == {"id"}:
        return 2020
    domains = {domain for *_, domain in told}
    return 2021 if domains and None not in domains else None


_NUMBER = re.compile(r"[-+.0-9eE\s]+", re.ASCII)


def flags_by_clip(
    path: Path | str, rows: dict[str, list[str]], clip_of: dict[str, str]
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
    path: Path | str, rows: dict[str, list[str]], clip_of: dict[str, str]
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


def _number(path: Path | str, name: str, fields: list[str]) -> float:
    try:
        # Python alone would read 1_0 and digits of other scripts.
        value = float(fields[0]) if _NUMBER.fullmatch(fields[0]) else math.nan
    except ValueError:
        value = math.nan
    if len(fields) > 1 or not math.isfinite(value):
        text = ",".join(fields)
        raise InputError(
            f"{path}: the value of {name!r} is {text!r}: give one finite number, and "
            "no header"
        )
    return value


def read_all_rows(paths: Iterable[Path]) -> dict[str, list[str]]:
    """`read_rows` of all files of a section.

    Raises:
        InputError: what `read_rows` refuses, or a clip that is in two of them.
    """
    rows: dict[str, list[str]] = {}
    for path in paths:
        more = read_rows(path)
        refuse_doubled(path, [*rows, *more])
        rows |= more
    return rows


def read_rows(path: Path) -> dict[str, list[str]]:
    """The fields after each name, by name without suffix.

    Raises:
        InputError: what `read_lines` refuses, a line without a value, or a clip that
            comes twice.
    """
    lines = read_lines(path)
    for line in lines:
        if len(line) < 2:
            raise InputError(f"{path}: {line[0]!r} has no value: write name,value")
    refuse_doubled(path, (clip_stem(line[0]) for line in lines))
    return {clip_stem(line[0]): line[1:] for line in lines}


def read_lines(path: Path) -> list[list[str]]:
    """The fields of each line; blank lines do not count.

    Raises:
        InputError: a file that is unreadable, no UTF-8 CSV or empty.
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
    if not lines:
        raise InputError(f"{path} is empty: write a line name,value for each clip")
    return lines


def refuse_doubled(path: Path | str, clips: Iterable[str]) -> None:
    """Raise an `InputError` that names the first clip which comes twice, and `path`."""
    for clip, count in Counter(clips).items():
        if count > 1:
            raise InputError(f"{path}: the clip {clip!r} comes {count} times: keep one")
