"""What a page that was just opened needs to know of each machine."""

import base64
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from gammavae_jax.live.verdict import Heard, Stretch, finite, numbers

_SCORES = 240
_ALARMS = 10
_STRETCHES = 100
_COLUMNS = 320
_RANGE = 80.0  # dB


class History:
    """The last scores, alarms and sounds of each machine; in bounded memory."""

    def __init__(self, thresholds: Mapping[str, float]):
        self._thresholds = {name: finite(value) for name, value in thresholds.items()}
        self._scores = {name: deque[Any](maxlen=_SCORES) for name in thresholds}
        self._alarms = {name: deque[Any](maxlen=_ALARMS) for name in thresholds}
        self._pictures: dict[str, Mapping[str, Any]] = {}
        self._number = 0

    def add(
        self, machine: str, entry: Mapping[str, Any], picture: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keep what was heard; as listeners are to be told of it."""
        self._number += 1
        event = {"number": self._number, **entry}
        del event["stretches"]  # of no use for a page, and long
        self._scores[machine].append(event)
        if event["is_anomaly"]:
            self._alarms[machine].append(event)
        self._pictures[machine] = {"number": self._number, **picture}
        return event

    def picture(self, machine: str) -> Mapping[str, Any] | None:
        """The spectrogram of the last recording; None before the first one."""
        return self._pictures.get(machine)

    def snapshot(self) -> dict[str, Any]:
        """Everything but pictures."""
        machines = [
            {
                "machine": name,
                "threshold": self._thresholds[name],
                "scores": list(self._scores[name]),
                "alarms": list(self._alarms[name]),
            }
            for name in self._scores
        ]
        return {"now": time.time(), "machines": machines}


def described(
    machine: str, name: str, heard: Heard, stretches: Sequence[Stretch], request_id: str
) -> dict[str, Any]:
    """A recording as JSON has it."""
    return {
        "request_id": request_id,
        "time": round(time.time(), 3),
        "machine": machine,
        "name": name,
        "seconds": round(heard.seconds, 4),
        **numbers(heard.worst),
        "n_windows": heard.n_windows,
        "n_alarms": heard.n_alarms,
        "stretches": [
            {"start": s.start, "end": s.end, **numbers(s.worst)}
            for s in stretches[:_STRETCHES]
        ],
    }


def picture(
    spectrogram: Float[np.ndarray, "frame mel"], seconds: float
) -> dict[str, Any]:
    """A spectrogram small enough to be sent: bytes, the loudest 255, 80 dB below 0.

    Columns are frames, from the first; in each the lowest mel comes first.
    """
    n_columns = min(len(spectrogram), _COLUMNS)
    starts = np.arange(n_columns) * len(spectrogram) // n_columns
    columns = np.maximum.reduceat(spectrogram, starts)
    top = float(columns.max())
    scaled = np.clip((columns - top) / _RANGE + 1, 0, 1)
    data: UInt8[np.ndarray, "column mel"] = np.round(255 * scaled).astype(np.uint8)
    return {
        "columns": n_columns,
        "mels": data.shape[1],
        "seconds": seconds,
        "top": round(top, 1),
        "range": _RANGE,
        "data": base64.b64encode(data.tobytes()).decode(),
    }
