"""Server-sent events to any number of listeners, none of which holds up another."""

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from gammavae_jax.live.refusal import busy
from gammavae_jax.live.scorer import Heard, Stretch, finite, numbers

_RETRY = "retry: 1000\n\n"  # ms after which a browser connects again
_PING = ": ping\n\n"  # a comment, by which a connection that is gone is noticed


class Broadcast:
    """Tells every listener the same; to be used in one event loop.

    Args:
        most_listeners: one more is refused.
        most_waiting: events for one listener; of one that does not take them, the
            oldest are dropped.
        ping_seconds: between signs of life.
    """

    def __init__(
        self,
        most_listeners: int = 64,
        most_waiting: int = 64,
        ping_seconds: float = 15.0,
    ):
        self._most_listeners = most_listeners
        self._most_waiting = most_waiting
        self._ping_seconds = ping_seconds
        self._listeners: dict[asyncio.Event, deque[str]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    def send(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell all; returns at once."""
        text = message(event, data)
        for wake, waiting in self._listeners.items():
            waiting.append(text)
            wake.set()

    def close(self) -> None:
        """Let all listeners go."""
        self._closed = True
        for wake in self._listeners:
            wake.set()

    def listen(self, first: Callable[[], str]) -> AsyncGenerator[str, None]:
        """A first message, and what is sent from then on; to be closed.

        Raises:
            Refusal: there are too many listeners.
        """
        if len(self._listeners) >= self._most_listeners:
            raise busy(f"{len(self._listeners)} pages are open")
        return self._messages(first)

    async def _messages(self, first: Callable[[], str]) -> AsyncGenerator[str, None]:
        wake = asyncio.Event()
        waiting = self._listeners[wake] = deque([first()], self._most_waiting)
        try:
            yield _RETRY
            while not self._closed:
                while waiting:
                    yield waiting.popleft()
                wake.clear()
                try:
                    async with asyncio.timeout(self._ping_seconds):
                        await wake.wait()
                except TimeoutError:
                    yield _PING
        finally:
            del self._listeners[wake]


def message(event: str, data: Mapping[str, Any]) -> str:
    """An event as it goes over the line; JSON has no line ends."""
    return f"event: {event}\ndata: {json.dumps(data, allow_nan=False)}\n\n"


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
