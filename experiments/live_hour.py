"""Compare the alarms of `gammavae watch`, `gammavae serve` and Python.

For each machine, test clips of the source domain are chained to an hour of audio with a
fault from minute 30 to 50. It forms six recordings of ten minutes. The script fails if
any score, p-value or alarm differs in a digit.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.machines import Recordings, chosen, command, fitted
from gammavae_jax.anomaly_detector import AnomalyDetector
from gammavae_jax.cli.help import MARKERS, RULES
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.data.audio.files import read_recording
from gammavae_jax.data.machines import MachineFiles
from gammavae_jax.errors import InputError
from gammavae_jax.process import limit_blas_threads
from gammavae_jax.scoring.alarm_policy import AlarmPolicy, AlarmState

HOUR = ("normal", 30), ("anomaly", 20), ("normal", 10)  # minutes
N_RECORDINGS = 6

Entries = list[list[Any]]  # for each recording: score, p-value, alarm and its events


@dataclass(frozen=True)
class LiveHour(Recordings):
    """Score an hour of audio in three ways and compare the results."""

    rates: Annotated[tuple[float, ...], tyro.conf.arg(metavar="R ...")] = (0.2, 1, 5)
    """Requested numbers of false alarms per day."""


def write_hour(files: MachineFiles, folder: Path) -> list[Path]:
    """Write an hour of audio as recordings of ten minutes and return their paths."""
    rng, parts, sample_rate = np.random.default_rng(2), [], 0
    for label, minutes in HOUR:
        read = list(map(read_recording, chosen(files, "test", "source", label)))
        sample_rate = read[0].sample_rate
        missing = round(60 * minutes * sample_rate)
        while missing:
            clip = read[rng.integers(len(read))].waveform[:missing]
            parts.append(clip)
            missing -= len(clip)
    recordings, paths = np.split(np.concatenate(parts), N_RECORDINGS), []
    for number, samples in enumerate(recordings):
        paths.append(folder / f"{60 // N_RECORDINGS * number:02}.wav")
        soundfile.write(paths[-1], samples, sample_rate, "PCM_16")
        os.utime(paths[-1], (number, number))  # a watch scores the oldest first
    return paths


def in_python(
    detector: AnomalyDetector, paths: list[Path], policy: AlarmPolicy
) -> Entries:
    """Return the result of each recording, computed in this process."""
    state, entries = AlarmState(), []
    for verdict in detector.score_recordings(paths):
        named = verdict._replace(name=Path(verdict.name).name)
        state, events = policy.follow(state, named)
        alarm = state.alarm and state.alarm.entry()
        found = [event.entry() for event in events]
        entries.append([named.score, named.p_value, alarm, found])
    return entries


def by_watch(path: Path, folder: Path, rate: float) -> Entries:
    """Return the result of each recording in a folder, as printed by a watch."""
    state = folder.with_name(f"state-{rate:g}.jsonl")
    options = ["--once", "--settle", "0.1", "--json", "-", "--state", state]
    given = command("watch", folder, "--detector", path, *rate_option(rate), *options)
    ended = subprocess.run(**given, check=False, capture_output=True)
    if ended.returncode:
        raise RuntimeError(f"gammavae watch failed: {ended.stderr}")
    events = map(json.loads, ended.stdout.splitlines())
    return [result_of(event) for event in events if event["event"] == "recording"]


def by_service(path: Path, recordings: list[Path], rate: float) -> Entries:
    """Return the answer of a service to each recording."""
    with service(path, rate) as url:
        return [result_of(posted(url, recording)) for recording in recordings]


@contextmanager
def service(path: Path, rate: float) -> Iterator[str]:
    """Run `gammavae serve` during a `with` block and yield its URL.

    Raises:
        RuntimeError: the service does not start; it prints the reason.
    """
    limits = ["--max-megabytes", 200, "--max-seconds", 3600]
    given = command(
        "serve", "--detector", path, *rate_option(rate), "--port", 0, *limits
    )
    with subprocess.Popen(**given, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            lines = (line.split("serving at ") for line in process.stdout)
            found = next((line[1].split()[0] for line in lines if len(line) > 1), None)
            if found is None:
                raise RuntimeError("gammavae serve did not start")
            yield found
        finally:
            process.terminate()


def rate_option(rate: float) -> list[str]:
    """Return the option for a number of false alarms per day."""
    return ["--false-alarms-per-day", f"{rate:g}"]


def posted(url: str, recording: Path) -> dict[str, Any]:
    """Send a recording to a service and return its answer."""
    query = urllib.parse.urlencode({"name": recording.name})
    request = urllib.request.Request(f"{url}score?{query}", recording.read_bytes())
    request.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def result_of(answer: dict[str, Any]) -> list[Any]:
    """Return the part of an answer that is compared."""
    return [answer[key] for key in ("score", "p_value", "alarm", "alarm_events")]


def compare(
    detector: AnomalyDetector, files: MachineFiles, rates: Sequence[float]
) -> Iterator[str]:
    """Yield a line for each rate: when alarms are raised and end.

    Raises:
        RuntimeError: the results differ.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path, folder = (Path(temporary) / name for name in ("saved.detector", "hour"))
        folder.mkdir()
        detector.save(path)
        recordings = write_hour(files, folder)
        for rate in map(float, rates):
            try:
                policy = detector.alarm_policy(rate)
            except InputError as error:
                yield f"{files.machine}, {rate:g} per day: refused: {error}"
                continue
            expected = in_python(detector, recordings, policy)
            watched = by_watch(path, folder, rate)
            served = by_service(path, recordings, rate)
            for name, found in (("watch", watched), ("serve", served)):
                if found != expected:
                    problem = f"{name} and Python differ for {files.machine}"
                    raise RuntimeError(f"{problem}: {found}, not {expected}")
            events = [event for *_, events in expected for event in events]
            alarms = "; ".join(map(described, events)) or "no alarm"
            yield f"{files.machine}, {rate:g} per day: {alarms}"


def described(event: dict[str, Any]) -> str:
    """Describe when an alarm is raised, or when it ends."""
    kind = "raised" if event["end"] is None else "ended"
    at = event["end"] or event["raised"]
    minute = int(Path(at["recording"]).stem) + at["seconds"] / 60
    return f"{kind} at minute {minute:.0f}"


def main() -> None:
    """Fit a detector to each machine, compare the results and print the alarms."""
    limit_blas_threads()
    options = tyro.cli(LiveHour, config=MARKERS, registry=RULES)
    with readable_errors():
        for files in options.find():
            for line in compare(fitted(files), files, options.rates):
                print(line, flush=True)


if __name__ == "__main__":
    main()
