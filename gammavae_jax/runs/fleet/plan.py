"""Divides a fleet into waves of machines that fit in memory.

A fleet that does not fit in memory is trained in waves, one after the other. The arrays
of all waves have the shapes of the largest machine, so one compiled program serves all
waves, and a machine's results do not depend on its wave.
"""

import contextlib
import ctypes
import gc
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gammavae_jax.config import Config
from gammavae_jax.config_json import read_json
from gammavae_jax.data.arrays import Capacity
from gammavae_jax.data.audio.archives import recording_bytes
from gammavae_jax.data.machines import MachineFiles
from gammavae_jax.errors import InputError
from gammavae_jax.files import write_text
from gammavae_jax.runs.fleet.survey import MachineSize
from gammavae_jax.training.step import init_state

PLAN = "fleet.json"
_FORMAT = 1
_FLOAT_BYTES = 4
_SHARE_OF_HOST = 0.5  # of the available memory; other software needs some, too
_SHARE_OF_DEVICES = 0.8
# Copies of the training state in memory: for two epochs in flight, for reading and
# writing, and for the detector.
_STATES_ON_HOST = 7
_STATES_ON_DEVICE = 2  # the state before and after a step
# Copies of the log-mels in memory: the arrays, the next wave's recordings, and this
# wave's recordings for scoring.
_LOG_MELS_ON_HOST = 3
_LOG_MELS_ON_DEVICE = 1.3


class WavePlan(NamedTuple):
    """The division of a fleet into waves."""

    waves: tuple[tuple[str, ...], ...]  # machine types
    train: Capacity  # the size of every wave's arrays
    test: Capacity
    year: int | None  # the year whose metrics apply
    digest: str  # hash of the recordings' names and lengths

    @property
    def wave_size(self) -> int:
        """The number of machine types in a wave; the last wave may have fewer."""
        return len(self.waves[0])


def plan_waves(
    machines: Sequence[MachineSize], wave_size: int, year: int | None
) -> WavePlan:
    """Divide machines into waves of `wave_size`, keeping their order."""
    names = [size.machine for size in machines]
    digests = json.dumps([[size.machine, size.digest] for size in machines])
    return WavePlan(
        tuple(
            tuple(names[first : first + wave_size])
            for first in range(0, len(names), wave_size)
        ),
        reduce(Capacity.joined, (size.train for size in machines)),
        reduce(Capacity.joined, (size.test for size in machines)),
        year,
        hashlib.blake2b(digests.encode(), digest_size=20).hexdigest(),
    )


def wave_folder(out: Path, number: int) -> Path:
    """Return a wave's folder, which is a run folder."""
    return out / "waves" / f"{number:04d}"


def wave_folders(out: Path, plan: WavePlan) -> list[Path]:
    """Return the folders of all waves, in order."""
    return [wave_folder(out, number) for number in range(len(plan.waves))]


def is_fleet(out: Path) -> bool:
    """Return whether a folder holds a fleet."""
    return (out / PLAN).is_file()


def write_plan(out: Path, plan: WavePlan) -> None:
    """Write `fleet.json`, which marks a folder as a fleet."""
    about = {"format": _FORMAT, **plan._asdict()}
    write_text(out / PLAN, json.dumps(about, indent=1) + "\n")


def read_plan(out: Path) -> WavePlan:
    """Read the plan of a fleet from `fleet.json`.

    Raises:
        InputError: this version cannot read it.
    """
    path = out / PLAN
    try:
        about = read_json(path)
        if about.pop("format") != _FORMAT:
            raise InputError(
                f"{str(path)!r} is from another version of gammavae_jax: use that "
                "version, or choose another path for --out"
            )
        return WavePlan(
            tuple(tuple(map(str, wave)) for wave in about["waves"]),
            Capacity(*map(int, about["train"])),
            Capacity(*map(int, about["test"])),
            about["year"],
            str(about["digest"]),
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{str(path)!r} is not a fleet plan that this version can read: pass "
            "--overwrite to start again"
        ) from error


def require_same_plan(before: WavePlan, plan: WavePlan, out: Path) -> None:
    """Reject a plan if it does not match the old one.

    Both must have the same machines, recordings and metrics.
    """
    if before == plan:
        return
    if before == plan._replace(year=before.year):
        year = "omit --year" if before.year is None else f"use --year {before.year}"
        raise InputError(
            f"{str(out)!r} uses another year's metrics: {year}, or use --overwrite"
        )
    raise InputError(
        f"{str(out)!r} was made from different machines or recordings: pass the same "
        "--data-root and machines, or use --overwrite"
    )


def wave_size_that_fits(machines: Sequence[MachineSize], config: Config) -> int:
    """Estimate how many machines fit in memory as one wave; return at least 1."""
    train = reduce(Capacity.joined, (size.train for size in machines))
    test = reduce(Capacity.joined, (size.test for size in machines))
    n_frames = train.frames * train.clips + test.frames * test.clips
    log_mel_bytes = _FLOAT_BYTES * config.features.n_mels * n_frames
    n_units = max(size.n_units for size in machines)
    return max(1, int(_units_that_fit(config, log_mel_bytes) // n_units))


def all_fit(machines: Iterable[Sequence[MachineFiles]], config: Config) -> bool:
    """Return whether file sizes show that all machines fit in memory.

    If they do not, the recordings must be measured with `measure_fleet`. Each entry of
    `machines` holds the sections of one machine type.
    """
    sizes = [
        sum(_file_samples(file.path) for file in (*unit.train, *unit.test))
        for sections in machines
        for unit in sections
    ]
    frames = max(sizes) / config.features.hop_length
    largest = _FLOAT_BYTES * config.features.n_mels * frames
    return len(sizes) <= _units_that_fit(config, largest)


def _units_that_fit(config: Config, log_mel_bytes: float | int) -> float:
    """Estimate how many sections fit in memory.

    `log_mel_bytes` is the size of the log-mels of one section.
    """
    one = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
    leaves = jax.tree.leaves(one)
    state = config.n_members * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    host = _LOG_MELS_ON_HOST * log_mel_bytes + _STATES_ON_HOST * state
    fitting = _SHARE_OF_HOST * available_memory() / host
    of_devices = device_memory(jax.local_devices())
    if of_devices is None:
        return fitting
    device = _LOG_MELS_ON_DEVICE * log_mel_bytes + _STATES_ON_DEVICE * state
    return min(fitting, _SHARE_OF_DEVICES * of_devices / device)


def _file_samples(path: Path) -> int:
    """Estimate the number of 16-bit samples in a recording, or 0 if it is missing."""
    packed = 2 if path.suffix.lower() == ".flac" else 1
    return packed * recording_bytes(path) // 2


_MEMINFO = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Estimate how many bytes this process can allocate without swapping.

    If the system does not report it, half of all memory is treated as available.
    """
    available = [_system_memory()]
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit
        limit = int((_CONTAINER / "memory.max").read_text())
        used = int((_CONTAINER / "memory.current").read_text())
        # The system frees the memory of cached files when it is needed.
        cached = _number_in(_CONTAINER / "memory.stat", "inactive_file")
        available.append(limit - used + cached)
    return max(0, min(available))


def _number_in(path: Path, name: str) -> int:
    """Return the number after `name` in a system file."""
    lines = [line.split() for line in path.read_text().splitlines()]
    (value,) = (line[1] for line in lines if line[:1] == [name])
    return int(value)


def device_memory(devices: Sequence[Any]) -> int | None:
    """Return the devices' total memory in bytes, or None if it is the host's memory."""
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in of_device for of_device in stats):
        return None
    return sum(int(of_device["bytes_limit"]) for of_device in stats)


def _system_memory() -> int:
    try:
        return 1024 * _number_in(_MEMINFO, "MemAvailable:")
    except (OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def free_memory() -> None:
    """Free a wave's arrays and return their memory to the system if possible.

    glibc keeps freed memory that lies between blocks that are still in use. With large
    arrays, the memory that it keeps would grow from wave to wave.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
