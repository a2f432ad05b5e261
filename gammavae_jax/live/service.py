"""The service behind the HTTP server: it scores recordings and returns verdicts."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from gammavae_jax.config_json import finite
from gammavae_jax.data.audio.files import RecordingBlocks, open_recording
from gammavae_jax.data.recordings.sources import known_machine
from gammavae_jax.errors import InputError
from gammavae_jax.live.alarms import LiveAlarms
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.events import Broadcast, History, thumbnail
from gammavae_jax.live.metrics import Metrics, Refusal, busy
from gammavae_jax.live.scorer import LiveScorer, ScoredRecording
from gammavae_jax.live.uploads import Upload, Uploads

_SHUTTING_DOWN = "the server is shutting down"
_MOST_SAMPLES_A_SECOND = 192_000  # all channels; a higher rate lowers `max_seconds`
_MAX_STRETCHES = 100  # in an answer
_MAX_ARRIVING = 4  # recordings of the largest size, in addition to waiting ones


@dataclass(frozen=True)
class Limits:
    """The limits that the server sets on requests."""

    max_bytes: int = 32_000_000
    max_seconds: float = 600.0  # length of the recording
    upload_seconds: float = 30.0
    score_seconds: float = 60.0  # including the time spent waiting
    max_waiting: int = 16  # requests


class ScoreRequest(NamedTuple):
    """A request to score a recording."""

    upload: Upload
    machine: str
    id_: str


class ScoringThread:
    """A daemon thread that runs jobs one by one.

    Unlike with a `ThreadPoolExecutor`, the process can exit before a job ends.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)
        self._thread.start()
        self.join = self._thread.join

    def submit(self, job: Callable[[], Any] | None) -> Future:
        """Queue a job and return its future; passing None ends the thread."""
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
    """Scores recordings and reports the verdicts.

    It must be used from a single event loop.
    """

    def __init__(
        self,
        scorer: LiveScorer,
        limits: Limits,
        announcer: Announcer,
        alarms: LiveAlarms | None = None,
    ):
        self.limits = limits
        self.broadcast = Broadcast()
        self.history = History(scorer.thresholds)
        has_policy = alarms is not None
        self.metrics = Metrics(
            scorer.thresholds, lambda: len(self.broadcast), has_policy
        )
        max_bodies = limits.max_waiting + _MAX_ARRIVING
        self.uploads = Uploads(limits.max_bytes, limits.upload_seconds, max_bodies)
        self.machines = scorer.machines
        self._scorer = scorer
        self._announcer = announcer
        self._alarms = alarms
        self.thread = ScoringThread()
        self._jobs: set[asyncio.Future] = set()
        self._is_closing = False

    @property
    def waiting(self) -> int:
        """The number of recordings that are waiting or being scored."""
        return len(self._jobs)

    def close(self) -> None:
        """Disconnect listeners and refuse waiting requests.

        Call this in the event loop.
        """
        self._is_closing = True
        self.broadcast.close()
        for job in self._jobs:
            job.cancel()
        self.thread.submit(None)

    def machine_named(self, machine: str | None) -> str:
        """Check a machine's name and return it; None stands for the only machine."""
        if machine is None:
            machine, *others = self.machines
            if others:
                names = ", ".join(self.machines)
                remedy = f"add ?machine=NAME, where NAME is one of {names}"
                raise Refusal(400, f"the request does not name a machine: {remedy}")
        try:
            return known_machine(machine, self.machines)
        except InputError as error:
            raise Refusal(404, str(error)) from error

    def machine_entries(self) -> list[dict[str, Any]]:
        """Return a JSON object for each machine, with its threshold and clip length."""
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
        entry, image, scored = await self._in_turn(job)
        if self._alarms is not None:
            update = self._alarms.take(scored.verdict, entry["name"])
            scored = scored.with_alarms(update)
            entry |= {**update.entry(), "notes": list(scored.notes.values())}
        self.metrics.count_recording(scored)
        self._announcer.recording(entry["name"], scored)
        self.broadcast.send("score", self.history.add(request.machine, entry, image))
        return entry

    async def _in_turn(self, job: Callable[[], Any]) -> Any:
        """Run a job in the scoring thread and return its result.

        A job that takes too long is refused, but is treated as waiting until it ends.
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
            seconds = f"{self.limits.score_seconds:g} s"
            raise busy(f"the recording was not scored within {seconds}", 5)
        return future.result()

    def _end_job(self, future: asyncio.Future) -> None:
        self._jobs.discard(future)
        if not future.cancelled():
            future.exception()  # retrieved, so that asyncio does not log it

    def _score(
        self, request: ScoreRequest, deadline: float
    ) -> tuple[dict[str, Any], dict[str, Any], ScoredRecording]:
        """Score a recording; return the JSON answer, the thumbnail and the result."""
        if time.monotonic() > deadline:  # the client has already been refused
            raise busy("the recording was not scored in time")
        with self.metrics.scoring_seconds.time():
            scored = self._scored_recording(request, deadline)
            image = thumbnail(
                self._scorer.spectrogram(scored.highest),
                len(scored.highest) / self._scorer.sample_rate,
            )
        entry = {
            "request_id": request.id_,
            "time": round(time.time(), 3),
            "machine": request.machine,
            "name": request.upload.name,
            **scored.entry(),
        }
        entry["stretches"] = entry["stretches"][:_MAX_STRETCHES]
        return entry, image, scored

    def _scored_recording(
        self, request: ScoreRequest, deadline: float
    ) -> ScoredRecording:
        """Score the recording of a request.

        Raises:
            Refusal: the recording cannot be used or is too long.
        """
        channels, (data, name) = self._scorer.channels, request.upload
        try:
            with open_recording(data, channel=channels, name=name) as recording:
                blocks = self._limited_blocks(recording, name, deadline)
                recording = recording._replace(blocks=blocks)
                return self._scorer.score(recording, request.machine, name)
        except InputError as error:
            raise Refusal(422, str(error)) from error

    def _limited_blocks(
        self, recording: RecordingBlocks, name: str, deadline: float
    ) -> Iterator[Any]:
        """Limit a recording's length: a small FLAC file may hold hours of silence.

        The limit is lower for recordings with many channels or a high sample rate.
        """
        per_second = recording.sample_rate * recording.n_channels
        most = self.limits.max_seconds * min(1, _MOST_SAMPLES_A_SECOND / per_second)
        left = most * recording.sample_rate
        for block in recording.blocks:
            left -= len(block)
            if left < 0:
                message = f"{name} is longer than {most:.3g} s: send it in parts"
                raise Refusal(413, message, "too_large")
            if self._is_closing or time.monotonic() > deadline:
                raise busy(f"{name} was not scored in time")
            yield block
