"""Reports live monitoring results as printed lines, JSON Lines and sent alarms."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

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


class Announcer:
    """Prints every event, adds it to `json_lines` and sends alarms."""

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
        """Print a recording's verdict and its alarms, and send them to the webhook."""
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
            # Chat software shows the field `text`.
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
