"""Reduces a profiler trace of a training epoch to a table of the slowest operations.

An operation's own time excludes operations inside it, such as those of a loop. The time
in which no operation ran is reported too: an accelerator then waited for the host.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData, ProfileOptions

from benchmarks.training import Training, configuration

# An operation belongs to the first kind that has a word in the operation's name.
KINDS: dict[str, tuple[str, ...]] = {
    "matrix products": ("dot", "gemm", "cublas", "cutlass", "matmul", "gemv"),
    "sort": ("sort",),
    "scatter, gather": ("scatter", "gather", "dynamic-update", "dynamic_update"),
    "random numbers": ("threefry", "rng", "philox"),
    "loops": ("while", "conditional"),
    "copies": ("copy", "memcpy", "memset", "transpose"),
    "fusions": ("fusion",),
}
REST = "rest"
_MOST = 10  # operations in the table


class Event(NamedTuple):
    """An operation that ran on a device, or in a thread of the CPU."""

    name: str
    start_ns: float
    duration_ns: float

    @property
    def end_ns(self) -> float:
        """When the operation ended."""
        return self.start_ns + self.duration_ns


def trace_epoch(
    model: str, machines: int, batch_size: int, clips: int, frames: int
) -> dict[str, Any]:
    """Train for one epoch as a warm-up, trace another one, and return its table."""
    config = configuration(model, 1, batch_size)
    training = Training(config, machines, clips, frames, "auto")
    training.run(1)
    table = trace_table(traced(lambda: training.run(1)))
    sizes = {"machines": machines, "batch_size": batch_size, "clips": clips}
    return {"model": model, **sizes, **table}


def traced(work: Callable[[], Any]) -> list[list[Event]]:
    """Run `work`, which must wait for its results; return each device's operations.

    Each list holds the operations in a stream of an accelerator, or in a thread of the
    CPU if there is no accelerator.
    """
    options = ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            work()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return _device_lines(ProfileData.from_file(str(path)))


def _device_lines(trace: Any) -> list[list[Event]]:
    planes = list(trace.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    on_device = [_events(line) for plane in devices for line in _streams(plane)]
    if any(on_device):
        return [line for line in on_device if line]
    on_host = [
        _events(line, only_operations=True) for plane in planes for line in plane.lines
    ]
    return [line for line in on_host if line]


def trace_table(lines: Sequence[Sequence[Event]]) -> dict[str, Any]:
    """Return the shares of kinds of operations, and the most expensive operations.

    Args:
        lines: for each stream or thread, its operations in any order; they may be
            nested, but do not overlap otherwise.

    Returns:
        The time from the first operation's start to the last one's end (`span_s`), the
        share of this time in which nothing ran (`idle_share`), and the shares of the
        operations' own time by kind and by operation, with the largest ones first.
    """
    events = [event for line in lines for event in line]
    own: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for line in lines:
        for event, own_ns in _own_times(line):
            own[event.name] += own_ns
            calls[event.name] += 1
    span = max(e.end_ns for e in events) - min(e.start_ns for e in events)
    total = sum(own.values())
    by_kind: dict[str, float] = defaultdict(float)
    for name, own_ns in own.items():
        by_kind[kind_of(name)] += own_ns / total
    costliest = sorted(own, key=lambda name: own[name], reverse=True)[:_MOST]
    return {
        "span_s": span / 1e9,
        "idle_share": 1.0 - _covered(events) / span,
        "events": len(events),
        "kinds": dict(sorted(by_kind.items(), key=lambda item: -item[1])),
        "operations": [
            {
                "name": name,
                "kind": kind_of(name),
                "calls": calls[name],
                "seconds": own[name] / 1e9,
                "share": own[name] / total,
            }
            for name in costliest
        ],
    }


def kind_of(name: str) -> str:
    """Return the kind of an operation or kernel, judging by its name."""
    lower = name.lower()
    for kind, words in KINDS.items():
        if any(word in lower for word in words):
            return kind
    return REST


def _streams(plane: Any) -> list[Any]:
    """Return a device's lines of operations; leave out lines of summaries."""
    lines = list(plane.lines)
    streams = [line for line in lines if line.name.startswith("Stream")]
    return streams or [line for line in lines if line.name == "XLA Ops"]


def _events(line: Any, only_operations: bool = False) -> list[Event]:
    found = []
    for event in line.events:
        stats = dict(event.stats)
        if "hlo_op" in stats or not only_operations:
            # Several kernels can belong to one operation of the program.
            name = str(stats.get("hlo_op", event.name))
            found.append(Event(name, event.start_ns, event.duration_ns))
    return found


def _own_times(line: Iterable[Event]) -> list[tuple[Event, float]]:
    """Return the events of a line, each with its time outside nested events."""
    inside: list[list[Any]] = []  # events that contain the current one
    finished: list[tuple[Event, float]] = []
    for event in sorted(line, key=lambda e: (e.start_ns, -e.duration_ns)):
        while inside and inside[-1][0].end_ns <= event.start_ns:
            finished.append(tuple(inside.pop()))
        if inside:
            inside[-1][1] -= event.duration_ns
        inside.append([event, event.duration_ns])
    return finished + [(event, own) for event, own in inside]


def _covered(events: Iterable[Event]) -> float:
    """Return the total time in which at least one event ran."""
    total, end = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: e.start_ns):
        total += max(event.end_ns - max(event.start_ns, end), 0.0)
        end = max(end, event.end_ns)
    return total
