"""A watched folder: every new recording is scored and reported."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gammavae_jax.data.audio import open_recording, resampled_blocks
from gammavae_jax.errors import InputError, printable
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.arrivals import (
    OPEN_SETTLES,
    Arrival,
    Arrivals,
    ScoredLog,
    Stamp,
    recordings_in,
    stamp_of,
)
from gammavae_jax.live.scorer import (
    LiveScorer,
    RecordingVerdict,
    Stretch,
    WindowSize,
    score_windows,
)

_CLEANUP_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class WatchOptions:
    """What to watch, and how."""

    folder: Path
    machine: str | None  # of all recordings; None takes it from their subfolders
    size: WindowSize
    poll_seconds: float
    settle_seconds: float


class FolderWatch:
    """Scores the recordings that appear in a folder, and reports the verdicts."""

    def __init__(
        self,
        options: WatchOptions,
        scorer: LiveScorer,
        scored: ScoredLog,
        announcer: Announcer,
    ):
        self._options = options
        self._folder = options.folder
        self._scorer = scorer
        self._scored = scored
        self._announcer = announcer
        self._arrivals = Arrivals(options.folder, options.settle_seconds)
        self._bad: dict[str, Stamp] = {}  # reported already
        self._rates: set[int] = set()
        self._held: set[str] = set()  # named as being written
        self._is_gone = False
        self._cleaned = -_CLEANUP_SECONDS
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Watch until interrupted."""
        while True:
            began = time.monotonic()
            self._poll()
            # Listing a large network share may take longer than the pause.
            took = time.monotonic() - began
            time.sleep(max(self._options.poll_seconds, took))

    def run_once(self) -> None:
        """Score the complete recordings, and name those that are still growing."""
        self._poll()
        for settles in (1, OPEN_SETTLES - 1):
            if self._arrivals.growing:
                time.sleep(settles * self._options.settle_seconds)
                self._poll()
        for name in self._arrivals.growing:
            self._announcer.say(f"{printable(name)}: still growing: left for later")

    def skip_existing(self) -> None:
        """Log all present recordings as scored."""
        try:
            present = recordings_in(self._folder)
        except OSError as error:
            reason = f"{error.strerror}: name a folder that this user may list"
            raise InputError(f"{printable(self._folder)}: {reason}") from error
        try:
            for name, stamp in present.items():
                self._scored.add(Arrival(name, stamp))
        except OSError as error:
            reason = f"the state cannot be written ({error.strerror})"
            raise InputError(f"{reason}: name another file with --state") from error

    def _poll(self) -> None:
        folder = printable(self._folder)
        try:
            arrivals = self._arrivals.poll(self._is_known)
        except OSError as error:
            if not self._is_gone:
                self._announcer.say(f"{folder}: {error.strerror}: waiting for it")
            self._is_gone = True
            return
        if self._is_gone:
            self._announcer.say(f"{folder} is back")
        self._is_gone = False
        for name in sorted(self._arrivals.held - self._held):
            problem = f"{printable(name)}: its header has no length yet"
            self._announcer.say(f"{problem}: waiting until its recorder closes it")
        self._held = self._arrivals.held.copy()
        for arrival in arrivals:
            self._handle(arrival)
        if time.monotonic() - self._cleaned >= _CLEANUP_SECONDS:
            self._cleaned = time.monotonic()
            with self._state_errors_reported(), contextlib.suppress(FileNotFoundError):
                present = recordings_in(self._folder)
                self._bad = {n: s for n, s in self._bad.items() if n in present}
                self._scored.forget_gone(present)

    def _is_known(self, name: str, stamp: Stamp) -> bool:
        return self._bad.get(name) == stamp or self._scored.contains(name, stamp)

    def _handle(self, arrival: Arrival) -> None:
        """Score a recording, and report it if that fails."""
        try:
            self._score(arrival)
        except InputError as error:
            stamp = stamp_of(self._folder / arrival.name)
            if stamp is None:
                name = printable(arrival.name)
                self._announcer.say(f"{name}: removed before it was scored")
                return
            self._bad[arrival.name] = arrival.stamp
            if stamp == arrival.stamp:
                self.counts["bad"] += 1
                self._announcer.bad_file(arrival.name, str(error))

    def _score(self, arrival: Arrival) -> None:
        path = self._folder / arrival.name
        machine = self._machine_of(arrival.name)
        for verdict in self._verdicts(path, machine):
            if isinstance(verdict, Stretch):
                self.counts["alarms"] += 1
                self._announcer.stretch(arrival.name, machine, verdict)
                continue
            if stamp_of(path) != arrival.stamp:
                raise InputError(f"{printable(path)}: changed while it was read")
            self.counts["scored"] += 1
            self.counts["alarms"] += verdict.is_single_alarm
            self._announcer.recording(arrival.name, machine, verdict)
        self._bad.pop(arrival.name, None)
        # Logged last: a watch that is killed reports a recording twice, never not.
        with self._state_errors_reported():
            self._scored.add(arrival)

    def _verdicts(
        self, path: Path, machine: str
    ) -> Iterator[Stretch | RecordingVerdict]:
        """Score a file."""
        scorer = self._scorer
        try:
            with open_recording(path, channel=scorer.channel) as recording:
                rate = recording.sample_rate
                if rate != scorer.sample_rate and rate not in self._rates:
                    self._rates.add(rate)
                    text = f"resampling recordings at {rate} Hz to"
                    self._announcer.say(f"{text} {scorer.sample_rate} Hz")
                blocks = resampled_blocks(recording.blocks, rate, scorer.sample_rate)
                yield from score_windows(
                    scorer, machine, blocks, self._options.size, printable(path)
                )
        except InputError:
            raise
        except Exception as error:
            reason = printable(f"{type(error).__name__}: {error}")
            raise InputError(f"{printable(path)}: {reason}") from error

    def _machine_of(self, name: str) -> str:
        """Return the machine of the option, of a subfolder, or the only one."""
        machines = self._scorer.machines
        if self._options.machine is not None:
            return self._options.machine
        for folder in name.split("/")[:-1]:
            if folder in machines:
                return folder
        if len(machines) == 1:
            return machines[0]
        problem = f"{printable(name)}: not in a machine's folder"
        remedy = "move it there, or give --machine"
        raise InputError(f"{problem} ({', '.join(machines)}): {remedy}")

    @contextlib.contextmanager
    def _state_errors_reported(self) -> Iterator[None]:
        """Report an unwritable state, and continue: repeats are better than gaps."""
        try:
            yield
        except OSError as error:
            problem = f"the state cannot be written ({error.strerror})"
            effect = "a restarted watch would score recordings again"
            self._announcer.say(f"{problem}: {effect}")
