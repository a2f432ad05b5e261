"""Deal the models of all machines, seeds and folds to the available devices.

Functions are written for one model of one machine; a `Placement` runs them for all
models. Accelerators, and all devices of a cluster, form a mesh (`MeshPlacement`). On a
single CPU each core takes one model at a time from a queue (`CoreQueue`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from gammavae_jax.devices.cluster import is_joined
from gammavae_jax.devices.core_queue import CoreQueue
from gammavae_jax.devices.mesh import MeshPlacement
from gammavae_jax.devices.placement import Placement
from gammavae_jax.process import available_cores


def make_placement(
    windows_per_machine: Sequence[int],
    n_members: int,
    devices: Sequence[Any] | None = None,
    batching: Literal["auto", "vmap", "map"] = "auto",
) -> Placement:
    """Deal machines and members to the devices so that the busiest has least to do.

    Args:
        windows_per_machine: the work of each machine.
        n_members: models of each machine.
        devices: all of this process, or of the cluster it is part of, unless given.
        batching: "auto" is `map` on CPUs and `vmap` elsewhere.
    """
    if devices is None:
        devices = jax.devices() if is_joined() else jax.local_devices()
    devices = _by_turns(devices)
    n_processes = len({device.process_index for device in devices})
    on_cpu = devices[0].platform == "cpu"
    if batching == "auto":
        batching = "map" if on_cpu else "vmap"
    candidates = []
    for n_machine_shards in range(1, len(devices) + 1):
        n_member_shards = len(devices) // n_machine_shards
        if n_machine_shards * n_member_shards < n_processes:
            continue  # each has a part in a mesh, if only free slots
        shards, load = _deal(windows_per_machine, n_machine_shards)
        candidates.append(
            (load * -(-n_members // n_member_shards), n_machine_shards, shards)
        )
    _, n_machine_shards, shards = min(candidates, key=lambda c: c[:2])
    n_member_shards = min(
        len(devices) // n_machine_shards,
        max(n_members, -(-n_processes // n_machine_shards)),
    )
    grid = np.array(devices[: n_member_shards * n_machine_shards])
    grid = grid.reshape(n_member_shards, n_machine_shards)
    if batching == "vmap" or is_joined():
        width = max(len(shard) for shard in shards)
        slots = [[*shard, *[None] * (width - len(shard))] for shard in shards]
        flat = tuple(slot for shard in slots for slot in shard)
        mesh = Mesh(grid, ("member", "machine"))
        return MeshPlacement(mesh, flat, n_members, batching)

    # The longest first: the last ones to end are short.
    shard_of = {m: number for number, shard in enumerate(shards) for m in shard}
    longest_first = np.argsort(-np.asarray(windows_per_machine), kind="stable")
    device_of_model = {
        (member, int(machine)): grid[member % n_member_shards, shard_of[int(machine)]]
        for machine in longest_first
        for member in range(n_members)
    }
    n_threads = max(1, available_cores() // grid.size) if on_cpu else 1
    return CoreQueue(
        device_of_model,
        {device: ThreadPoolExecutor(n_threads, "runs") for device in grid.flat},
    )


def _by_turns(devices: Sequence[Any]) -> list[Any]:
    """Devices in turn, one of each process, so that the first few are of many."""
    seen: dict[int, int] = {}
    turns = []
    for device in devices:
        turns.append(seen.get(device.process_index, 0))
        seen[device.process_index] = turns[-1] + 1
    return [devices[i] for i in np.argsort(turns, kind="stable")]


def _deal(
    windows_per_machine: Sequence[int], n_shards: int
) -> tuple[list[list[int]], int]:
    """Machines of each shard, longest first to the idlest, and the top load."""
    shards: list[list[int]] = [[] for _ in range(n_shards)]
    loads = [0] * n_shards
    for machine in np.argsort(-np.asarray(windows_per_machine), kind="stable"):
        idlest = loads.index(min(loads))
        shards[idlest].append(int(machine))
        loads[idlest] += windows_per_machine[machine]
    return shards, max(loads)
