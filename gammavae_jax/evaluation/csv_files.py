"""Writes and reads a run's tables, `clips.csv` and `results.csv`."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import Row
from gammavae_jax.files import read_text

_FORMULA = "[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n]"
_UNESCAPED = re.compile(f"(?:^|(?<=[;\t\r\n]))(?='*{_FORMULA})")
_ESCAPED = re.compile(f"(?:^|(?<=[;\t\r\n]))'(?='*{_FORMULA})")


def escape_formula(text: str) -> str:
    """Escape text that a spreadsheet would evaluate as a formula."""
    return _UNESCAPED.sub("'", text)


def unescape_formula(cell: str) -> str:
    """Undo `escape_formula`."""
    return _ESCAPED.sub("", cell)


class ClipRow(NamedTuple):
    """One row of `clips.csv`: a clip's result for one score and one seed."""

    seed: int
    score: str
    machine: str
    section: str
    clip: str
    anomaly_score: float
    p_value: float | None  # None if the thresholds are the official ones
    decision: int  # 1 if judged anomalous


def clips_csv(rows: Iterable[ClipRow]) -> str:
    """Return the text of `clips.csv`, where missing p-values are empty fields."""
    names = ("machine", "section", "clip")
    escaped = (
        row._replace(**{n: escape_formula(getattr(row, n)) for n in names})
        for row in rows
    )
    return _csv(ClipRow._fields, escaped)


def read_clips_csv(path: Path) -> list[ClipRow]:
    """Read a `clips.csv` file; raise an InputError if it is missing or malformed."""
    try:
        text = read_text(path)
        return [_clip_row(fields) for fields in csv.DictReader(io.StringIO(text))]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read as a run's table of clips: pass the folder "
            "of a finished run"
        ) from error


def _clip_row(fields: dict[str, str]) -> ClipRow:
    return ClipRow(
        int(fields["seed"]),
        fields["score"],
        unescape_formula(fields["machine"]),
        unescape_formula(fields["section"]),
        unescape_formula(fields["clip"]),
        float(fields["anomaly_score"]),
        float(fields["p_value"]) if fields["p_value"] else None,
        int(fields["decision"]),
    )


def results_csv(rows: Iterable[Row]) -> str:
    """Return the text of `results.csv`, where NaN becomes an empty field."""
    escaped = (row._replace(machine=escape_formula(row.machine)) for row in rows)
    # Only NaN differs from itself.
    return _csv(Row._fields, (["" if v != v else v for v in row] for row in escaped))


def _csv(header: tuple[str, ...], lines: Iterable[Iterable]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()


def read_results_csv(text: str) -> list[Row]:
    """Read a table written by `results_csv`; raise a ValueError for other text."""
    return [row_of(fields) for fields in csv.DictReader(io.StringIO(text))]


def row_of(fields: Mapping[str, str]) -> Row:
    """Parse a row of `results.csv`; raise a ValueError if it is invalid.

    `fields` maps column names to the row's values.
    """
    if tuple(fields) != Row._fields:
        raise ValueError
    seed, score, machine, section, *values = fields.values()
    numbers = (float(value) if value else math.nan for value in values)
    return Row(int(seed), score, unescape_formula(machine), section, *numbers)
