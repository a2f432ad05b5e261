"""Every machine and every seed in one program: from one to `[seed machine]`.

Functions are written for one machine and one seed. `Layout.over_runs` spreads them
over a mesh of devices with the axes `seed` and `machine`; within a device the runs
are batched (`vmap`, for an accelerator) or follow each other (`lax.map`, for a CPU
core). Each argument of such a function is of one kind:

- `"run"`: its arrays lead with `seed machine`;
- `"machine"`: its arrays lead with `machine` and serve all seeds;
- `"seed"`: its arrays lead with `seed` and serve all machines.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Kind = Literal["run", "machine", "seed"]
Batching = Literal["vmap", "map"]
Tree = TypeVar("Tree")

_SPECS: dict[Kind, PartitionSpec] = {
    "run": PartitionSpec("seed", "machine"),
    "machine": PartitionSpec("machine"),
    "seed": PartitionSpec("seed"),
}


class Axes(NamedTuple):
    """Where an argument of a kind has its seed and its machine axis, if it has."""

    seed: int | None
    machine: int | None


_AXES: dict[Kind, Axes] = {
    "run": Axes(0, 1),
    "machine": Axes(None, 0),
    "seed": Axes(0, None),
}


@dataclass(frozen=True)
class Layout:
    """Which device works on which runs.

    Machines are dealt to devices so that the windows are even. Free slots are filled
    with zeros: a function finds no windows there, and must have nothing to do.
    """

    mesh: Mesh
    machine_slots: tuple[int | None, ...]  # the machine in each slot, None if free
    n_seeds: int
    batching: Batching

    def over_runs(
        self, function: Callable, kinds: Sequence[Kind], donate: Sequence[int] = ()
    ) -> Callable:
        """`function` of one machine and seed, for all of them, compiled.

        Products that name no precision are float32, where accelerators would take
        less by themselves.
        """
        inner = self._batched(function, [_AXES[k].seed for k in kinds], 0)
        # Peeling the machine axis first moves the seed axis to the front.
        both = self._batched(inner, [_AXES[k].machine for k in kinds], 1)
        sharded = jax.shard_map(
            both,
            mesh=self.mesh,
            in_specs=tuple(_SPECS[kind] for kind in kinds),
            out_specs=_SPECS["run"],
            check_vma=False,
        )

        def in_float32(*args):
            with jax.default_matmul_precision("highest"):
                return sharded(*args)

        return jax.jit(in_float32, donate_argnums=tuple(donate))

    def put(self, tree: Tree, kind: Kind) -> Tree:
        """Host arrays of a kind, padded and placed on the devices.

        JAX arrays have been placed before, and stay as they are.
        """
        sharding = NamedSharding(self.mesh, _SPECS[kind])

        def place(leaf):
            if isinstance(leaf, jax.Array):
                return leaf
            return jax.device_put(self._pad(np.asarray(leaf), kind), sharding)

        return jax.tree.map(place, tree)

    def get(self, tree: Tree) -> Tree:
        """Arrays of runs back on the host, without padding, in the first order."""
        slots = [self.machine_slots.index(m) for m in range(self.n_machines)]
        return jax.tree.map(
            lambda leaf: np.asarray(leaf)[: self.n_seeds][:, slots], tree
        )

    @property
    def n_machines(self) -> int:
        """Machines without the free slots."""
        return sum(machine is not None for machine in self.machine_slots)

    def _pad(self, leaf: np.ndarray, kind: Kind) -> np.ndarray:
        axes = _AXES[kind]
        if axes.machine is not None:
            slots = [0 if slot is None else slot for slot in self.machine_slots]
            leaf = np.take(leaf, slots, axis=axes.machine)
            free = [slot is None for slot in self.machine_slots]
            leaf[(slice(None),) * axes.machine + (np.array(free),)] = 0
        if axes.seed is not None:
            missing = -self.n_seeds % self.mesh.shape["seed"]
            leaf = np.concatenate(
                [leaf, np.zeros_like(leaf, shape=(missing, *leaf.shape[1:]))]
            )
        return leaf

    def _batched(
        self, function: Callable, axes: Sequence[int | None], out_axis: int
    ) -> Callable:
        if self.batching == "vmap":
            return jax.vmap(function, in_axes=tuple(axes), out_axes=out_axis)
        return functools.partial(_mapped, function, tuple(axes), out_axis)


def make_layout(
    windows_per_machine: Sequence[int],
    n_seeds: int,
    devices: Sequence[Any] | None = None,
    batching: Literal["auto", "vmap", "map"] = "auto",
) -> Layout:
    """Deal machines and seeds to the devices so that the busiest has least to do.

    Args:
        windows_per_machine: the work of each machine.
        n_seeds: models of each machine.
        devices: all local ones unless given.
        batching: "auto" is `map` on CPUs and `vmap` elsewhere.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    if batching == "auto":
        batching = "map" if devices[0].platform == "cpu" else "vmap"
    candidates = []
    for n_machine_shards in range(1, len(devices) + 1):
        n_seed_shards = len(devices) // n_machine_shards
        slots, load = _deal(windows_per_machine, n_machine_shards)
        candidates.append(
            (load * -(-n_seeds // n_seed_shards), n_machine_shards, slots)
        )
    _, n_machine_shards, slots = min(candidates, key=lambda c: c[:2])
    n_seed_shards = min(len(devices) // n_machine_shards, n_seeds)
    grid = np.array(devices[: n_seed_shards * n_machine_shards])
    mesh = Mesh(grid.reshape(n_seed_shards, n_machine_shards), ("seed", "machine"))
    return Layout(mesh, slots, n_seeds, batching)


def _deal(
    windows_per_machine: Sequence[int], n_shards: int
) -> tuple[tuple[int | None, ...], int]:
    """Slots of each shard, longest machine first to the idlest, and the top load."""
    shards: list[list[int]] = [[] for _ in range(n_shards)]
    loads = [0] * n_shards
    for machine in np.argsort(-np.asarray(windows_per_machine), kind="stable"):
        idlest = loads.index(min(loads))
        shards[idlest].append(int(machine))
        loads[idlest] += windows_per_machine[machine]
    width = max(len(shard) for shard in shards)
    slots = [[*shard, *[None] * (width - len(shard))] for shard in shards]
    return tuple(slot for shard in slots for slot in shard), max(loads)


def _mapped(
    function: Callable, axes: tuple[int | None, ...], out_axis: int, *args: Any
) -> Any:
    """What `vmap` computes, one after another."""
    moved = [
        arg
        if axis is None
        else jax.tree.map(lambda a, x=axis: jnp.moveaxis(a, x, 0), arg)
        for arg, axis in zip(args, axes, strict=True)
    ]

    def one(mapped):
        rest = iter(mapped)
        return function(
            *(
                m if axis is None else next(rest)
                for m, axis in zip(moved, axes, strict=True)
            )
        )

    mapped = [m for m, axis in zip(moved, axes, strict=True) if axis is not None]
    out = jax.lax.map(one, mapped)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, out_axis), out)
