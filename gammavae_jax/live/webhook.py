"""Alarms sent to an address on the network, without ever holding up the scoring."""

import base64
import contextlib
import json
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from gammavae_jax.errors import InputError


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirected, a POST would become a GET, and the alarm would be lost."""

    def redirect_request(self, *_: Any) -> None:
        """None of them."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class Webhook:
    """Sends JSON by HTTP POST, from a thread of its own.

    What cannot be delivered - the address does not answer, says no, or is so slow that
    too much is waiting - is given up and said.

    Args:
        url: of http or https.
        say: told of each alarm that was given up, in a line.
        timeout: seconds to wait for an answer.
        pauses: seconds before each further try.
        most_waiting: alarms; one more is given up at once.

    Raises:
        InputError: the address is none.
    """

    def __init__(
        self,
        url: str,
        say: Callable[[str], None],
        *,
        timeout: float = 5.0,
        pauses: tuple[float, ...] = (1.0, 4.0),
        most_waiting: int = 100,
    ):
        parts = urllib.parse.urlsplit(_checked(url))
        place = parts.netloc.rpartition("@")[2]
        self._url = parts._replace(netloc=place).geturl()
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": "gammavae",
            **_authorization(parts),
        }
        # Addresses often hold a secret, so only the server is named.
        self._server = parts.hostname
        self._say = say
        self._timeout = timeout
        self._pauses = pauses
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(most_waiting)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._unsettled = 0
        self.n_delivered = 0
        self.n_given_up = 0
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def send(self, alarm: Mapping[str, Any]) -> None:
        """Send an alarm soon; returns at once."""
        with self._lock:
            self._unsettled += 1
        try:
            self._waiting.put_nowait(alarm)
        except queue.Full:
            self._settle(alarm, f"{self._waiting.maxsize} are waiting already")

    def close(self, seconds: float = 5.0) -> None:
        """Wait a while for what is on its way; say how many alarms are given up."""
        end = time.monotonic() + seconds
        while self._unsettled and time.monotonic() < end:
            time.sleep(0.02)
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)  # wake a thread that has nothing to do
        with self._lock:
            left, self._unsettled = self._unsettled, 0
            self.n_given_up += left
        if left:
            self._say(f"not delivered to {self._server}: {left} alarms, at the end")

    def _work(self) -> None:
        while not self._closing.is_set():
            alarm = self._waiting.get()
            if alarm is not None:
                self._settle(alarm, self._delivered(alarm))

    def _delivered(self, alarm: Mapping[str, Any]) -> str:
        """Try until it works; why it did not, if so."""
        reason = "the watch ended"
        for pause in (0.0, *self._pauses):
            if self._closing.wait(pause):
                break
            if not (reason := self._post(alarm)):
                break
        return reason

    def _post(self, alarm: Mapping[str, Any]) -> str:
        request = urllib.request.Request(
            self._url, json.dumps(alarm).encode(), self._headers
        )
        try:
            with _OPENER.open(request, timeout=self._timeout):
                return ""
        except urllib.error.HTTPError as error:
            error.close()
            return f"the answer is {error.code}"
        except Exception as error:  # a server can answer anything
            reason = getattr(error, "reason", error)
            # Of other errors, the text may hold the address.
            text = " ".join(f"{reason}".split()) if isinstance(reason, OSError) else ""
            return text or type(error).__name__

    def _settle(self, alarm: Mapping[str, Any], why_not: str) -> None:
        with self._lock:
            if not self._unsettled:
                return  # given up at the end already
            self._unsettled -= 1
            self.n_delivered += not why_not
            self.n_given_up += bool(why_not)
        if why_not:
            what = f"{alarm['machine']}, {alarm['file']}"
            self._say(f"not delivered to {self._server}: {what} ({why_not})")


def _authorization(parts: urllib.parse.SplitResult) -> dict[str, str]:
    """The name and password of an address, as HTTP has them (RFC 7617)."""
    if parts.username is None:
        return {}
    pair = f"{parts.username}:{parts.password or ''}"
    encoded = base64.b64encode(urllib.parse.unquote(pair).encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def _checked(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        parts.port  # noqa: B018  raises where it is no number
    except ValueError:
        is_address = False
    if not is_address or not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(
            "--webhook is no address: give one such as https://example.org/alarms"
        )
    return url
