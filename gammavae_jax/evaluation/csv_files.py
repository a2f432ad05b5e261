"""What a run says of each test clip: score, p-value and decision, as `clips.csv`."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import Row

_FORMULA = "[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n]"
_BEGINNING = re.compile(f"(?:^|(?<=[;\t\r\n]))(?='*{_FORMULA})")
_MARKED = re.compile(f"(?:^|(?<=[;\t\r\n]))'(?='*{_FORMULA})")


def escape_formula(text: str) -> str:
    """Escape text that a spreadsheet would run as a formula."""
    return _BEGINNING.sub("'", text)


def unescape_formula(cell: str) -> str:
    """What `escape_formula` was given."""
    return _MARKED.sub("", cell)


class ClipRow(NamedTuple):
    """A clip under one score of one seed.

    The p-value, for the probability that a normal clip scores as high, is None where
    thresholds are the official ones.
    """

    seed: int
    score: str
    machine: str
    section: str
    clip: str
    anomaly_score: float
    p_value: float | None
    decision: int  # 1: called anomalous


def clips_csv(rows: Iterable[ClipRow]) -> str:
    """A header and a line a clip; empty where there is no p-value.

    Names are written as `cells` has them; numbers stay numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ClipRow._fields)
    for row in rows:
        names = row.machine, row.section, row.clip
        machine, section, clip = map(escape_formula, names)
        writer.writerow(row._replace(machine=machine, section=section, clip=clip))
    return text.getvalue()


def read_clips_csv(path: Path) -> list[ClipRow]:
    """What `clips_csv` wrote.

    Raises:
        InputError: it is not there, or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return [_row(fields) for fields in csv.DictReader(io.StringIO(text))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read as a run's table of clips: give the folder "
            "of a finished run"
        ) from error


def _row(fields: dict[str, str]) -> ClipRow:
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


def results_csv(rows: Sequence[Row]) -> str:
    """`results.csv`: a header and a line a row; empty where there is no value.

    The machine is written as `cells` has it; numbers stay numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    for row in rows:
        row = row._replace(machine=escape_formula(row.machine))
        writer.writerow(
            "" if isinstance(v, float) and math.isnan(v) else v for v in row
        )
    return text.getvalue()


def read_results_csv(text: str) -> list[Row]:
    """What `results_csv` wrote.

    Raises:
        ValueError: it is something else.
    """
    rows = []
    for fields in csv.DictReader(io.StringIO(text)):
        rows.append(row_of(fields))
    return rows


def row_of(fields: Mapping[str, str]) -> Row:
    """A row of `results.csv`, by the names of its columns.

    Raises:
        ValueError: it has other columns.
    """
    if tuple(fields) != Row._fields:
        raise ValueError
    seed, score, machine, section, *values = fields.values()
    numbers = (float(value) if value else math.nan for value in values)
    return Row(int(seed), score, unescape_formula(machine), section, *numbers)
