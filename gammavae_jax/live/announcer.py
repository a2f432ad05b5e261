"""What a watch says: lines for people, lines of JSON, and alarms by webhook."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from gammavae_jax.errors import printable
from gammavae_jax.live.json_lines import JsonLines
from gammavae_jax.live.verdict import Heard, Stretch, Verdict, numbers
from gammavae_jax.log import Log


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
