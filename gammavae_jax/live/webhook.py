"""Sends alarms to a webhook.

During quiet hours, messages are collected and sent as one message afterwards.
"""

import contextlib
import queue
import random
import re
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from datetime import datetime, time
from time import monotonic, sleep
from typing import Any, NamedTuple

import requests

from gammavae_jax.errors import InputError, printable


class QuietHours(NamedTuple):
    """A daily period in local time, which may extend past midnight."""

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
    """Collects messages during quiet hours.

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

        The combined message's event is `quiet_hours_over`. Its `text` contains a line
        for each stored message, and its `messages` is a list of the stored messages.
        """
        if not self.postponed or self._hours.include(self._now().time()):
            return
        postponed, self.postponed = self.postponed, []
        text = "\n".join(["during the quiet hours:", *(of["text"] for of in postponed)])
        self._send({"event": "quiet_hours_over", "text": text, "messages": postponed})


class Webhook:
    """Posts alarms as JSON in a background thread, so scoring never waits.

    An alarm is dropped, with a message, if every attempt fails or too many alarms are
    waiting. Redirects are treated as failures: following one would turn the POST into a
    GET.
    """

    def __init__(
        self,
        url: str,
        say: Callable[[str], None],
        *,
        timeout: float = 5.0,  # s; for connecting, and for each read of a response
        pauses: tuple[float, ...] = (1.0, 4.0),  # s before each retry, without jitter
        capacity: int = 100,  # alarms in the queue
    ):
        parts = _split_url(url)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        # A URL often holds a secret, so messages name only the server.
        self._server = parts.hostname
        self._say = say
        self._timeout = timeout
        self._pauses = pauses
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "gammavae"
        # Without credentials, `requests` would look for some in ~/.netrc.
        self._session.auth = _credentials(parts) or (lambda request: request)
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(capacity)
        self._closing = threading.Event()
        self._n_sent = 0
        self.n_delivered = 0
        threading.Thread(target=self._work, name="webhook", daemon=True).start()

    @property
    def n_undelivered(self) -> int:
        """The number of alarms that have not been delivered."""
        return self._n_sent - self.n_delivered

    def send(self, alarm: Mapping[str, Any]) -> None:
        """Queue an alarm and return immediately."""
        self._n_sent += 1
        try:
            self._queue.put_nowait(alarm)
        except queue.Full:
            self._report(alarm, f"{self._queue.maxsize} alarms are already waiting")

    def close(self, seconds: float = 5.0) -> None:
        """Wait up to `seconds` for queued alarms to be sent, then drop the rest."""
        end = monotonic() + seconds
        while self._queue.unfinished_tasks and monotonic() < end:
            sleep(0.02)
        self._closing.set()
        if left := self._queue.unfinished_tasks:
            problem = f"alarms not delivered to {self._server} before the watch ended"
            self._say(f"{problem}: {left}")
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)  # ends the thread

    def _work(self) -> None:
        while (alarm := self._queue.get()) is not None:
            failure = self._deliver(alarm)
            self.n_delivered += not failure
            if failure and not self._closing.is_set():
                self._report(alarm, failure)
            self._queue.task_done()

    def _deliver(self, alarm: Mapping[str, Any]) -> str:
        """Deliver an alarm; return why the last attempt failed, or '' on success."""
        failure = "the watch is ending"
        for pause in (0.0, *self._pauses):
            if self._closing.wait(pause * random.uniform(1, 1.5)):
                break
            if not (failure := self._post(alarm)):
                break
        return failure

    def _post(self, alarm: Mapping[str, Any]) -> str:
        """Try once to post an alarm; return why that failed, or '' on success."""
        options = {"timeout": self._timeout, "allow_redirects": False, "stream": True}
        try:
            # Streamed but never read, because a response may be endless.
            with self._session.post(self._url, json=alarm, **options) as answer:
                is_accepted = 200 <= answer.status_code < 300
                return "" if is_accepted else f"status {answer.status_code}"
        except Exception as error:  # a server may send any response
            cause: BaseException = error
            while inner := cause.__cause__ or cause.__context__:
                cause = inner
            # The messages of requests and urllib3 quote the URL.
            quotes_url = isinstance(cause, requests.RequestException)
            if isinstance(cause, OSError) and not quotes_url:
                return " ".join(str(cause).split())
            return type(cause).__name__

    def _report(self, alarm: Mapping[str, Any], failure: str) -> None:
        if "messages" in alarm:
            about = f"{len(alarm['messages'])} messages from the quiet hours"
        else:
            about = f"{alarm['machine']}, {alarm['file']}"
        self._say(f"alarm not delivered to {self._server}: {about} ({failure})")


def _split_url(url: str) -> urllib.parse.SplitResult:
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018  raises ValueError if it is not a number
        is_plain = url.isascii() and url.isprintable() and " " not in url
        if is_plain and parts.scheme in ("http", "https") and parts.hostname:
            return parts
    example = "https://example.org/alarms"
    problem = "the value of --webhook is not an HTTP URL"
    raise InputError(f"{problem}: use a URL such as {example}")


def _credentials(parts: urllib.parse.SplitResult) -> Any:
    """Return a URL's user name and password as bytes, or None without a user name."""
    if parts.username is None:
        return None
    pair = parts.username, parts.password or ""
    return tuple(urllib.parse.unquote(part).encode() for part in pair)
