"""The service, away from HTTP: recordings in, verdicts out, and everyone told."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from gammavae_jax.data.audio import RecordingBlocks, open_recording, resampled_blocks
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.events import Broadcast, History, described, picture
from gammavae_jax.live.metrics import Metrics
from gammavae_jax.live.refusal import Refusal, busy
from gammavae_jax.live.scorer import Heard, LiveScorer, finite
from gammavae_jax.live.uploads import Upload, Uploads, recording_of
from gammavae_jax.live.windows import Rolling, hear
from gammavae_jax.live.worker import Worker


@dataclass(frozen=True)
class Limits:
    """What one request may take."""

    most_bytes: int = 32_000_000
    most_seconds: float = 600.0  # of a recording
    upload_seconds: float = 30.0
    score_seconds: float = 60.0  # waiting included
    most_waiting: int = 16  # requests to be scored


class Service:
    """What is asked for, away from HTTP; to be used in one event loop.

    Args:
        scorer: the detector.
        rolling: the windows of long recordings.
        limits: of each request.
        announcer: is told of each recording.
    """

    def __init__(
        self,
        scorer: LiveScorer,
        rolling: Rolling,
        limits: Limits,
        announcer: Announcer,
    ):
        self.limits = limits
        self.broadcast = Broadcast()
        self.history = History(scorer.thresholds)
        self.metrics = Metrics(scorer.thresholds, lambda: len(self.broadcast))
        # Those that wait, and a few that arrive.
        most_bodies = limits.most_waiting + 4
        self.uploads = Uploads(limits.most_bytes, limits.upload_seconds, most_bodies)
        self.worker = Worker(limits.most_waiting)
        self.machines = scorer.machines
        self._scorer = scorer
        self._rolling = rolling
        self._announcer = announcer

    def close(self) -> None:
        """Let all go who listen or wait; in the event loop."""
        self.broadcast.close()
        self.worker.close()

    def machine_named(self, machine: str | None) -> str:
        """The machine, or the only one.

        Raises:
            Refusal: it is not known, or not said.
        """
        if machine is None and len(self.machines) == 1:
            return self.machines[0]
        if machine is None:
            known = ", ".join(self.machines)
            raise Refusal(400, f"whose recording is it? add ?machine=, one of {known}")
        if machine not in self.machines:
            raise Refusal(404, unknown_name("machine", machine, self.machines))
        return machine

    def described_machines(self) -> list[dict[str, Any]]:
        """What is known of each machine."""
        return [
            {
                "machine": name,
                "threshold": finite(self._scorer.thresholds[name]),
                "sample_rate": self._scorer.sample_rate,
                "clip_seconds": self._scorer.clip_seconds,
            }
            for name in self.machines
        ]

    async def score(
        self,
        body: bytearray,
        content_type: str,
        name: str | None,
        machine: str,
        id_: str,
    ) -> dict[str, Any]:
        """Score a recording, and tell everyone who listens.

        Raises:
            Refusal: it cannot be scored, or not in time.
        """
        deadline = time.monotonic() + self.limits.score_seconds
        job = partial(self._judged, body, content_type, name, machine, id_, deadline)
        entry, shown, heard = await self.worker.run(job, self.limits.score_seconds)
        self.metrics.judged(machine, heard.worst)
        self._announcer.heard(entry["name"], machine, heard)
        self.broadcast.send("score", self.history.add(machine, entry, shown))
        return entry

    def _judged(
        self,
        body: bytearray,
        content_type: str,
        name: str | None,
        machine: str,
        id_: str,
        deadline: float,
    ) -> tuple[dict[str, Any], dict[str, Any], Heard]:
        """What is to be answered and shown; in the worker's thread."""
        with self.metrics.scoring_seconds.time():
            upload = recording_of(bytes(body), content_type, name)
            *stretches, heard = self._heard(upload, machine, deadline)
            shown = picture(
                self._scorer.spectrogram(heard.worst_clip),
                len(heard.worst_clip) / self._scorer.sample_rate,
            )
        return described(machine, upload.name, heard, stretches, id_), shown, heard

    def _heard(self, upload: Upload, machine: str, deadline: float) -> Iterator[Any]:
        """Each `Stretch`, and what was `Heard`; a `Refusal` if it cannot be."""
        scorer = self._scorer
        try:
            with open_recording(
                upload.data, channel=scorer.channel, name=upload.name
            ) as recording:
                rate = recording.sample_rate
                blocks = self._within_limits(recording, upload.name, deadline)
                blocks = resampled_blocks(blocks, rate, scorer.sample_rate)
                yield from hear(scorer, machine, blocks, self._rolling, upload.name)
        except InputError as error:
            raise Refusal(422, str(error)) from error

    def _within_limits(
        self, recording: RecordingBlocks, name: str, deadline: float
    ) -> Iterator[Any]:
        """The same blocks, of which there may not be too many: FLAC packs silence."""
        left = self.limits.most_seconds * recording.sample_rate
        for block in recording.blocks:
            left -= len(block)
            if left < 0:
                raise Refusal(
                    413,
                    f"{name}: longer than {self.limits.most_seconds:g} s: send it in "
                    "parts",
                    "too_large",
                )
            # Whoever asked has been told already that it took too long.
            if self.worker.is_closing or time.monotonic() > deadline:
                raise busy(f"{name}: not scored in time")
            yield block
