"""The exception for refused requests, and the server's metrics for Prometheus."""

import time
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from gammavae_jax.live.scorer import ScoredRecording

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Outcome = Literal[
    "scored", "refused", "too_large", "too_slow", "busy", "gone", "failed"
]


class Refusal(Exception):
    """An exception that makes the server answer with a 4xx or 5xx status.

    The message is one line with a remedy and reveals nothing about the server.
    """

    def __init__(
        self,
        status: int,
        message: str,
        outcome: Outcome = "refused",  # counted by the metrics
        retry_after: int | None = None,  # s
    ):
        super().__init__(message)
        self.status, self.message = status, message
        self.outcome: Outcome = outcome
        self.retry_after = retry_after


def busy(reason: str, retry_after: int = 2) -> Refusal:
    """Return a refusal with status 503 for a server that is busy or shutting down."""
    return Refusal(503, f"{reason}: try again later", "busy", retry_after)


class Metrics:
    """Prometheus counters and gauges, in their own registry."""

    def __init__(
        self,
        thresholds: Mapping[str, float],
        n_listeners: Callable[[], int],
        has_policy: bool = False,
    ):
        self._registry = registry = CollectorRegistry()
        started = time.monotonic()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"gammavae_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, label: str) -> Counter:
            return Counter(f"gammavae_{name}", text, [label], registry=registry)

        self.scoring_seconds = Histogram(
            "gammavae_scoring_seconds", "Time to decode and score a recording.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        about = "Scoring requests, by outcome."
        self._requests = counter("requests", about, "outcome")
        self._recordings = counter("recordings", "Recordings scored.", "machine")
        about = "Recordings not judged because their state is not 'running'."
        self._not_running = counter("not_running", about, "machine")
        about = "Alarms." if has_policy else "Recordings that raised an alarm."
        self._alarms = counter("alarms", about, "machine")
        about = "Whether an alarm is active."
        self._standing = gauge("alarm", about, "machine") if has_policy else None
        self._score = gauge(
            "last_score", "Score of the last recording that was judged.", "machine"
        )
        about = "p-value of the last recording that was judged."
        self._p_value = gauge("last_p_value", about, "machine")
        about = "Threshold of the last recording that was judged."
        self._threshold = gauge("threshold", about, "machine")
        about = "Open pages that listen for events."
        gauge("open_pages", about).set_function(n_listeners)
        gauge("uptime_seconds", "Time since the server started.").set_function(
            lambda: time.monotonic() - started
        )
        for outcome in get_args(Outcome):
            self._requests.labels(outcome)
        for machine, value in thresholds.items():
            self._threshold.labels(machine).set(value)
            self._alarms.labels(machine)
            self._recordings.labels(machine)
            self._not_running.labels(machine)
            if self._standing is not None:
                self._standing.labels(machine)

    def count_request(self, outcome: Outcome) -> None:
        """Count a finished request."""
        self._requests.labels(outcome).inc()

    def count_recording(self, scored: ScoredRecording) -> None:
        """Count a scored recording and its alarms."""
        verdict = scored.verdict
        machine = verdict.machine
        self._recordings.labels(machine).inc()
        self._not_running.labels(machine).inc(not verdict.is_running)
        if verdict.is_running:
            self._score.labels(machine).set(verdict.score)
            self._p_value.labels(machine).set(verdict.p_value)
            self._threshold.labels(machine).set(verdict.threshold)
        self._alarms.labels(machine).inc(scored.n_alarms)
        if self._standing is not None and scored.alarms is not None:
            self._standing.labels(machine).set(scored.alarms.standing is not None)

    def text(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
