"""Runs a `gammavae` command in a new process, as in a terminal, and measures it."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import peak_memory
from benchmarks.stopwatch import REST, STAGES

STOPWATCH = Path(__file__).resolve().parent / "stopwatch.py"
SHOWN_STAGES = (
    "import", "load", "compile", "features", "links", "split", "training", "fits",
    "scores", "page", REST, "exit",
)  # fmt: skip
assert set(SHOWN_STAGES) == {*STAGES, REST, "exit"}
_ESCAPE_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Silence(NamedTuple):
    """The longest time during which a command printed nothing."""

    seconds: float
    after: str  # the last line printed before; "" at the start


class Timed(NamedTuple):
    """What a command used, from the start to the end of its process."""

    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    silence: Silence
    stages: Mapping[str, Mapping[str, float]]  # wall_s and cpu_s of each stage


def run_timed(
    arguments: Sequence[str | Path], variables: Mapping[str, str], folder: Path
) -> Timed:
    """Run `gammavae` with these arguments and measure its stages.

    If the command fails, print its output and exit.

    Args:
        arguments: the command and its options.
        variables: environment variables that are set in addition.
        folder: a folder for temporary files.
    """
    times = folder / "times.json"
    command = [sys.executable, str(STOPWATCH), str(times), *map(str, arguments)]
    start = time.monotonic()
    printed, end, usage = run_in_terminal(command, {**os.environ, **variables})
    record = json.loads(times.read_text(encoding="utf-8"))
    cpu_s = usage.ru_utime + usage.ru_stime
    stages = {name: dict(of_stage) for name, of_stage in record["stages"].items()}
    # The interpreter starts before the stopwatch does.
    stages["import"]["wall_s"] += record["start"]["wall"] - start
    stages["import"]["cpu_s"] += record["start"]["cpu"]
    stages["exit"] = {
        "wall_s": end - record["end"]["wall"],
        "cpu_s": max(cpu_s - record["end"]["cpu"], 0.0),
    }
    return Timed(
        end - start,
        cpu_s,
        peak_memory(usage),
        longest_silence(start, printed, end),
        {name: stages[name] for name in SHOWN_STAGES},
    )


def run_in_terminal(
    command: Sequence[str], environment: Mapping[str, str]
) -> tuple[list[tuple[float, str]], float, Any]:
    """Run a command in a pseudo-terminal, because only there it shows progress bars.

    If the command fails, print its output and exit.

    Returns:
        The pieces of its output, each with the time when it was read; the time when the
        process ended; and the resources that it used.
    """
    ours, theirs = pty.openpty()
    printed: list[tuple[float, str]] = []
    try:
        process = subprocess.Popen(
            command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
    finally:
        os.close(theirs)
    try:
        while text := _read(ours):
            printed.append((time.monotonic(), text))
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        os.close(ours)
    end = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        print("".join(text for _, text in printed), end="", file=sys.stderr)
        sys.exit(process.returncode if process.returncode > 0 else 1)
    return printed, end, usage


def longest_silence(
    start: float, printed: Sequence[tuple[float, str]], end: float
) -> Silence:
    """Return the longest time without output between the start and the end."""
    longest, last, line = Silence(0.0, ""), start, ""
    for at, text in (*printed, (end, "")):
        longest = max(longest, Silence(at - last, line), key=lambda each: each.seconds)
        lines = _ESCAPE_SEQUENCES.sub("", text).replace("\r", "\n").split("\n")
        line = next((each.strip() for each in reversed(lines) if each.strip()), line)
        last = at
    return longest


def _read(terminal: int) -> str:
    """Wait for output; return "" when the process has closed the terminal."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # Linux reports the end as an error
        return ""
