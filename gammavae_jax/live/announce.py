"""What a watch says: lines for people, lines of JSON, and alarms by webhook."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from gammavae_jax.errors import InputError, printable
from gammavae_jax.live.scorer import Heard, Stretch, Verdict, numbers
from gammavae_jax.log import Log


class OutputLost(Exception):
    """The lines of JSON have nowhere to go any more; one line that says why."""


class JsonLines:
    """Adds a line at a time, each out at once.

    Args:
        path: `-` is standard output; a file is added to.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, path: Path):
        self._name = "standard output" if path == Path("-") else printable(path)
        self._is_stdout = path == Path("-")
        try:
            self._file = sys.stdout if self._is_stdout else _opened(path)
        except OSError as error:
            raise InputError(self._reason(error)) from error

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            OutputLost: it cannot be written, and none can be from then on.
        """
        try:
            self._file.write(json.dumps(entry, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            self._drop()
            raise OutputLost(self._reason(error)) from error

    def close(self) -> None:
        """Close the file."""
        if not self._is_stdout:
            self._file.close()

    def _drop(self) -> None:
        """Forget what could not be written, which Python would try again at the end."""
        if self._is_stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        with contextlib.suppress(OSError):
            self._file.close()

    def _reason(self, error: OSError) -> str:
        return (
            f"--json: {self._name}: {error.strerror}: give a file that this user may "
            "write"
        )


def _opened(path: Path) -> IO[str]:
    """The file to add to, after a line that was cut off when the power went."""
    file = path.open("a+b")
    if file.tell() and not _ends_in_line(file):
        file.write(b"\n")
    file.close()
    return path.open("a", encoding="utf-8", newline="")


def _ends_in_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


class Announcer:
    """Says what was heard, in each way that was asked for.

    Args:
        log: for lines.
        json_lines: for programs.
        send: for alarms; see `Webhook.send`.
    """

    def __init__(
        self,
        log: Log,
        json_lines: JsonLines | None = None,
        send: Callable[[dict[str, Any]], None] | None = None,
    ):
        self._log = log
        self._json_lines = json_lines
        self._send = send

    def say(self, text: str) -> None:
        """Say a sentence, to people alone."""
        self._log.say(f"{_now():%Y-%m-%d %H:%M:%S}  {text}")

    def bad(self, file: str, reason: str) -> None:
        """Say that a recording cannot be scored."""
        self.say(f"BAD    {reason}")
        self._write({"event": "bad_file", **_when(), "file": file, "error": reason})

    def stretch(self, file: str, machine: str, stretch: Stretch) -> None:
        """Say that a part of a long recording is an alarm."""
        part = f"{clock(stretch.start)} to {clock(stretch.end)}"
        fields = {"start": stretch.start, "end": stretch.end, **numbers(stretch.worst)}
        self._tell("stretch", file, machine, stretch.worst, part, fields)
        self._alarm(file, machine, stretch.worst, part, fields)

    def heard(self, file: str, machine: str, heard: Heard) -> None:
        """Say how a recording was as a whole."""
        whole = ""
        if heard.n_windows > 1:
            whole = (
                f"all {clock(heard.seconds)}, {heard.n_alarms} of {heard.n_windows} "
                "windows alarms"
            )
        fields = {
            "seconds": heard.seconds,
            "n_windows": heard.n_windows,
            "n_alarms": heard.n_alarms,
            **numbers(heard.worst),
        }
        self._tell("recording", file, machine, heard.worst, whole, fields)
        if heard.worst.is_anomaly and heard.n_windows == 1:
            self._alarm(file, machine, heard.worst, whole, fields)

    def _tell(
        self,
        event: str,
        file: str,
        machine: str,
        verdict: Verdict,
        part: str,
        fields: dict[str, Any],
    ) -> None:
        self.say(_sentence(file, machine, verdict, part))
        self._write(
            {"event": event, **_when(), "file": file, "machine": machine, **fields}
        )

    def _alarm(
        self,
        file: str,
        machine: str,
        verdict: Verdict,
        part: str,
        fields: dict[str, Any],
    ) -> None:
        """`text` is what chat programs show."""
        if self._send is not None:
            text = _sentence(file, machine, verdict, part)
            about = {"file": file, "machine": machine, **fields, "text": text}
            self._send({"event": "alarm", **_when(), **about})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._json_lines is not None:
            self._json_lines.add(entry)


def clock(seconds: float) -> str:
    """A time within a recording: `1:02:03` or `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _sentence(file: str, machine: str, verdict: Verdict, part: str) -> str:
    state = "ALARM" if verdict.is_anomaly else "ok   "
    where = f"  {part}" if part else ""
    return (
        f"{state}  {printable(machine)}  {printable(file)}{where}  "
        f"score {verdict.score:.4g}  p {verdict.p_value:.2g}  "
        f"threshold {verdict.threshold:.4g}"
    )


def _now() -> datetime:
    return datetime.now().astimezone()


def _when() -> dict[str, str]:
    return {"time": _now().isoformat(timespec="milliseconds")}
