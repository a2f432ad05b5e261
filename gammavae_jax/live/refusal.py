"""Requests that the server refuses, and why."""

from typing import Literal

Outcome = Literal[
    "scored", "refused", "too_large", "too_slow", "busy", "gone", "failed"
]


class Refusal(Exception):
    """A request that is answered with a 4xx or 5xx status.

    The message is one line with the remedy, and reveals nothing about the server.
    """

    def __init__(
        self,
        status: int,
        message: str,
        outcome: Outcome = "refused",  # counted by the metrics
        retry_after: int | None = None,  # s
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.outcome: Outcome = outcome
        self.retry_after = retry_after


def busy(reason: str, retry_after: int = 2) -> Refusal:
    """Return the refusal of a server that is overloaded or shutting down."""
    return Refusal(503, f"{reason}: try again later", "busy", retry_after)
