"""Contests: all sides of a comparison in one call, in turns, doing the same work.

A contestant is one process, or several that work side by side. Each process is a
fresh one, set up before JAX, NumPy or PyTorch is imported; it prepares once, then
repeats its work each time it is told to, while all the others wait. Work is counted in
whatever unit the contestants share (windows, clips), so one may do less of it in a
repetition: what is compared are rates.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from benchmarks.processes import FINISH, REPEAT, Member, Process, serve

# Between two repetitions: threads of OpenMP wait for more work in a busy loop at first.
_PAUSE_S = 0.05


class Contestant(NamedTuple):
    """Processes that work side by side.

    Of contestants with the same `role`, say, two ways to write the same peer, only the
    one that was fastest in the warm-up goes on.
    """

    name: str
    role: str
    members: tuple[Member, ...]


class Spread(NamedTuple):
    """How measured numbers are distributed; `iqr` is the interquartile range."""

    median: float
    min: float
    max: float
    iqr: float


class Outcome(NamedTuple):
    """What a contestant did in the measured rounds."""

    name: str
    work: float  # of a repetition, all processes together
    seconds: tuple[float, ...]  # of each round
    warm_up_rates: Mapping[str, float]  # the best, of every contestant of the role
    facts: tuple[Mapping[str, Any], ...]  # of each process

    @property
    def rate(self) -> float:
        """Work a second, in the median round."""
        return self.work / statistics.median(self.seconds)

    def ratios(self, other: "Outcome") -> Spread:
        """How many times the other's rate, round by round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return spread([(self.work / s) / (other.work / o) for s, o in pairs])


def spread(values: Sequence[float]) -> Spread:
    """Median, extremes and interquartile range."""
    iqr = 0.0
    if len(values) > 1:
        lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
        iqr = upper - lower
    return Spread(statistics.median(values), min(values), max(values), iqr)


def hold(
    contestants: Sequence[Contestant],
    rounds: int,
    warm_up: int,
    say: Callable[[str], None],
) -> dict[str, Outcome]:
    """Prepare the contestants one by one, then let them work in turns.

    Args:
        contestants: to be compared.
        rounds: measured ones. The order of the contestants is drawn anew for each.
        warm_up: rounds before, which are not measured; one at least.
        say: called with a line after each preparation and each round.

    Returns:
        The outcomes by role.

    Raises:
        ProcessError: a process failed.
    """
    draw = random.Random(0)
    with ExitStack() as stack:
        teams = []
        for contestant in contestants:
            start = time.monotonic()
            teams.append(stack.enter_context(_prepared(contestant)))
            say(f"{contestant.name}: ready after {time.monotonic() - start:.1f} s")
        for number in range(1, warm_up + 1):
            _round(teams, draw, f"warm-up {number}/{warm_up}", say)
        teams = _fastest_of_each_role(teams)
        for number in range(1, rounds + 1):
            _round(teams, draw, f"round {number}/{rounds}", say)
        return {team.role: team.outcome(rounds) for team in teams}


class _Team:
    """The prepared processes of a contestant."""

    def __init__(self, contestant: Contestant, processes: list[Process]):
        self.name, self.role = contestant.name, contestant.role
        self.processes = processes
        answers = [process.answer() for process in processes]
        self.work = sum(work for work, _ in answers)
        self.facts = [facts for _, facts in answers]
        self.seconds: list[float] = []
        self.warm_up_rates: dict[str, float] = {}

    @property
    def best_rate(self) -> float:
        return self.work / min(self.seconds)

    def repeat(self) -> None:
        """All processes from one start; the time until the last one ends."""
        for process in self.processes:
            process.tell(REPEAT)
        times = [process.answer() for process in self.processes]
        first, last = min(t[0] for t in times), max(t[1] for t in times)
        self.seconds.append(last - first)

    def outcome(self, rounds: int) -> Outcome:
        for process in self.processes:
            process.tell(FINISH)
        facts = [
            {**before, **process.answer()}
            for before, process in zip(self.facts, self.processes, strict=True)
        ]
        seconds = tuple(self.seconds[-rounds:])
        return Outcome(self.name, self.work, seconds, self.warm_up_rates, tuple(facts))

    def end(self) -> None:
        for process in self.processes:
            process.end()


@contextmanager
def _prepared(contestant: Contestant) -> Iterator[_Team]:
    """The processes of a contestant, prepared side by side and ended in any case."""
    processes: list[Process] = []
    try:
        for member in contestant.members:
            processes.append(Process(contestant.name, serve, member))
        yield _Team(contestant, processes)
    finally:
        for process in processes:
            process.end()


def _round(
    teams: Sequence[_Team], draw: random.Random, title: str, say: Callable[[str], None]
) -> None:
    for team in draw.sample(teams, len(teams)):
        time.sleep(_PAUSE_S)
        team.repeat()
    say(f"{title}: " + ", ".join(f"{t.name} {t.seconds[-1]:.3g} s" for t in teams))


def _fastest_of_each_role(teams: Sequence[_Team]) -> list[_Team]:
    """End the other ones; the fastest takes down what all of its role did."""
    fastest = []
    for role in dict.fromkeys(team.role for team in teams):
        rivals = [team for team in teams if team.role == role]
        best = max(rivals, key=lambda team: team.best_rate)
        best.warm_up_rates = {team.name: team.best_rate for team in rivals}
        fastest.append(best)
        for team in rivals:
            if team is not best:
                team.end()
    return fastest
