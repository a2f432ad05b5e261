"""Assigns the models of all machines, seeds and folds to devices."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from gammavae_jax.devices.cluster import is_joined
from gammavae_jax.devices.core_queue import CoreQueue
from gammavae_jax.devices.local import local_devices
from gammavae_jax.devices.mesh import MeshPlacement
from gammavae_jax.devices.placement import Placement
from gammavae_jax.process import available_cores


def make_placement(
    windows_per_machine: Sequence[int],
    n_members: int,
    devices: Sequence[Any] | None = None,
    batching: Literal["auto", "vmap", "map"] = "auto",
) -> Placement:
    """Assign models to devices so as to minimise the work of the busiest device.

    Return a `MeshPlacement` if `batching` is "vmap" or the process has joined a
    cluster, and a `CoreQueue` otherwise.

    Args:
        windows_per_machine: each machine's number of windows, as a measure of its work.
        n_members: the number of models per machine.
        devices: the devices to use; default: all devices of the cluster, or this
            process's devices if it has not joined a cluster.
        batching: whether a device computes its models together ("vmap") or one at a
            time ("map"); "auto" means "map" on CPUs and "vmap" on other devices.
    """
    if devices is None:
        devices = jax.devices() if is_joined() else local_devices()
    devices = _alternate_processes(devices)
    if batching == "auto":
        batching = "map" if devices[0].platform == "cpu" else "vmap"
    n_processes = len({device.process_index for device in devices})
    shards, n_member_shards = _choose_shards(
        windows_per_machine, n_members, len(devices), n_processes
    )
    grid = np.array(devices[: n_member_shards * len(shards)])
    grid = grid.reshape(n_member_shards, len(shards))
    if batching == "vmap" or is_joined():
        width = max(len(shard) for shard in shards)
        slots = [[*shard, *[None] * (width - len(shard))] for shard in shards]
        flat = tuple(slot for shard in slots for slot in shard)
        mesh = Mesh(grid, ("member", "machine"))
        return MeshPlacement(mesh, flat, n_members, batching)
    return _make_queue(windows_per_machine, n_members, grid, shards)


def _make_queue(
    windows_per_machine: Sequence[int],
    n_members: int,
    grid: np.ndarray,
    shards: list[list[int]],
) -> CoreQueue:
    """Make a `CoreQueue`, largest machines first, with one thread per CPU core."""
    shard_of = {m: number for number, shard in enumerate(shards) for m in shard}
    device_of_model = {
        (member, machine): grid[member % len(grid), shard_of[machine]]
        for machine in _longest_first(windows_per_machine)
        for member in range(n_members)
    }
    on_cpu = grid[0, 0].platform == "cpu"
    n_threads = max(1, available_cores() // grid.size) if on_cpu else 1
    threads = {d: ThreadPoolExecutor(n_threads, "models") for d in grid.flat}
    return CoreQueue(device_of_model, threads, n_threads)


def _alternate_processes(devices: Sequence[Any]) -> list[Any]:
    """Order devices so that the first ones belong to different processes."""
    seen: dict[int, int] = {}
    turns = []
    for device in devices:
        turns.append(seen.get(device.process_index, 0))
        seen[device.process_index] = turns[-1] + 1
    return [devices[i] for i in np.argsort(turns, kind="stable")]


def _choose_shards(
    windows_per_machine: Sequence[int], n_members: int, n_devices: int, n_processes: int
) -> tuple[list[list[int]], int]:
    """Choose the machines of each machine shard, and the number of member shards.

    At least one device of every process is used, even if no models are left for it.
    """
    candidates = []
    for n_machine_shards in range(1, n_devices + 1):
        n_member_shards = n_devices // n_machine_shards
        if n_machine_shards * n_member_shards >= n_processes:
            shards, load = _deal(windows_per_machine, n_machine_shards)
            candidates.append((load * -(-n_members // n_member_shards), shards))
    _, shards = min(candidates, key=lambda c: (c[0], len(c[1])))
    needed = max(n_members, -(-n_processes // len(shards)))
    return shards, min(n_devices // len(shards), needed)


def _deal(
    windows_per_machine: Sequence[int], n_shards: int
) -> tuple[list[list[int]], int]:
    """Assign each machine, largest first, to the shard with the least work so far.

    Return the machines of each shard, and the work of the busiest shard.
    """
    shards: list[list[int]] = [[] for _ in range(n_shards)]
    loads = [0] * n_shards
    for machine in _longest_first(windows_per_machine):
        idlest = loads.index(min(loads))
        shards[idlest].append(machine)
        loads[idlest] += windows_per_machine[machine]
    return shards, max(loads)


def _longest_first(windows_per_machine: Sequence[int]) -> list[int]:
    """Return the machines' indices in order of decreasing work."""
    return np.argsort(-np.asarray(windows_per_machine), kind="stable").tolist()
