"""Runs a `gammavae` command in this process and measures each of its stages.

    python benchmarks/stopwatch.py TIMES.json fit recordings --out fan.detector

The package is not changed for this: functions that begin a stage are replaced by
functions that also time it, as soon as their modules have been imported.
"""

import builtins
import functools
import json
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

# If several stages run at once, the time belongs to the first of them in this list.
STAGES = (
    "import", "compile", "features", "links", "split", "scores", "fits", "page",
    "training", "load",
)  # fmt: skip
REST = "rest"  # the name of the time that belongs to no stage
TIMED_BY_LOG = {
    "features_s": "load",
    "compile_s": "compile",
    "train_s": "training",
    "fit_s": "fits",
    "score_s": "scores",
}
# Functions as seen by the modules that call them.
FUNCTIONS = (
    ("gammavae_jax.data.synthetic.dataset", "synthetic_root", "load"),
    ("gammavae_jax.runs.detector_folder", "read_detector", "load"),
    ("gammavae_jax.runs.estimator", "load_all", "load"),
    ("gammavae_jax.data.clips", "spectrogram", "features"),
    ("gammavae_jax.data.recordings.clips", "spectrogram", "features"),
    ("gammavae_jax.training.split", "link_clips", "links"),
    ("gammavae_jax.training.examples", "split_windows", "split"),
    ("gammavae_jax.scoring.clip_scorer", "score_of_clips", "scores"),
    ("gammavae_jax.report.recordings_page", "write_recordings_report", "page"),
    ("gammavae_jax.runs.detector_folder", "write_detector", "page"),
    ("gammavae_jax.runs.run", "publish", "page"),
)
_COMPILATION = "/jax/core/compile/"  # the beginning of the names of JAX's events
_SHORTEST_IMPORT_S = 0.001  # shorter ones, mostly of known modules, are not counted


class Moment(NamedTuple):
    """Seconds on the system's monotonic clock, and CPU seconds of this process."""

    wall: float
    cpu: float


def now() -> Moment:
    """Return the present moment."""
    return Moment(time.monotonic(), time.process_time())


class Stopwatch:
    """Records the times at which stages begin and end."""

    def __init__(self):
        self.moments = [now()]
        self.spans: list[tuple[str, float, float]] = []
        self._depth, self._n_modules = 0, 0
        self._functions, self._log, self._events = list(FUNCTIONS), False, False

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the block as a part of a stage."""
        start = now()
        try:
            yield
        finally:
            self._record(stage, start, now())

    def watch(self) -> None:
        """Measure imports from now on, and stages once their modules are imported."""
        imported, main = builtins.__import__, threading.get_ident()

        @functools.wraps(imported)
        def timed_import(*arguments: Any, **options: Any) -> Any:
            if self._depth or threading.get_ident() != main:
                return imported(*arguments, **options)
            start, self._depth = now(), 1
            try:
                return imported(*arguments, **options)
            finally:
                self._depth = 0
                if (end := now()).wall - start.wall >= _SHORTEST_IMPORT_S:
                    self._record("import", start, end)
                if len(sys.modules) != self._n_modules:
                    self._n_modules = len(sys.modules)
                    self._replace_functions()

        builtins.__import__ = timed_import

    def stages(self, end: Moment) -> dict[str, dict[str, float]]:
        """Return the wall and CPU seconds of each stage, from the start to `end`.

        Stages do not overlap; see `STAGES`. CPU seconds between two recorded moments
        are distributed evenly.
        """
        moments = sorted([*self.moments, end])
        times = [moment.wall for moment in moments]

        def cpu(wall: float) -> float:
            place = min(max(bisect_left(times, wall), 1), len(times) - 1)
            (wall0, cpu0), (wall1, cpu1) = moments[place - 1], moments[place]
            part = (wall - wall0) / max(wall1 - wall0, 1e-9)
            return cpu0 + min(max(part, 0.0), 1.0) * (cpu1 - cpu0)

        seconds = {name: {"wall_s": 0.0, "cpu_s": 0.0} for name in (*STAGES, REST)}
        for stage, start, stop in exclusive(self.spans, times[0], end.wall):
            seconds[stage]["wall_s"] += stop - start
            seconds[stage]["cpu_s"] += cpu(stop) - cpu(start)
        return seconds

    def _record(self, stage: str, start: Moment, end: Moment) -> None:
        self.moments += [start, end]
        self.spans.append((stage, start.wall, end.wall))

    def _replace_functions(self) -> None:
        """Replace the functions in imported modules and listen to JAX's events."""
        for entry in [e for e in self._functions if _has(e[0], e[1])]:
            module, name, stage = entry
            original = getattr(sys.modules[module], name)
            setattr(sys.modules[module], name, self._timing(stage, original))
            self._functions.remove(entry)
        if not self._log and _has("gammavae_jax.log", "Log"):
            self._log = True
            self._replace_timed(sys.modules["gammavae_jax.log"].Log)
        if not self._events and _has("jax", "monitoring"):
            self._events = True
            monitoring = sys.modules["jax"].monitoring
            monitoring.register_event_duration_secs_listener(self._on_event)

    def _timing(self, stage: str, original: Callable) -> Callable:
        @functools.wraps(original)
        def timing(*arguments: Any, **options: Any) -> Any:
            with self.timed(stage):
                return original(*arguments, **options)

        return timing

    def _replace_timed(self, log: Any) -> None:
        original = log.timed

        @contextmanager
        def timed(this: Any, stage: str) -> Iterator[None]:
            with self.timed(TIMED_BY_LOG[stage]), original(this, stage):
                yield

        log.timed = timed

    def _on_event(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith(_COMPILATION):
            end = now()
            self.moments.append(end)
            self.spans.append(("compile", end.wall - duration_secs, end.wall))


def exclusive(
    spans: Sequence[tuple[str, float, float]], start: float, end: float
) -> Iterator[tuple[str, float, float]]:
    """Split the time from start to end into intervals, each of a single stage.

    Yields tuples of a stage and the start and end of an interval.
    """
    edges = [(max(begin, start), 1, stage) for stage, begin, _ in spans]
    edges += [(min(stop, end), -1, stage) for stage, _, stop in spans]
    active: Counter[str] = Counter()
    last = start
    for at, change, stage in sorted(edges):
        if at > last:
            yield next((name for name in STAGES if active[name] > 0), REST), last, at
            last = at
        active[stage] += change
    if end > last:
        yield REST, last, end


def _has(module: str, name: str) -> bool:
    return hasattr(sys.modules.get(module), name)


def main() -> int:
    """Run the command and write its times, even if it fails."""
    times, *arguments = sys.argv[1:]
    # A script that is run by its path can import only from its own folder.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    watch = Stopwatch()
    watch.watch()
    try:
        from gammavae_jax.cli.main import main as command

        return command(arguments)
    finally:
        end = now()
        record = {
            "start": watch.moments[0]._asdict(),
            "end": end._asdict(),
            "stages": watch.stages(end),
        }
        Path(times).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
