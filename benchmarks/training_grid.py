"""Times epochs of training in one case after another, in one process.

Starting a process takes longer than measuring a case, so all cases of a model share a
process.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.contest import spread
from benchmarks.grid_cases import GridCase
from benchmarks.machine import device_peak_bytes
from benchmarks.training import Training, configuration


def measure(
    model: str,
    cases: Sequence[GridCase],
    clips: int,
    frames: int,
    rounds: int,
    warm_up: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Measure one case after another; return one record for each.

    A record without times has an `error` instead: one line that says why.

    Args:
        model: see `configuration`.
        cases: what to measure, in this order.
        clips: clips per machine.
        frames: frames per clip.
        rounds: measured epochs.
        warm_up: epochs before them.
        seconds: no case is started after this time.
    """
    end = time.monotonic() + seconds
    records = []
    for case in cases:
        record = {"model": model, **asdict(case), "models": case.machines * case.seeds}
        config = configuration(model, case.seeds, case.batch_size, case.precision)
        build = partial(Training, config, case.machines, clips, frames, "auto")
        if time.monotonic() > end:
            record["error"] = "the grid's time limit was reached"
        else:
            try:
                record |= _measured(build, rounds, warm_up)
            except RuntimeError as error:  # such as too little memory
                record["error"] = str(error).partition("\n")[0]
            gc.collect()  # the next case needs this one's memory
        records.append(record)
    return records


def _measured(
    build: Callable[[], Training], rounds: int, warm_up: int
) -> dict[str, Any]:
    peak_before = device_peak_bytes()
    training = build()
    times = []
    for _ in range(warm_up + rounds):
        start = time.monotonic()
        training.run(1)
        times.append(time.monotonic() - start)
    training.require_finite()
    seconds = spread(times[warm_up:])
    peak = device_peak_bytes()
    # The device reports the peak of the whole process, which may be an earlier case's.
    is_own_peak = peak is not None and (peak_before is None or peak > peak_before)
    return {
        "windows_per_s": training.windows_per_epoch / seconds.median,
        "windows_per_epoch": training.windows_per_epoch,
        "seconds": seconds._asdict(),
        **training.facts,
        "device_peak_bytes": peak if is_own_peak else None,
    }
