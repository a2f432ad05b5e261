"""Runs side by side: one program over a mesh of devices, those of all processes."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gammavae_jax.devices.placement import (
    PROGRAMS_KEPT,
    Batching,
    Kind,
    Placement,
    Program,
    in_float32,
)
from gammavae_jax.process import deferred_signals

_SPECS: dict[Kind, PartitionSpec] = {
    "model": PartitionSpec("member", "machine"),
    "machine": PartitionSpec("machine"),
    "member": PartitionSpec("member"),
}


class _Axes(NamedTuple):
    """Where an argument of a kind has its member and its machine axis, if it has."""

    member: int | None
    machine: int | None


_AXES: dict[Kind, _Axes] = {
    "model": _Axes(0, 1),
    "machine": _Axes(None, 0),
    "member": _Axes(0, None),
}


@dataclass(frozen=True)
class MeshPlacement(Placement):
    """A mesh with the axes `member` and `machine`, each device with runs of its own.

    A device has them at once (`vmap`) or one by one (`map`). Free slots are filled with
    zeros: a function finds no windows there, and must have nothing to do.

    Where the mesh spans several processes, each holds the runs of its own devices, and
    all must call the same methods in the same order.
    """

    mesh: Mesh
    machine_slots: tuple[int | None, ...]  # the machine in each slot, None if free
    n_members: int
    batching: Batching = "vmap"

    def put(self, tree: Any, kind: Kind) -> Any:
        """Host arrays of a kind, padded and placed; JAX's stay as they are.

        Every process has the whole arrays, and places what is for its own devices.
        """
        sharding = NamedSharding(self.mesh, _SPECS[kind])

        def place(leaf):
            if isinstance(leaf, jax.Array):
                return leaf
            padded = self._pad(np.asarray(leaf), kind)
            return jax.make_array_from_callback(
                padded.shape, sharding, padded.__getitem__
            )

        return jax.tree.map(place, tree)

    def part(self, tree: Any, name: str) -> Any:
        """The field of the placed named tuple."""
        return getattr(tree, name)

    def get(self, tree: Any) -> Any:
        """Arrays of runs back on every host, without padding, in the first order."""

        def whole(leaf):
            return self._in_first_order(np.asarray(process_allgather(leaf, tiled=True)))

        return jax.tree.map(whole, tree)

    def get_to_save(self, tree: Any) -> Any:
        """The same; of several processes each has all of it on its devices, to share.

        Orbax then lets each write a part. A device needs room for the runs of all.
        """
        if jax.process_count() == 1:
            return self.get(tree)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        gather = jax.jit(self._in_first_order, out_shardings=everywhere)
        return jax.tree.map(gather, tree)

    def wait(self, *trees: Any) -> None:
        """Return when these arrays are there."""
        jax.block_until_ready(trees)

    def close(self) -> None:
        """Nothing is to be given up: a program that has begun will end."""

    def over_models(
        self, function: Callable, kinds: Sequence[Kind], donate: Sequence[int] = ()
    ) -> Program:
        """`function` over the runs of a device, on every device."""
        return _Sharded(
            _sharded(function, tuple(kinds), self.mesh, self.batching, tuple(donate))
        )

    def _in_first_order(self, leaf: Any) -> Any:
        used = [machine for machine in self.machine_slots if machine is not None]
        slots = [self.machine_slots.index(machine) for machine in sorted(used)]
        return leaf[: self.n_members][:, np.array(slots)]

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
    function: Callable,
    kinds: tuple[Kind, ...],
    mesh: Mesh,
    batching: Batching,
    donate: tuple[int, ...],
) -> Any:
    """A program over a mesh; the same again of an equal function."""
    member_axes = [_AXES[k].member for k in kinds]
    if batching == "map":
        # Without its member axis, an array leads with the machines.
        axes = [None if _AXES[k].machine is None else 0 for k in kinds]
        over_both = _one_by_one(_one_by_one(function, axes), member_axes)
    else:
        over_members = jax.vmap(function, member_axes)
        # Peeling the machine axis first moves the member axis to the front.
        over_both = jax.vmap(over_members, [_AXES[k].machine for k in kinds], 1)
    sharded = jax.shard_map(
        over_both,
        mesh=mesh,
        in_specs=tuple(_SPECS[kind] for kind in kinds),
        out_specs=_SPECS["model"],
        check_vma=False,
    )
    return jax.jit(in_float32(sharded), donate_argnums=donate)


def _one_by_one(function: Callable, axes: Sequence[int | None]) -> Callable:
    """As `jax.vmap(function, axes)`, for axes 0 or None, but one after the other."""

    def mapped(*arguments):
        def one(parts):
            given = iter(parts)
            return function(
                *(
                    argument if axis is None else next(given)
                    for argument, axis in zip(arguments, axes, strict=True)
                )
            )

        pairs = zip(arguments, axes, strict=True)
        return jax.lax.map(one, [a for a, axis in pairs if axis is not None])

    return mapped


@dataclass(frozen=True)
class _Sharded(Program):
    jitted: Any

    def compile(self, *arguments: Any) -> Callable:
        with deferred_signals():
            return self.jitted.lower(*arguments).compile()

    def __call__(self, *arguments: Any) -> Any:
        with deferred_signals():
            return self.jitted(*arguments)
