"""What Prometheus collects."""

import time
from collections.abc import Callable, Mapping
from typing import get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from gammavae_jax.live.refusal import Outcome
from gammavae_jax.live.scorer import Verdict

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters and gauges in a registry of their own.

    Args:
        thresholds: by machine.
        listeners: how many pages are open.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, thresholds: Mapping[str, float], listeners: Callable[[], int]):
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "gammavae_requests", "Requests to score, by outcome.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self.scoring_seconds = Histogram(
            "gammavae_scoring_seconds", "Time to decode and score a recording.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._score, self._threshold, self._p_value = (
            Gauge(f"gammavae_{name}", text, ["machine"], registry=registry)
            for name, text in (
                ("last_score", "Anomaly score of the last recording."),
                ("threshold", "Anomaly scores above it are alarms."),
                ("last_p_value", "How likely a normal recording scores as high."),
            )
        )
        self._alarms, self._recordings = (
            Counter(f"gammavae_{name}", text, ["machine"], registry=registry)
            for name, text in (
                ("alarms", "Recordings that were alarms."),
                ("recordings", "Recordings that were scored."),
            )
        )
        started = time.monotonic()
        Gauge(
            "gammavae_uptime_seconds", "Time since the start.", registry=registry
        ).set_function(lambda: time.monotonic() - started)
        Gauge(
            "gammavae_open_pages", "Listeners to events.", registry=registry
        ).set_function(listeners)
        for outcome in get_args(Outcome):
            self._requests.labels(outcome)
        for machine, threshold in thresholds.items():
            self._threshold.labels(machine).set(threshold)
            self._alarms.labels(machine)
            self._recordings.labels(machine)

    def count(self, outcome: Outcome) -> None:
        """A request came to its end."""
        self._requests.labels(outcome).inc()

    def judged(self, machine: str, verdict: Verdict) -> None:
        """A recording was scored."""
        self._score.labels(machine).set(verdict.score)
        self._p_value.labels(machine).set(verdict.p_value)
        self._recordings.labels(machine).inc()
        self._alarms.labels(machine).inc(verdict.is_anomaly)

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self._registry)
