"""Requests that are not granted, and why."""

from typing import Literal

Outcome = Literal[
    "scored", "refused", "too_large", "too_slow", "busy", "gone", "failed"
]


class Refusal(Exception):
    """A request that is answered by a status of 4xx or 5xx.

    Args:
        status: of HTTP.
        message: one line that says what to do about it, and nothing of the server.
        outcome: under what it is counted.
        retry_after: seconds after which it may be granted.
    """

    def __init__(
        self,
        status: int,
        message: str,
        outcome: Outcome = "refused",
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.outcome: Outcome = outcome
        self.retry_after = retry_after


def busy(what: str) -> Refusal:
    """The server has too much to do."""
    return Refusal(503, f"{what}: try again later", "busy", retry_after=2)
