"""Runs contests, in which the sides of a comparison take turns at the same work.

A contestant is one process, or several that work in parallel. Each process is new, and
is set up before JAX, NumPy or PyTorch is imported. It prepares once, then repeats its
work on each request, while all the others wait. Work is counted in a unit that the
contestants share (windows or clips). Since rates are compared, one contestant may do
less work in a repetition than another.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from benchmarks.processes import FINISH, REPEAT, Member, Process, serve

# A pause between repetitions, because OpenMP threads that become idle first spin.
_PAUSE_S = 0.05


class Contestant(NamedTuple):
    """One or more processes that work in parallel.

    Of several contestants with the same `role`, such as two forms of a peer, only the
    one that was fastest in the warm-up takes part in the measured rounds.
    """

    name: str
    role: str
    members: tuple[Member, ...]


class Spread(NamedTuple):
    """The spread of measured numbers; `iqr` is the interquartile range."""

    median: float
    min: float
    max: float
    iqr: float


class Outcome(NamedTuple):
    """The result of a contestant in the measured rounds."""

    name: str
    work: float  # per repetition, all processes together
    seconds: tuple[float, ...]  # per round
    warm_up_rates: Mapping[str, float]  # best rate of each contestant in this role
    facts: tuple[Mapping[str, Any], ...]  # per process

    @property
    def rate(self) -> float:
        """Work per second in the median round."""
        return self.work / statistics.median(self.seconds)

    def ratios(self, other: "Outcome") -> Spread:
        """Return the spread, over rounds, of this rate divided by the other's."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return spread([(self.work / s) / (other.work / o) for s, o in pairs])


def spread(values: Sequence[float]) -> Spread:
    """Return median, extremes and interquartile range."""
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
    """Prepare the contestants one by one, then let them take turns.

    Args:
        contestants: the sides to compare.
        rounds: number of measured rounds; each has a new random order.
        warm_up: number of unmeasured rounds before them; at least one.
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
        messages = [process.receive() for process in processes]
        self.work = sum(work for work, _ in messages)
        self.facts = [facts for _, facts in messages]
        self.seconds: list[float] = []
        self.warm_up_rates: dict[str, float] = {}

    @property
    def best_rate(self) -> float:
        return self.work / min(self.seconds)

    def repeat(self) -> None:
        """Time all processes from the common start until the last one ends."""
        for process in self.processes:
            process.send(REPEAT)
        times = [process.receive() for process in self.processes]
        first, last = min(t[0] for t in times), max(t[1] for t in times)
        self.seconds.append(last - first)

    def outcome(self, rounds: int) -> Outcome:
        for process in self.processes:
            process.send(FINISH)
        facts = [
            {**before, **process.receive()}
            for before, process in zip(self.facts, self.processes, strict=True)
        ]
        seconds = tuple(self.seconds[-rounds:])
        return Outcome(self.name, self.work, seconds, self.warm_up_rates, tuple(facts))

    def end(self) -> None:
        for process in self.processes:
            process.end()


@contextmanager
def _prepared(contestant: Contestant) -> Iterator[_Team]:
    """Prepare a contestant's processes in parallel; end them after the block."""
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
    """Keep the fastest team of each role, with the warm-up rates of its rivals."""
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
