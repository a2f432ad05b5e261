"""How much memory there is: on this machine, and on its devices."""

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
