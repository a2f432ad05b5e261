"""Server-sent events for many listeners, and the history sent to new listeners."""

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from gammavae_jax.config_json import finite
from gammavae_jax.data.states import State
from gammavae_jax.live.metrics import busy

_RETRY = "retry: 1000\n\n"  # ms after which a browser reconnects
_PING = ": ping\n\n"  # a comment; sending it reveals a lost connection
_PING_SECONDS = 15.0  # of silence before a ping
_MAX_WAITING = 64  # events for one listener; the oldest are dropped
_SCORES = 240  # kept for each machine
_ALARMS = 10
_COLUMNS = 320  # of a thumbnail
_RANGE = 80.0  # dB


class Broadcast:
    """Sends events to all listeners, which share one event loop."""

    def __init__(self, max_listeners: int = 64):
        self._max_listeners = max_listeners
        self._listeners: dict[asyncio.Event, deque[str]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    def send(self, event: str, data: Mapping[str, Any]) -> None:
        """Queue an event for every listener."""
        text = message(event, data)
        for wake, waiting in self._listeners.items():
            waiting.append(text)
            wake.set()

    def close(self) -> None:
        """Disconnect all listeners."""
        self._closed = True
        for wake in self._listeners:
            wake.set()

    def listen(self, first: Callable[[], str]) -> AsyncGenerator[str, None]:
        """Yield a first message, then all events.

        Raise a `Refusal` if there are too many listeners.

        The caller must close the generator.
        """
        if len(self._listeners) >= self._max_listeners:
            raise busy(f"{len(self._listeners)} pages are open")
        return self._messages(first)

    async def _messages(self, first: Callable[[], str]) -> AsyncGenerator[str, None]:
        wake = asyncio.Event()
        waiting = self._listeners[wake] = deque([first()], _MAX_WAITING)
        try:
            yield _RETRY
            while not self._closed:
                while waiting:
                    yield waiting.popleft()
                wake.clear()
                try:
                    async with asyncio.timeout(_PING_SECONDS):
                        await wake.wait()
                except TimeoutError:
                    yield _PING
        finally:
            del self._listeners[wake]


def message(event: str, data: Mapping[str, Any]) -> str:
    """Format a server-sent event."""
    return f"event: {event}\ndata: {json.dumps(data, allow_nan=False)}\n\n"


class History:
    """Each machine's latest scores, alarms and thumbnail, in bounded memory."""

    def __init__(self, thresholds: Mapping[str, float]):
        self._machines = {
            name: {
                "machine": name,
                "threshold": finite(threshold),
                "scores": deque[Any](maxlen=_SCORES),
                "alarms": deque[Any](maxlen=_ALARMS),
            }
            for name, threshold in thresholds.items()
        }
        self._thumbnails: dict[str, Mapping[str, Any]] = {}
        self._number = 0

    def add(
        self, machine: str, entry: Mapping[str, Any], image: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Store a recording's entry and return the event to send to listeners."""
        self._number += 1
        event = {"number": self._number, **entry}
        if event["state"] != State.RUNNING:  # such a score may be huge
            event |= {"score": None, "p_value": None}
        del event["stretches"]  # long, and not shown on the page
        self._machines[machine]["scores"].append(event)
        is_alarm = event["is_anomaly"]
        if "alarm_events" in event:  # an alarm policy decides
            is_alarm = any(alarm["end"] is None for alarm in event["alarm_events"])
        if is_alarm:
            self._machines[machine]["alarms"].append(event)
        self._thumbnails[machine] = {"number": self._number, **image}
        return event

    def thumbnail(self, machine: str) -> Mapping[str, Any] | None:
        """Return a machine's latest thumbnail, or None before its first recording."""
        return self._thumbnails.get(machine)

    def snapshot(self) -> dict[str, Any]:
        """Return the state of every machine, without thumbnails."""
        machines = [
            {**state, "scores": [*state["scores"]], "alarms": [*state["alarms"]]}
            for state in self._machines.values()
        ]
        return {"now": time.time(), "machines": machines}


def thumbnail(
    spectrogram: Float[np.ndarray, "frame mel"], seconds: float
) -> dict[str, Any]:
    """Shrink a spectrogram and encode it as a JSON object.

    The data are bytes, column by column, with the lowest mel band first. The loudest
    value is 255; values at least 80 dB below it are 0.
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
