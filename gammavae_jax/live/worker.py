"""One thread that scores, and the bounded queue before it."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from gammavae_jax.live.refusal import Refusal, busy


class _Job(NamedTuple):
    do: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future


class Worker:
    """Does one thing after the other, away from the event loop.

    Its thread is a daemon: a process that ends does not wait for what is being scored.

    Args:
        most_waiting: jobs that wait or are being done; one more is refused.
    """

    def __init__(self, most_waiting: int):
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._waiting = 0
        self._answers: set[asyncio.Future] = set()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)
        self._thread.start()
        self.is_closing = False

    @property
    def waiting(self) -> int:
        """Jobs that wait or are being done."""
        return self._waiting

    async def run(self, job: Callable[[], Any], seconds: float) -> Any:
        """What the job returns.

        Raises:
            Refusal: too many are waiting, it takes too long, or the end has come. A job
                counts until its turn has come and it has ended.
        """
        if self.is_closing:
            raise _ending()
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise busy(f"{self._waiting} recordings are waiting")
            self._waiting += 1
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._answers.add(answer)
        self._jobs.put(_Job(job, loop, answer))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError as error:
            raise Refusal(
                503, f"not scored within {seconds:g} s: try again later", "busy", 5
            ) from error
        finally:
            self._answers.discard(answer)

    def close(self) -> None:
        """Refuse what waits and what is being done; in the event loop."""
        self.is_closing = True
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(_ending())
        self._jobs.put(None)

    def join(self, seconds: float) -> None:
        """Wait a while for what is being done."""
        self._thread.join(seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result, error = None, None
            if not job.answer.done():  # nobody waits for it any more
                try:
                    result = job.do()
                except Exception as caught:
                    error = caught
            with self._lock:
                self._waiting -= 1
            with contextlib.suppress(RuntimeError):  # the loop has ended
                job.loop.call_soon_threadsafe(_settle, job.answer, result, error)


def _settle(answer: asyncio.Future, result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


def _ending() -> Refusal:
    return Refusal(503, "the server is ending: try again later", "busy", 5)
