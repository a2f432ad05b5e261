"""Server-sent events to any number of listeners, none of which holds up another."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from gammavae_jax.live.refusal import busy

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
