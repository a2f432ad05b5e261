"""Follows each machine's alarms as its recordings are scored."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gammavae_jax.live.watch_state import AlarmMemory
from gammavae_jax.scoring.alarm_policy import Alarm, AlarmPolicy, AlarmState
from gammavae_jax.scoring.verdict import Verdict


class AlarmUpdate(NamedTuple):
    """The effect of a recording on its machine's alarms."""

    events: tuple[Alarm, ...]  # raised, no longer held back, or ended
    standing: Alarm | None  # still active after the recording
    rule: str  # says when alarms are raised
    n_raised: int  # alarms, each counted once
    notes: Mapping[str, str]  # by kind; see `notes_on` of `data.conditions`

    def entry(self) -> dict[str, Any]:
        """Return the update as two fields of a JSON object."""
        standing = self.standing and self.standing.entry()
        return {"alarm": standing, "alarm_events": [e.entry() for e in self.events]}


class LiveAlarms:
    """The alarms of several machines, each with its own policy.

    Pass recordings to `take` one at a time, in the order in which they are reported.
    Without a memory, a new object does not know about earlier recordings.
    """

    def __init__(
        self, policies: Mapping[str, AlarmPolicy], memory: AlarmMemory | None = None
    ):
        self._policies = dict(policies)
        self._memory = memory
        fresh = dict.fromkeys(policies, AlarmState())
        self._states = dict(memory.states) if memory else fresh

    def take(self, verdict: Verdict, name: str) -> AlarmUpdate:
        """Update a machine's alarms with its next recording.

        `name` identifies the recording in alarms.
        """
        machine = verdict.machine
        policy, state = self._policies[machine], self._states[machine]
        was_active = state.alarm is not None
        state, events = policy.follow(state, verdict._replace(name=name))
        self._states[machine] = state
        n_ended = sum(event.end is not None for event in events)
        n_raised = n_ended + (state.alarm is not None) - was_active
        notes = _notes_on(policy, verdict)
        return AlarmUpdate(tuple(events), state.alarm, policy.rule, n_raised, notes)

    def save(self) -> None:
        """Write the states to the memory, if any; raise an OSError if that fails."""
        if self._memory is not None:
            self._memory.write(self._states)


def _notes_on(policy: AlarmPolicy, verdict: Verdict) -> dict[str, str]:
    n_segments, most = len(verdict.segments), policy.most_segments
    if most is None or n_segments <= most:
        return {}
    problem = f"{n_segments} segments, but training recordings have at most {most}"
    remedy = "expect more false alarms than stated, or record shorter files"
    return {f"segments {verdict.machine}": f"{problem}: {remedy}"}
