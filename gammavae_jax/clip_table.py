"""What a run says of each test clip: score, p-value and decision, as `clips.csv`."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.cells import as_cell, text_of
from gammavae_jax.errors import InputError


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
        machine, section, clip = map(as_cell, names)
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
        text_of(fields["machine"]),
        text_of(fields["section"]),
        text_of(fields["clip"]),
        float(fields["anomaly_score"]),
        float(fields["p_value"]) if fields["p_value"] else None,
        int(fields["decision"]),
    )
