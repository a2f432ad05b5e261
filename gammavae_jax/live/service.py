"""The scoring service, independent of HTTP: recordings in, verdicts out."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from gammavae_jax.data.audio import RecordingBlocks, open_recording, resampled_blocks
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.events import Broadcast, History, thumbnail
from gammavae_jax.live.metrics import Metrics, Refusal, busy
from gammavae_jax.live.scorer import (
    LiveScorer,
    RecordingVerdict,
    WindowSize,
    finite,
    score_windows,
)
from gammavae_jax.live.uploads import Upload, Uploads

_SHUTTING_DOWN = "the server is shutting down"
_MOST_SAMPLES_A_SECOND = (
    192_000  # of all channels, in a recording of the largest length
)
_MAX_STRETCHES = 100  # in an answer
_MAX_ARRIVING = 4  # recordings of the largest size, besides those that wait


@dataclass(frozen=True)
class Limits:
    """What one request may use."""

    max_bytes: int = 32_000_000
    max_seconds: float = 600.0  # length of the recording
    upload_seconds: float = 30.0
    score_seconds: float = 60.0  # including the wait
    max_waiting: int = 16  # requests


class ScoreRequest(NamedTuple):
    """A request to score a recording."""

    upload: Upload
    machine: str
    id_: str


class ScoringThread:
    """Runs jobs one by one in a daemon thread.

    Unlike with a `ThreadPoolExecutor`, a process that exits does not wait for a job.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)
        self._thread.start()
        self.join = self._thread.join

    def submit(self, job: Callable[[], Any] | None) -> Future:
        """Queue a job, and return the future of its result; None ends the thread."""
        future: Future = Future()
        self._jobs.put((future, job))
        return future

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if job is None:
                return
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except Exception as error:
                    future.set_exception(error)


class Service:
    """Scores recordings, and reports each verdict; to be used in one event loop."""

    def __init__(
        self, scorer: LiveScorer, size: WindowSize, limits: Limits, announcer: Announcer
    ):
        self.limits = limits
        self.broadcast = Broadcast()
        self.history = History(scorer.thresholds)
        self.metrics = Metrics(scorer.thresholds, lambda: len(self.broadcast))
        max_bodies = limits.max_waiting + _MAX_ARRIVING
        self.uploads = Uploads(limits.max_bytes, limits.upload_seconds, max_bodies)
        self.machines = scorer.machines
        self._scorer = scorer
        self._size = size
        self._announcer = announcer
        self.thread = ScoringThread()
        self._jobs: set[asyncio.Future] = set()
        self._is_closing = False

    @property
    def waiting(self) -> int:
        """Number of recordings that wait or are being scored."""
        return len(self._jobs)

    def close(self) -> None:
        """Disconnect the listeners and answer waiting requests; in the event loop."""
        self._is_closing = True
        self.broadcast.close()
        for job in self._jobs:
            job.cancel()
        self.thread.submit(None)

    def machine_named(self, machine: str | None) -> str:
        """Return the machine, or refuse it; default: the only one."""
        if machine is None:
            machine, *others = self.machines
            if others:
                remedy = f"add ?machine=, one of {', '.join(self.machines)}"
                raise Refusal(400, f"the machine is missing: {remedy}")
        if machine not in self.machines:
            raise Refusal(404, unknown_name("machine", machine, self.machines))
        return machine

    def machine_entries(self) -> list[dict[str, Any]]:
        """Return each machine as a JSON object."""
        return [
            {
                "machine": name,
                "threshold": finite(self._scorer.thresholds[name]),
                "sample_rate": self._scorer.sample_rate,
                "clip_seconds": self._scorer.clip_seconds,
            }
            for name in self.machines
        ]

    async def score(self, request: ScoreRequest) -> dict[str, Any]:
        """Score a recording, report the verdict, and return it as a JSON object."""
        deadline = time.monotonic() + self.limits.score_seconds
        job = partial(self._score, request, deadline)
        entry, image, whole = await self._in_turn(job)
        self.metrics.count_recording(request.machine, whole.worst)
        self._announcer.recording(entry["name"], request.machine, whole)
        self.broadcast.send("score", self.history.add(request.machine, entry, image))
        return entry

    async def _in_turn(self, job: Callable[[], Any]) -> Any:
        """Return the result of a job in the scoring thread.

        A job that takes too long is refused, but counts as waiting until it ends.
        """
        if self._is_closing:
            raise busy(_SHUTTING_DOWN, 5)
        if self.waiting >= self.limits.max_waiting:
            raise busy(f"{self.waiting} recordings are waiting")
        future = asyncio.wrap_future(self.thread.submit(job))
        self._jobs.add(future)
        future.add_done_callback(self._end_job)
        await asyncio.wait([future], timeout=self.limits.score_seconds)
        if future.cancelled():
            raise busy(_SHUTTING_DOWN, 5)
        if not future.done():
            raise busy(f"not scored within {self.limits.score_seconds:g} s", 5)
        return future.result()

    def _end_job(self, future: asyncio.Future) -> None:
        self._jobs.discard(future)
        if not future.cancelled():
            future.exception()  # or asyncio would report one that nobody waits for

    def _score(
        self, request: ScoreRequest, deadline: float
    ) -> tuple[dict[str, Any], dict[str, Any], RecordingVerdict]:
        """Return a recording's JSON object, thumbnail and verdict."""
        if time.monotonic() > deadline:  # its client has been refused
            raise busy("not scored in time")
        with self.metrics.scoring_seconds.time():
            upload = request.upload
            *stretches, whole = self._verdicts(upload, request.machine, deadline)
            image = thumbnail(
                self._scorer.spectrogram(whole.worst_clip),
                len(whole.worst_clip) / self._scorer.sample_rate,
            )
        entry = {
            "request_id": request.id_,
            "time": round(time.time(), 3),
            "machine": request.machine,
            "name": upload.name,
            **whole.entry(),
            "seconds": round(whole.seconds, 4),
            "stretches": [stretch.entry() for stretch in stretches[:_MAX_STRETCHES]],
        }
        return entry, image, whole

    def _verdicts(self, upload: Upload, machine: str, deadline: float) -> Iterator[Any]:
        scorer, name, data = self._scorer, upload.name, upload.data
        try:
            with open_recording(data, channel=scorer.channel, name=name) as recording:
                blocks = self._limited_blocks(recording, name, deadline)
                rate = recording.sample_rate
                blocks = resampled_blocks(blocks, rate, scorer.sample_rate)
                yield from score_windows(scorer, machine, blocks, self._size, name)
        except InputError as error:
            raise Refusal(422, str(error)) from error

    def _limited_blocks(
        self, recording: RecordingBlocks, name: str, deadline: float
    ) -> Iterator[Any]:
        """Yield the recording's blocks; a small FLAC file may hold hours of silence.

        More channels, or a higher sample rate, leave fewer seconds.
        """
        per_second = recording.sample_rate * recording.n_channels
        most = self.limits.max_seconds * min(1, _MOST_SAMPLES_A_SECOND / per_second)
        left = most * recording.sample_rate
        for block in recording.blocks:
            left -= len(block)
            if left < 0:
                message = f"{name}: longer than {most:.3g} s: send it in parts"
                raise Refusal(413, message, "too_large")
            if self._is_closing or time.monotonic() > deadline:
                raise busy(f"{name}: not scored in time")
            yield block
