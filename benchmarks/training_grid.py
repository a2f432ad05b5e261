"""Times epochs for a grid of model counts, batch sizes and precisions in one process.

Starting a process takes longer than measuring a case, so all cases of a model share one.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks.contest import spread
from benchmarks.machine import device_peak_bytes, flops_by_formula
from benchmarks.training import Batching, Precision, Training, configuration


@dataclass(frozen=True)
class GridCase:
    """The axes of the grid; the number of models is machines times seeds."""

    machines: int
    seeds: int
    batch_size: int
    precision: Precision


def grid_cases(
    sizes: Sequence[tuple[int, int]],
    batch_sizes: Sequence[int],
    precisions: Sequence[Precision],
    base: tuple[int, int],
) -> list[GridCase]:
    """Return all combinations, those that differ least from the base case first.

    So a measurement that ends early has still varied each axis.

    Args:
        sizes: pairs of machines and seeds.
        batch_sizes: windows per batch; the first one is that of the base case.
        precisions: of the matrix products; the first one is that of the base case.
        base: the machines and seeds of the base case.
    """

    def differences(case: GridCase) -> int:
        return (
            ((case.machines, case.seeds) != base)
            + (case.batch_size != batch_sizes[0])
            + (case.precision != precisions[0])
        )

    cases = [
        GridCase(*size, batch_size, precision)
        for precision in precisions
        for batch_size in batch_sizes
        for size in sizes
    ]
    return sorted(cases, key=differences)


def measure(
    model: str,
    cases: Sequence[GridCase],
    clips: int,
    frames: int,
    rounds: int,
    warm_up: int,
    seconds: float,
    batching: Batching = "vmap",
) -> list[dict[str, Any]]:
    """Measure one case after another; return one record for each.

    Args:
        model: see `configuration`.
        cases: what to measure, in this order.
        clips: clips per machine.
        frames: frames per clip.
        rounds: measured epochs.
        warm_up: epochs before them.
        seconds: no case is started after this time. Its record then has no times.
        batching: of models within a device.
    """
    end = time.monotonic() + seconds
    records = []
    for case in cases:
        record = {"model": model, **asdict(case), "models": case.machines * case.seeds}
        if time.monotonic() < end:
            config = configuration(model, case.seeds, case.batch_size, case.precision)
            build = partial(Training, config, case.machines, clips, frames, batching)
            record |= _measured(build, rounds, warm_up)
            record["flops_per_window"] = flops_by_formula(config)
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
    record = {
        "windows_per_s": training.windows_per_epoch / seconds.median,
        "windows_per_epoch": training.windows_per_epoch,
        "seconds": seconds._asdict(),
        **training.facts,
        "device_peak_bytes": peak if is_own_peak else None,
    }
    del training
    gc.collect()  # the next case needs this one's memory
    return record
