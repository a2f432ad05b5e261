"""Runs side by side: one program over a mesh of devices, batched within each."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gammavae_jax.layout import PROGRAMS_KEPT, Kind, Layout, Program, in_float32

_SPECS: dict[Kind, PartitionSpec] = {
    "run": PartitionSpec("member", "machine"),
    "machine": PartitionSpec("machine"),
    "member": PartitionSpec("member"),
}


class _Axes(NamedTuple):
    """Where an argument of a kind has its member and its machine axis, if it has."""

    member: int | None
    machine: int | None


_AXES: dict[Kind, _Axes] = {
    "run": _Axes(0, 1),
    "machine": _Axes(None, 0),
    "member": _Axes(0, None),
}


@dataclass(frozen=True)
class MeshLayout(Layout):
    """A mesh with the axes `member` and `machine`; a device batches its runs (`vmap`).

    Free slots are filled with zeros: a function finds no windows there, and must have
    nothing to do.
    """

    mesh: Mesh
    machine_slots: tuple[int | None, ...]  # the machine in each slot, None if free
    n_members: int
    batching: Literal["vmap"] = "vmap"

    def put(self, tree: Any, kind: Kind) -> Any:
        """Host arrays of a kind, padded and placed; JAX's stay as they are."""
        sharding = NamedSharding(self.mesh, _SPECS[kind])

        def place(leaf):
            if isinstance(leaf, jax.Array):
                return leaf
            return jax.device_put(self._pad(np.asarray(leaf), kind), sharding)

        return jax.tree.map(place, tree)

    def get(self, tree: Any) -> Any:
        """Arrays of runs back on the host, without padding, in the first order."""
        used = [machine for machine in self.machine_slots if machine is not None]
        slots = [self.machine_slots.index(machine) for machine in sorted(used)]
        return jax.tree.map(
            lambda leaf: np.asarray(leaf)[: self.n_members][:, slots], tree
        )

    def wait(self, *trees: Any) -> None:
        """Return when these arrays are there."""
        jax.block_until_ready(trees)

    def close(self) -> None:
        """Nothing is to be given up: a program that has begun will end."""

    def over_runs(
        self, function: Callable, kinds: Sequence[Kind], donate: Sequence[int] = ()
    ) -> Program:
        """`function` batched over the runs of a device, on every device."""
        return _Sharded(_sharded(function, tuple(kinds), self.mesh, tuple(donate)))

    def _pad(self, leaf: np.ndarray, kind: Kind) -> np.ndarray:
        axes = _AXES[kind]
        if axes.machine is not None:
            slots = [0 if slot is None else slot for slot in self.machine_slots]
            leaf = np.take(leaf, slots, axis=axes.machine)
            free = [slot is None for slot in self.machine_slots]
            leaf[(slice(None),) * axes.machine + (np.array(free),)] = 0
        if axes.member is not None:
            missing = -self.n_members % self.mesh.shape["member"]
            leaf = np.concatenate(
                [leaf, np.zeros_like(leaf, shape=(missing, *leaf.shape[1:]))]
            )
        return leaf


@functools.lru_cache(PROGRAMS_KEPT)
def _sharded(
    function: Callable, kinds: tuple[Kind, ...], mesh: Mesh, donate: tuple[int, ...]
) -> Any:
    """A program over a mesh; the same again of an equal function."""
    over_members = jax.vmap(function, [_AXES[k].member for k in kinds])
    # Peeling the machine axis first moves the member axis to the front.
    over_both = jax.vmap(over_members, [_AXES[k].machine for k in kinds], 1)
    sharded = jax.shard_map(
        over_both,
        mesh=mesh,
        in_specs=tuple(_SPECS[kind] for kind in kinds),
        out_specs=_SPECS["run"],
        check_vma=False,
    )
    return jax.jit(in_float32(sharded), donate_argnums=donate)


@dataclass(frozen=True)
class _Sharded(Program):
    jitted: Any

    def compile(self, *arguments: Any) -> Callable:
        return self.jitted.lower(*arguments).compile()

    def __call__(self, *arguments: Any) -> Any:
        return self.jitted(*arguments)
