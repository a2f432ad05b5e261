"""Watches a folder: scores every new recording and reports the verdict."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gammavae_jax.data.audio.files import open_recording
from gammavae_jax.data.audio.listing import HIDDEN, left_out_lines
from gammavae_jax.data.names import nfc
from gammavae_jax.errors import InputError, printable
from gammavae_jax.live.alarms import LiveAlarms
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.arrivals import (
    OPEN_SETTLES,
    Arrival,
    Arrivals,
    Stamp,
    content_of,
    recordings_in,
    stamp_of,
)
from gammavae_jax.live.scorer import LiveScorer, ScoredRecording
from gammavae_jax.live.watch_state import ScoredLog

_CLEANUP_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class WatchOptions:
    """The options of a `FolderWatch`."""

    folder: Path
    machine: str | None  # of all recordings; None if it is the subfolder's name
    poll_seconds: float
    settle_seconds: float


class FolderWatch:
    """Scores recordings as they appear in a folder."""

    def __init__(
        self,
        options: WatchOptions,
        scorer: LiveScorer,
        scored: ScoredLog,
        announcer: Announcer,
        alarms: LiveAlarms | None = None,
        after_poll: Callable[[], None] | None = None,
    ):
        self._options = options
        self._folder = options.folder
        self._scorer = scorer
        self._scored = scored
        self._announcer = announcer
        self._alarms = alarms
        self._after_poll = after_poll
        self._arrivals = Arrivals(options.folder, options.settle_seconds)
        self._bad: dict[str, Stamp] = {}  # reported already
        # Reported already; None before the first poll.
        self._left_out: set[str] | None = None
        self._named_open: set[str] = set()  # reported already as being written
        self._is_gone = False
        self._cleaned = -_CLEANUP_SECONDS
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Watch until interrupted."""
        while True:
            began = time.monotonic()
            self._poll()
            # Listing a large network share may take longer than `poll_seconds`.
            took = time.monotonic() - began
            time.sleep(max(self._options.poll_seconds, took))

    def run_once(self) -> None:
        """Score the complete recordings and report those that are still growing."""
        self._poll()
        for settles in (1, OPEN_SETTLES - 1):
            if self._arrivals.growing:
                time.sleep(settles * self._options.settle_seconds)
                self._poll()
        for name in self._arrivals.growing:
            problem = f"{printable(name)} is still growing, so it was not scored"
            self._announcer.say(f"{problem}: run the watch again later")
        if not self.counts and not self._arrivals.growing:
            self._say_why_nothing_was_scored()

    def _say_why_nothing_was_scored(self) -> None:
        try:
            present, _ = recordings_in(self._folder)
        except OSError:  # reported already
            return
        if not present:
            folder = printable(self._folder)
            self._announcer.say(f"{folder} contains no recordings to score")
        if n := sum(self._scored.contains(*of) for of in present.items()):
            problem = f"{n} of {len(present)} recordings were scored or skipped before"
            remedy = f"delete {printable(self._scored.path)} to score them again"
            self._announcer.say(f"{problem}: {remedy}")

    def skip_existing(self) -> None:
        """Mark all existing recordings as scored."""
        try:
            present, _ = recordings_in(self._folder)
        except OSError as error:
            problem = f"{printable(self._folder)} cannot be listed ({error.strerror})"
            remedy = "choose a readable folder"
            raise InputError(f"{problem}: {remedy}") from error
        try:
            for name, stamp in present.items():
                self._scored.add(Arrival(name, stamp))
        except OSError as error:
            reason = f"the state file cannot be written ({error.strerror})"
            raise InputError(f"{reason}: choose another file with --state") from error

    def _poll(self) -> None:
        self._take_arrivals()
        if self._after_poll is not None:
            self._after_poll()

    def _take_arrivals(self) -> None:
        folder = printable(self._folder)
        try:
            arrivals = self._arrivals.poll(self._is_known)
        except OSError as error:
            if not self._is_gone:
                problem = f"{folder} cannot be listed ({error.strerror})"
                self._announcer.say(f"{problem}: waiting until it is available")
            self._is_gone = True
            return
        if self._is_gone:
            self._announcer.say(f"{folder} is available again")
        self._is_gone = False
        self._name_left_out()
        for name in sorted(self._arrivals.open_files - self._named_open):
            problem = (
                f"the header of {printable(name)} does not state the audio length yet"
            )
            self._announcer.say(f"{problem}: waiting until the file is closed")
        self._named_open = self._arrivals.open_files.copy()
        for arrival in arrivals:
            self._handle(arrival)
        if time.monotonic() - self._cleaned >= _CLEANUP_SECONDS:
            self._cleaned = time.monotonic()
            with self._state_errors_reported(), contextlib.suppress(FileNotFoundError):
                present, _ = recordings_in(self._folder)
                self._bad = {n: s for n, s in self._bad.items() if n in present}
                self._scored.forget_gone(present)

    def _name_left_out(self) -> None:
        """Report left-out files; report hidden ones only when the watch starts."""
        found, named = self._arrivals.left_out, self._left_out
        new = {
            name: reason
            for name, reason in found.items()
            if named is None or (name not in named and reason != HIDDEN)
        }
        for line in left_out_lines(self._folder, new):
            self._announcer.say(line)
        self._left_out = set(found)

    def _is_known(self, name: str, stamp: Stamp) -> bool:
        return self._bad.get(name) == stamp or self._scored.contains(name, stamp)

    def _handle(self, arrival: Arrival) -> None:
        """Score a recording if it is new; if scoring fails, report a bad file."""
        try:
            content = content_of(self._folder / arrival.name)
            before = self._scored.moved_from(self._folder, arrival, content)
            if before is None or self._is_of_another_machine(before, arrival.name):
                self._score(arrival, content)
                return
            if before != arrival.name:
                moved = f"{printable(arrival.name)} was already scored as"
                self._announcer.say(f"{moved} {printable(before)}: not scored again")
            self._log_scored(arrival, content)
        except InputError as error:
            stamp = stamp_of(self._folder / arrival.name)
            if stamp is None:
                name = printable(arrival.name)
                self._announcer.say(f"{name} was removed before it was scored")
                return
            self._bad[arrival.name] = arrival.stamp
            if stamp == arrival.stamp:
                self.counts["bad"] += 1
                self._announcer.bad_file(arrival.name, str(error))

    def _is_of_another_machine(self, before: str, name: str) -> bool:
        """Return whether a recording was moved to a different machine's folder."""
        try:
            return self._machine_of(before) != self._machine_of(name)
        except InputError:  # not in the folder of a machine
            return False

    def _score(self, arrival: Arrival, content: str) -> None:
        path = self._folder / arrival.name
        machine = self._machine_of(arrival.name)
        scored = self._scored_recording(path, machine)
        if stamp_of(path) != arrival.stamp:
            raise InputError(f"{printable(path)} changed while it was being read")
        self.counts["scored"] += 1
        if self._alarms is not None:
            update = self._alarms.take(scored.verdict, arrival.name)
            scored = scored.with_alarms(update)
        self.counts["alarms"] += scored.n_alarms
        self._announcer.recording(arrival.name, scored)
        if self._alarms is not None:
            effect = "a restarted watch would not know of earlier alarms"
            with self._state_errors_reported(effect):
                self._alarms.save()
        # Logged last: a killed watch may report a recording twice, but never omits it.
        self._log_scored(arrival, content)

    def _log_scored(self, arrival: Arrival, content: str) -> None:
        self._bad.pop(arrival.name, None)
        with self._state_errors_reported():
            self._scored.add(arrival, content)

    def _scored_recording(self, path: Path, machine: str) -> ScoredRecording:
        """Score a recording; turn any error into an InputError that names the file."""
        try:
            with open_recording(path, channel=self._scorer.channels) as recording:
                return self._scorer.score(recording, machine, printable(path))
        except InputError:
            raise
        except Exception as error:
            reason = printable(f"{type(error).__name__}: {error}")
            raise InputError(f"{printable(path)}: {reason}") from error

    def _machine_of(self, name: str) -> str:
        """Derive a recording's machine from the options, its path or the detector."""
        machines = self._scorer.machines
        if self._options.machine is not None:
            return self._options.machine
        of_form = {nfc(machine): machine for machine in machines}
        for folder in nfc(name).split("/")[:-1]:
            if folder in of_form:
                return of_form[folder]
        if len(machines) == 1:
            return machines[0]
        problem = f"{printable(name)} is not in a folder named after a machine"
        remedy = "move it to one of these folders, or use --machine"
        raise InputError(f"{problem} ({', '.join(machines)}): {remedy}")

    @contextlib.contextmanager
    def _state_errors_reported(
        self, effect: str = "a restarted watch would score recordings again"
    ) -> Iterator[None]:
        """Report a failure to write the state file and let the watch continue."""
        try:
            yield
        except OSError as error:
            problem = f"the state file cannot be written ({error.strerror})"
            self._announcer.say(f"{problem}: {effect}")
