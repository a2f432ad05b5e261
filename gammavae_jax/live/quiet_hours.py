"""Collects messages during quiet hours, and sends them as one message afterwards."""

import contextlib
import re
from collections.abc import Callable, Mapping
from datetime import datetime, time
from typing import Any, NamedTuple

from gammavae_jax.errors import InputError, printable


class QuietHours(NamedTuple):
    """A daily period in local time, which may include midnight."""

    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> "QuietHours":
        """Read hours such as `22:00-06:00`.

        Raises:
            InputError: the text is malformed, or both times are equal.
        """
        times = re.findall(r"([0-9]{1,2}:[0-9]{2})(?:-|$)", text)
        with contextlib.suppress(ValueError):
            start, end = (datetime.strptime(at, "%H:%M").time() for at in times)
            if start != end and "-".join(times) == text:
                return cls(start, end)
        problem = f"--quiet-hours is {printable(text)}"
        raise InputError(f"{problem}: use two different times such as 22:00-06:00")

    def include(self, now: time) -> bool:
        """Return whether a time is within the quiet hours."""
        if self.start < self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end


class QuietSender:
    """A sender that collects messages during quiet hours.

    When the quiet hours have ended, `release` sends the messages as one.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        hours: QuietHours,
        now: Callable[[], datetime] = datetime.now,
    ):
        self._send = send
        self._hours = hours
        self._now = now
        self.postponed: list[Mapping[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        """Send a message or, during quiet hours, store it."""
        self.release()
        if self._hours.include(self._now().time()):
            self.postponed.append(message)
        else:
            self._send(message)

    def release(self) -> None:
        """Send the stored messages as one message if the quiet hours have ended.

        The combined message's event is `quiet_hours_over`. Its `text` has a line for
        each stored message, and its `messages` is a list of the stored messages.
        """
        if not self.postponed or self._hours.include(self._now().time()):
            return
        postponed, self.postponed = self.postponed, []
        text = "\n".join(["during the quiet hours:", *(of["text"] for of in postponed)])
        self._send({"event": "quiet_hours_over", "text": text, "messages": postponed})
