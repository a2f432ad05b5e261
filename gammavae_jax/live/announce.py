"""Reports live monitoring results as printed lines, JSON Lines and webhook alarms."""

import contextlib
import io
import json
import os
import queue
import random
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import open_pipe
from gammavae_jax.live.scorer import ScoredRecording
from gammavae_jax.log import Log
from gammavae_jax.process import drop_output
from gammavae_jax.scoring.alarm_policy import Alarm, Moment
from gammavae_jax.scoring.verdict import Verdict

_MOST_NOTES = 100  # kinds of notes; each unusual sample rate adds one


class OutputLost(Exception):
    """An error raised when the JSON Lines file can no longer be written."""


class JsonLines:
    """An append-only JSON Lines file; the path `-` means standard output."""

    def __init__(self, path: Path):
        self._is_stdout = path == Path("-")
        self._name = "standard output" if self._is_stdout else printable(path)
        try:
            self._file = sys.stdout if self._is_stdout else _open_to_append(path)
        except OSError as error:
            raise InputError(self._reason(error)) from error

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an object; if that fails, close the file and raise `OutputLost`."""
        try:
            self._file.write(json.dumps(entry, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            if self._is_stdout:
                drop_output()
            with contextlib.suppress(OSError):
                self.close()
            raise OutputLost(self._reason(error)) from error

    def close(self) -> None:
        """Close the file, unless it is standard output."""
        if not self._is_stdout:
            self._file.close()

    def _reason(self, error: OSError) -> str:
        problem = f"--json: {self._name} cannot be written ({error.strerror})"
        return f"{problem}: choose a writable file"


def _open_to_append(path: Path) -> io.TextIOWrapper:
    """Open a file for appending; if its last line is truncated, start a new line."""
    if path.exists() and not path.is_file():
        return io.TextIOWrapper(open_pipe(path), "utf-8", newline="")
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return path.open("a", encoding="utf-8", newline="")


class Webhook:
    """A sender that posts alarms as JSON in its own thread, so scoring never waits.

    An alarm is dropped, with a message, if every attempt fails or too many alarms are
    waiting. Redirects count as failures: following one would turn the POST into a GET.
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
        """Queue an alarm, and return immediately."""
        self._n_sent += 1
        try:
            self._queue.put_nowait(alarm)
        except queue.Full:
            self._report(alarm, f"{self._queue.maxsize} alarms are already waiting")

    def close(self, seconds: float = 5.0) -> None:
        """Wait up to `seconds` for queued alarms to be sent, then drop the rest."""
        end = time.monotonic() + seconds
        while self._queue.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.02)
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
    """Return a URL's user name and password as bytes; None if it has no user name."""
    if parts.username is None:
        return None
    pair = parts.username, parts.password or ""
    return tuple(urllib.parse.unquote(part).encode() for part in pair)


class Announcer:
    """A reporter that prints every event, adds it to `json_lines` and sends alarms."""

    def __init__(
        self,
        log: Log,
        json_lines: JsonLines | None = None,
        send: Callable[[dict[str, Any]], None] | None = None,
    ):
        self._log = log
        self._json_lines = json_lines
        self._send = send
        self._said: set[str] = set()  # the kinds of notes that were printed

    def say(self, text: str) -> None:
        """Print a line, preceded by the current date and time."""
        self._log.say(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}")

    def bad_file(self, file: str, reason: str) -> None:
        """Report a recording that cannot be scored."""
        self._announce("bad_file", f"BAD    {reason}", {"file": file, "error": reason})

    def recording(self, file: str, scored: ScoredRecording) -> None:
        """Report a recording and its alarms, and send the alarms."""
        for kind, note in scored.notes.items():
            if kind not in self._said and len(self._said) < _MOST_NOTES:
                self._said.add(kind)
                self.say(f"{printable(file)}: {note}")
        verdict = scored.verdict
        fields = {"file": file, "machine": verdict.machine, **scored.entry()}
        if scored.alarms is None:
            line = _line(file, verdict, "ALARM")
            self._announce("recording", line, fields, verdict.is_anomaly)
            return
        self._announce("recording", _line(file, verdict, "above"), fields)
        for alarm in scored.alarms.events:
            event = "alarm" if alarm.end is None else "alarm_over"
            line = alarm_line(verdict.machine, alarm, scored.alarms.rule)
            about = {"file": file, "machine": verdict.machine, **alarm.entry()}
            self._announce(event, line, about, not alarm.is_held)

    def _announce(
        self, event: str, line: str, fields: dict[str, Any], is_sent: bool = False
    ) -> None:
        self.say(line)
        time_ = datetime.now().astimezone().isoformat(timespec="milliseconds")
        fields = {"time": time_, **fields}
        if self._json_lines is not None:
            self._json_lines.add({"event": event, **fields})
        if is_sent and self._send is not None:
            event = "alarm" if event == "recording" else event
            # Chat programs show the field `text`.
            self._send({"event": event, **fields, "text": line})


def clock(seconds: float) -> str:
    """Format a time within a recording as `1:02:03` or `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def alarm_line(machine: str, alarm: Alarm, rule: str) -> str:
    """Describe an alarm that was raised or has ended."""
    start = f"since {_moment(alarm.start)}"
    if alarm.end is not None:
        return f"over   {printable(machine)}  at {_moment(alarm.end)}: alarm {start}"
    held = "  (held back: soon after another alarm)" if alarm.is_held else ""
    return f"ALARM  {printable(machine)}  {start}: {rule}{held}"


def _moment(moment: Moment) -> str:
    return f"{clock(moment.seconds)} of {printable(moment.recording)}"


def _line(file: str, verdict: Verdict, above: str) -> str:
    state = above if verdict.is_anomaly else "ok   "
    if not verdict.is_running:
        about = f"{printable(verdict.machine)}  {printable(file)}"
        return f"{verdict.state:5}  {about}  not judged"
    where = ""
    if verdict.n_clips > 1:
        where = f"  {verdict.clips_text} clips above the threshold of one clip"
    if verdict.n_clips > 1 and verdict.stretches:
        highest = max(verdict.stretches, key=lambda stretch: stretch.score)
        where += f", highest {clock(highest.start)} to {clock(highest.end)}"
    return (
        f"{state}  {printable(verdict.machine)}  {printable(file)}{where}  "
        f"score {verdict.score:.4g}  p {verdict.p_text}  "
        f"threshold {verdict.threshold:.4g}"
    )
