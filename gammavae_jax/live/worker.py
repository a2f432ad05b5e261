"""One thread that scores, and the bounded queue before it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gammavae_jax.live.refusal import Refusal, busy


class Worker:
    """Does one thing after the other, away from the event loop.

    Args:
        most_waiting: jobs that wait or are being done; one more is refused.
    """

    def __init__(self, most_waiting: int):
        self._most_waiting = most_waiting
        self._thread = ThreadPoolExecutor(1, "scoring")
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Jobs that wait or are being done."""
        return self._waiting

    async def run(self, job: Callable[[], Any], seconds: float) -> Any:
        """What the job returns.

        Raises:
            Refusal: too many are waiting, or it takes too long. A job that has begun
                goes on, and counts until it has ended.
        """
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise busy(f"{self._waiting} recordings are waiting")
            self._waiting += 1
        future = self._thread.submit(job)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError as error:
            raise Refusal(
                503, f"not scored within {seconds:g} s: try again later", "busy", 5
            ) from error

    def close(self) -> None:
        """Drop what waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: Future) -> None:
        with self._lock:
            self._waiting -= 1
