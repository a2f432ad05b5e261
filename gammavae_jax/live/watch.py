"""A folder that is watched: every new recording is scored, and told of."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gammavae_jax.data.audio import open_recording, resampled_blocks
from gammavae_jax.errors import InputError, printable
from gammavae_jax.live.announce import Announcer
from gammavae_jax.live.arrivals import Arrival, Arrivals, Stamp, recordings_in, stamp_of
from gammavae_jax.live.scored_log import ScoredLog
from gammavae_jax.live.scorer import Heard, LiveScorer, Stretch
from gammavae_jax.live.windows import Rolling, hear

_BETWEEN_TIDYINGS = 24 * 3600.0  # s


@dataclass(frozen=True)
class Watched:
    """What is watched, and how."""

    folder: Path
    machine: str | None  # whose recordings these are, where folders do not say
    rolling: Rolling
    poll_seconds: float
    settle_seconds: float


class FolderWatch:
    """Scores what appears in a folder, and says it.

    Args:
        watched: the folder.
        scorer: the detector.
        scored: what earlier watches have scored.
        announcer: to be told everything.
    """

    def __init__(
        self,
        watched: Watched,
        scorer: LiveScorer,
        scored: ScoredLog,
        announcer: Announcer,
    ):
        self._watched = watched
        self._scorer = scorer
        self._scored = scored
        self._announcer = announcer
        self._arrivals = Arrivals(watched.folder, watched.settle_seconds)
        self._bad: dict[str, Stamp] = {}  # named, and not to be named again
        self._rates: set[int] = set()
        self._is_gone = False
        self._tidied = -_BETWEEN_TIDYINGS
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Watch until interrupted."""
        while True:
            began = time.monotonic()
            self._look()
            # A look through a large share may take longer than the pause meant.
            took = time.monotonic() - began
            time.sleep(max(self._watched.poll_seconds, took))

    def run_once(self) -> None:
        """Score what is there, and whole; name what is still growing."""
        self._look()
        time.sleep(self._watched.settle_seconds)
        self._look()
        for name in self._arrivals.growing:
            self._announcer.say(f"{printable(name)}: still growing: left for later")

    def know_all(self) -> None:
        """Take what is there now as scored.

        Raises:
            InputError: the folder cannot be listed, or the state not be written.
        """
        folder = printable(self._watched.folder)
        try:
            present = recordings_in(self._watched.folder)
        except OSError as error:
            raise InputError(
                f"{folder}: {error.strerror}: give a folder that this user may list"
            ) from error
        try:
            for name, stamp in present.items():
                self._scored.add(Arrival(name, stamp))
        except OSError as error:
            raise InputError(
                f"the state cannot be written ({error.strerror}): give another file by "
                "--state"
            ) from error

    def _look(self) -> None:
        folder = printable(self._watched.folder)
        try:
            arrivals = self._arrivals.look(self._is_known)
        except OSError as error:
            if not self._is_gone:
                self._announcer.say(f"{folder}: {error.strerror}: waiting for it")
            self._is_gone = True
            return
        if self._is_gone:
            self._announcer.say(f"{folder} is there again")
        self._is_gone = False
        for arrival in arrivals:
            self._take(arrival)
        if time.monotonic() - self._tidied >= _BETWEEN_TIDYINGS:
            self._tidied = time.monotonic()
            with self._state_may_fail(), contextlib.suppress(FileNotFoundError):
                present = recordings_in(self._watched.folder)
                self._bad = {n: s for n, s in self._bad.items() if n in present}
                self._scored.forget_gone(present)

    def _is_known(self, name: str, stamp: Stamp) -> bool:
        return self._bad.get(name) == stamp or self._scored.knows(name, stamp)

    def _take(self, arrival: Arrival) -> None:
        """Score a recording; whatever is wrong with it, go on with the next.

        Raises:
            OutputLost: nobody would learn of it.
        """
        path = self._watched.folder / arrival.name
        try:
            self._score(path, arrival)
        except InputError as error:
            now = stamp_of(path)
            if now is None:
                self._announcer.say(
                    f"{printable(arrival.name)}: gone before it was read"
                )
                return
            self._bad[arrival.name] = arrival.stamp
            if now == arrival.stamp:
                self.counts["bad"] += 1
                self._announcer.bad(arrival.name, str(error))

    def _score(self, path: Path, arrival: Arrival) -> None:
        machine = self._machine_of(arrival.name)
        for said in self._whatever_happens(self._heard(path, machine), path):
            if isinstance(said, Stretch):
                self.counts["alarms"] += 1
                self._announcer.stretch(arrival.name, machine, said)
                continue
            if stamp_of(path) != arrival.stamp:
                raise InputError(f"{printable(path)}: changed meanwhile")
            self.counts["scored"] += 1
            self.counts["alarms"] += said.worst.is_anomaly and said.n_windows == 1
            self._announcer.heard(arrival.name, machine, said)
        self._bad.pop(arrival.name, None)
        with self._state_may_fail():
            self._scored.add(arrival)

    @staticmethod
    def _whatever_happens(
        heard: Iterator[Stretch | Heard], path: Path
    ) -> Iterator[Stretch | Heard]:
        """The same, but all errors are `InputError`: the others can still be scored."""
        try:
            yield from heard
        except InputError:
            raise
        except Exception as error:
            reason = printable(f"{type(error).__name__}: {error}")
            raise InputError(f"{printable(path)}: {reason}") from error

    def _heard(self, path: Path, machine: str) -> Iterator[Stretch | Heard]:
        scorer = self._scorer
        with open_recording(path, channel=scorer.channel) as recording:
            rate = recording.sample_rate
            if rate != scorer.sample_rate and rate not in self._rates:
                self._rates.add(rate)
                self._announcer.say(
                    f"recordings at {rate} Hz are resampled to {scorer.sample_rate} Hz"
                )
            blocks = resampled_blocks(recording.blocks, rate, scorer.sample_rate)
            yield from hear(
                scorer, machine, blocks, self._watched.rolling, printable(path)
            )

    def _machine_of(self, name: str) -> str:
        """By the option, else by the folders of a recording, else the only one.

        Raises:
            InputError: the recording is of no machine that is known.
        """
        machines = self._scorer.machines
        if self._watched.machine is not None:
            return self._watched.machine
        of_folder = next((p for p in name.split("/")[:-1] if p in machines), None)
        if of_folder is not None:
            return of_folder
        if len(machines) != 1:
            raise InputError(
                f"{printable(name)}: in no machine's folder ({', '.join(machines)}): "
                "move it there, or give --machine"
            )
        return machines[0]

    @contextlib.contextmanager
    def _state_may_fail(self) -> Iterator[None]:
        """Watching on is worth more than to know later what was scored."""
        try:
            yield
        except OSError as error:
            self._announcer.say(
                f"the state cannot be written ({error.strerror}): after a restart, "
                "recordings would be scored again"
            )
