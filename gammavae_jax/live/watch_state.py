"""Keeps the state of a watch in two files, for the next watch.

`ScoredLog` lists the recordings that have been scored. `AlarmMemory` has the state of
each machine's alarms: without it, a watch that is started for each recording would
never see enough segments for an alarm, and one that is restarted would forget active
alarms and the hold time.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from gammavae_jax.config_json import parse_json
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import FolderInUse, FolderLock, read_text, write_text
from gammavae_jax.live.arrivals import Arrival, Stamp, stamp_of
from gammavae_jax.scoring.alarm_policy import Alarm, AlarmPolicy, AlarmState, Moment

_LINE_START = '{"file": "'
_KEPT_SECONDS = 30 * 24 * 3600
_ROUNDED_NS = 2_000_000_000  # some file systems store times in steps of two seconds

_RULE = "level", "k", "n", "hold_seconds", "recording_seconds"


class AlarmMemory:
    """A JSON file with each machine's alarm state.

    A malformed file is ignored, and so is a state that was saved under a different
    policy. `notes` then contains a line with the reason.
    """

    def __init__(self, path: Path, policies: Mapping[str, AlarmPolicy]):
        self._path = path
        self._policies = dict(policies)
        self.notes: list[str] = []
        self.states = dict.fromkeys(policies, AlarmState())
        try:
            self.states |= self._read()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._ignore(f"cannot be read ({error.strerror})")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            self._ignore("is not the alarm file of a watch")

    def write(self, states: Mapping[str, AlarmState]) -> None:
        """Replace the file; raise an OSError if that fails."""
        entries = {
            machine: {"rule": _rule(self._policies[machine]), **_entry(state)}
            for machine, state in states.items()
        }
        write_text(self._path, json.dumps(entries, allow_nan=False) + "\n")

    def _read(self) -> dict[str, AlarmState]:
        states, entries = {}, parse_json(read_text(self._path))
        for machine in sorted(self._policies.keys() & entries.keys()):
            policy, entry = self._policies[machine], entries[machine]
            if entry["rule"] == _rule(policy):
                states[machine] = _state(entry, policy)
            else:
                problem = f"{printable(machine)}: the rule for alarms has changed"
                self.notes.append(f"{problem}, so earlier recordings are ignored")
        return states

    def _ignore(self, problem: str) -> None:
        effect = "earlier recordings are ignored for alarms"
        self.notes = [f"{printable(self._path)} {problem}: {effect}"]


def _rule(policy: AlarmPolicy) -> dict[str, float]:
    return {name: getattr(policy, name) for name in _RULE}


def _entry(state: AlarmState) -> dict[str, Any]:
    """Return an alarm state as a JSON object; `_state` is the inverse."""
    return {
        "window": [[counts, *moment] for counts, moment in state.window],
        "alarm": state.alarm and state.alarm.entry(),
        "clock": state.clock,
        "hold_ends": state.hold_ends if math.isfinite(state.hold_ends) else None,
    }


def _state(entry: Mapping[str, Any], policy: AlarmPolicy) -> AlarmState:
    """Parse an alarm state from a JSON object.

    If the object is malformed, raise a ValueError or a similar error.
    """
    window = tuple(
        (_checked(counts, bool), _moment(recording, seconds))
        for counts, recording, seconds in entry["window"]
    )
    if len(window) > policy.n:
        raise ValueError("more segments than the policy uses")
    alarm, ends = entry["alarm"], entry["hold_ends"]
    return AlarmState(
        window,
        None if alarm is None else _alarm(alarm),
        _number(entry["clock"]),
        -math.inf if ends is None else _number(ends),
    )


def _alarm(entry: Mapping[str, Any]) -> Alarm:
    start, raised = (_moment(**entry[name]) for name in ("start", "raised"))
    return Alarm(start, raised, is_held=_checked(entry["is_held"], bool))


def _moment(recording: Any, seconds: Any) -> Moment:
    return Moment(_checked(recording, str), _number(seconds))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    return float(value)


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"not of type {kind.__name__}")
    return value


class Scored(NamedTuple):
    """A scored recording."""

    stamp: Stamp
    time: float  # when it was scored, in seconds since 1970
    content: str = ""  # checksum of the file; empty if it was skipped


class ScoredLog:
    """A JSON Lines file that lists the recordings that have been scored.

    A recording is identified by its name and stamp or, after it was moved, by its
    contents and modification time. Recordings that no longer exist are dropped 30 days
    after they were scored. Opening a file raises an InputError if the file is unusable,
    is in use by another watch, or is not such a log.
    """

    def __init__(self, path: Path):
        self.path = Path(os.path.realpath(path))
        # The file of `AlarmMemory`, protected by the same lock.
        self.alarms_path = self.path.parent / f"{self.path.name}.alarms.json"
        self._scored: dict[str, Scored] = {}
        self._file: IO[str] | None = None
        try:
            self.path.touch()
            # A lock on the log file itself would be lost when the file is rewritten.
            name = f"{self.path.name}.lock"
            self._lock = FolderLock(self.path.parent, name, stays=False)
            with contextlib.ExitStack() as stack:
                stack.push(self._lock)
                self._scored = _read(self.path)
                if not self._scored:  # a new log, so earlier alarms are ignored
                    self.alarms_path.unlink(missing_ok=True)
                self._rewrite()
                stack.pop_all()
        except FolderInUse as error:
            remedy = "stop that watch, or choose another file with --state"
            message = f"{printable(path)} is in use by another watch: {remedy}"
            raise InputError(message) from error
        except OSError as error:
            problem = f"{printable(path)} cannot be used ({error.strerror})"
            remedy = "choose a writable file with --state"
            raise InputError(f"{problem}: {remedy}") from error

    def __enter__(self) -> "ScoredLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._lock.__exit__()

    def contains(self, name: str, stamp: Stamp) -> bool:
        """Return whether this version of a recording has been scored."""
        return name in self._scored and self._scored[name].stamp == stamp

    def moved_from(self, folder: Path, arrival: Arrival, content: str) -> str | None:
        """Return the name under which a recording was scored, or None if it is new.

        The same contents are not enough: a dead microphone may record the same silence
        again. The modification time must be the same as well, and the earlier name
        must belong to the same file, or no longer exist.
        """
        size, mtime_ns, inode, _ = arrival.stamp
        for name, (stamp, _, before) in self._scored.items():
            if stamp.size != size or abs(stamp.mtime_ns - mtime_ns) > _ROUNDED_NS:
                continue
            is_name = name == arrival.name
            is_file = stamp.inode == inode or (is_name and not stamp.inode)
            is_same = before == content if before else is_file
            if is_same and (is_name or is_file or stamp_of(folder / name) != stamp):
                return name
        return None

    def add(self, arrival: Arrival, content: str = "") -> None:
        """Log a scored recording and remember it even if writing raises an OSError."""
        scored = Scored(arrival.stamp, time.time(), content)
        self._scored[arrival.name] = scored
        if self._file is None:
            self._rewrite()
            return
        try:
            self._file.write(_line(arrival.name, scored))
            self._file.flush()
        except OSError:
            # Otherwise, the buffered part of this line would precede the next one.
            self._close()
            raise

    def forget_gone(self, present: dict[str, Stamp]) -> None:
        """Drop the entries of recordings that were scored long ago and no longer exist.

        Nothing is dropped if no known recording is present, because then the network
        share is probably disconnected. Like `add`, this may raise an OSError.
        """
        if not present.keys() & self._scored.keys():
            return
        oldest = time.time() - _KEPT_SECONDS
        self._scored = {
            name: scored
            for name, scored in self._scored.items()
            if name in present or scored.time > oldest
        }
        self._rewrite()

    def _rewrite(self) -> None:
        """Rewrite the log file and leave it open for appending."""
        self._close()
        write_text(self.path, "".join(_line(*of) for of in self._scored.items()))
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # from an earlier failed write
                file.close()


def _read(path: Path) -> dict[str, Scored]:
    """Return the logged recordings; skip unreadable lines, such as truncated ones."""
    scored = {}
    lines = read_text(path, errors="replace").split("\n")
    for number, line in enumerate(lines):
        try:
            entry = parse_json(line)
            more = (int(entry.get(field, 0)) for field in ("inode", "ctime_ns"))
            stamp = Stamp(int(entry["size"]), int(entry["mtime_ns"]), *more)
            content = str(entry.get("content", ""))
            scored[str(entry["file"])] = Scored(stamp, float(entry["time"]), content)
        except (ValueError, TypeError, KeyError) as error:
            if number == 0 and not (len(lines) == 1 and _is_truncated(line)):
                problem = f"{printable(path)} is not the state file of a watch"
                remedy = "choose another file with --state"
                raise InputError(f"{problem}: {remedy}") from error
    return scored


def _is_truncated(line: str) -> bool:
    """Return whether a line is the beginning of a valid log line."""
    return line[: len(_LINE_START)] == _LINE_START[: len(line)] and line[-1:] != "}"


def _line(name: str, scored: Scored) -> str:
    stamp, when, content = scored
    entry = {"file": name, **stamp._asdict(), "time": round(when, 3)}
    return json.dumps(entry | {"content": content}) + "\n"
