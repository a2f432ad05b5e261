"""Waves of machines: how many fit the memory, and who is in which.

A fleet that does not fit is trained in waves, one after the other. All waves have
arrays of the same shapes, those of the largest machine, so one compiled program serves
all, and a machine's results do not depend on its wave.
"""

import contextlib
import ctypes
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gammavae_jax.config import Config, FeatureConfig
from gammavae_jax.data.archives import recording_bytes
from gammavae_jax.data.arrays import Capacity
from gammavae_jax.data.machines import MachineFiles
from gammavae_jax.errors import InputError
from gammavae_jax.files import write_text
from gammavae_jax.runs.fleet.survey import MachineSize
from gammavae_jax.training.step import init_state

PLAN = "fleet.json"
_FORMAT = 1
_FLOAT_BYTES = 4
_SHARE_OF_HOST = 0.5  # of what is available: others need memory too
_SHARE_OF_DEVICES = 0.8
_STATES_ON_HOST = 7  # in two epochs at once, read back, written, as a detector
_STATES_ON_DEVICE = 2  # a step has the state before and after it
# Beside the arrays themselves, what is read for the next wave and what was read for
# this one's scores.
_LOG_MELS_ON_HOST = 3
_LOG_MELS_ON_DEVICE = 1.3


class WavePlan(NamedTuple):
    """The waves of a fleet."""

    waves: tuple[tuple[str, ...], ...]  # machine types
    train: Capacity  # that the arrays of every wave have
    test: Capacity
    year: int | None  # whose metrics hold
    digest: str  # of the recordings, by names and lengths

    @property
    def wave_size(self) -> int:
        """Machine types in a wave; the last one may have fewer."""
        return len(self.waves[0])


def plan_waves(
    machines: Sequence[MachineSize], wave_size: int, year: int | None
) -> WavePlan:
    """The machines in their order, so many at a time."""
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
    """The folder of a wave, which is a run's."""
    return out / "waves" / f"{number:04d}"


def is_fleet(out: Path) -> bool:
    """Whether a folder is that of a fleet in waves."""
    return (out / PLAN).is_file()


def write_plan(out: Path, plan: WavePlan) -> None:
    """Write `fleet.json`, the mark of a fleet's folder."""
    about = {"format": _FORMAT, **plan._asdict()}
    write_text(out / PLAN, json.dumps(about, indent=1) + "\n")


def read_plan(out: Path) -> WavePlan:
    """What `write_plan` wrote.

    Raises:
        InputError: it is something else.
    """
    path = out / PLAN
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about.pop("format") != _FORMAT:
            raise ValueError
        return WavePlan(
            tuple(tuple(map(str, wave)) for wave in about["waves"]),
            Capacity(*map(int, about["train"])),
            Capacity(*map(int, about["test"])),
            about["year"],
            str(about["digest"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{str(path)!r} is no plan of a fleet that this version can read: say "
            "--overwrite to begin again"
        ) from error


def wave_size_that_fits(machines: Sequence[MachineSize], config: Config) -> int:
    """The most machines of a wave, by an estimate of what they need; at least one."""
    train, test = (
        _log_mel_bytes(reduce(Capacity.joined, rooms), config.features)
        for rooms in zip(*((size.train, size.test) for size in machines), strict=True)
    )
    n_units = max(size.n_units for size in machines)
    return max(1, int(_units_that_fit(config, train + test) // n_units))


def all_fit(machines: Iterable[Sequence[MachineFiles]], config: Config) -> bool:
    """Whether machines fit, by the sizes of their files alone.

    Each entry has the sections of a machine type. Where this says no, a survey tells.
    """
    sizes = [
        sum(_file_samples(file.path) for file in (*unit.train, *unit.test))
        for found in machines
        for unit in found
    ]
    frames = max(sizes) / config.features.hop_length
    largest = _FLOAT_BYTES * config.features.n_mels * frames
    return len(sizes) <= _units_that_fit(config, largest)


def _units_that_fit(config: Config, log_mel_bytes: float | int) -> float:
    """How many sections with so many bytes of log-mels there is memory for."""
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


def _log_mel_bytes(room: Capacity, config: FeatureConfig) -> int:
    return _FLOAT_BYTES * config.n_mels * room.frames * room.clips


def _file_samples(path: Path) -> int:
    """About how many samples of 16 bits a recording has; 0 of what is not there."""
    packed = 2 if path.suffix.lower() == ".flac" else 1
    return packed * recording_bytes(path) // 2


_MEMINFO = Path("/proc/meminfo")
_CONTAINERS = (  # what one may use, what it uses, and its files in memory by name
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def available_memory() -> int:
    """Bytes that this process can have without others being swapped out, about.

    Half of all memory where the system does not say.
    """
    found = [_of_system()]
    for folder, limit, usage, files in _CONTAINERS:
        try:
            used = int((folder / usage).read_text()) - _files_in(folder, files)
            found.append(int((folder / limit).read_text()) - used)
        except (OSError, ValueError):  # no container, or "max"
            continue
    return max(0, min(found))


def _files_in(folder: Path, name: str) -> int:
    """Bytes of files that are kept in memory only while nobody else wants it."""
    lines = (folder / "memory.stat").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.split()[0] == name)
    return int(value)


def device_memory(devices: Sequence[Any]) -> int | None:
    """Bytes of all devices together; None where they use the host's memory."""
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in of_device for of_device in stats):
        return None
    return sum(int(of_device["bytes_limit"]) for of_device in stats)


def _of_system() -> int:
    try:
        lines = _MEMINFO.read_text().splitlines()
        (kilobytes,) = (n.split()[1] for n in lines if n.startswith("MemAvailable:"))
        return 1024 * int(kilobytes)
    except (OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def give_back_freed() -> None:
    """Let the C library give freed memory back to the system, where it can.

    By itself glibc keeps what lies between blocks in use: of many large arrays that
    come and go, more and more.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another library
        ctypes.CDLL(None).malloc_trim(0)
