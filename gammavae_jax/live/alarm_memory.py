"""Keeps the state of each machine's alarms in a JSON file, for the next watch.

Without this file, a watch that is started for each recording would never see enough
segments for an alarm, and one that is restarted would forget active alarms and the hold
time.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gammavae_jax.config_json import parse_json
from gammavae_jax.errors import printable
from gammavae_jax.files import read_text, write_text
from gammavae_jax.scoring.alarm_policy import Alarm, AlarmPolicy, AlarmState, Moment

_RULE = "level", "k", "n", "hold_seconds", "recording_seconds"


class AlarmMemory:
    """A JSON file with the state of each machine's alarms.

    A malformed file is ignored, and so is a state that was saved under a different
    policy. `notes` then has a line that says so.
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
                self.notes.append(f"{problem}, so earlier recordings do not count")
        return states

    def _ignore(self, problem: str) -> None:
        effect = "earlier recordings do not count for alarms"
        self.notes = [f"{printable(self._path)} {problem}: {effect}"]


def _rule(policy: AlarmPolicy) -> dict[str, float]:
    return {name: getattr(policy, name) for name in _RULE}


def _entry(state: AlarmState) -> dict[str, Any]:
    """Return a state as a JSON object; `_state` is the inverse."""
    return {
        "window": [[counts, *moment] for counts, moment in state.window],
        "alarm": state.alarm and state.alarm.entry(),
        "clock": state.clock,
        "hold_ends": state.hold_ends if math.isfinite(state.hold_ends) else None,
    }


def _state(entry: Mapping[str, Any], policy: AlarmPolicy) -> AlarmState:
    """Parse a state from a JSON object.

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
