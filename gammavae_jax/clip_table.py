"""What a run says of each test clip: score, p-value and decision, as `clips.csv`."""

import csv
import io
from collections.abc import Iterable
from typing import NamedTuple


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
    """A header and a line a clip; empty where there is no p-value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ClipRow._fields)
    writer.writerows(rows)
    return text.getvalue()
