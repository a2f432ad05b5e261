"""Runs all models at once, in one compiled program on a mesh of devices."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
    for_devices,
    in_float32,
)
from gammavae_jax.process import deferred_signals

_SPECS: dict[Kind, PartitionSpec] = {
    "model": PartitionSpec("member", "machine"),
    "machine": PartitionSpec("machine"),
    "member": PartitionSpec("member"),
}
# The positions of the member axis and the machine axis; None if absent.
_AXES: dict[Kind, tuple[int | None, int | None]] = {
    "model": (0, 1),
    "machine": (None, 0),
    "member": (0, None),
}


@dataclass(frozen=True)
class MeshPlacement(Placement):
    """A placement on a mesh of devices with the axes `member` and `machine`.

    Each device computes its own models, either together (`vmap`) or one at a time
    (`map`). All devices have the same number of slots for models. Free slots are filled
    with zeros: a function finds no windows in such a slot and must do nothing there.

    If the mesh spans several processes, each process holds the models of its own
    devices, and all processes must call the same methods in the same order.
    """

    mesh: Mesh
    machine_slots: tuple[int | None, ...]  # the machine in each slot, None if free
    n_members: int
    batching: Batching = "vmap"

    def put(self, tree: Any, kind: Kind) -> Any:
        """Pad host arrays and copy them to the devices; return JAX arrays unchanged.

        Every process passes the whole arrays and copies the parts for its own devices.
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
        """Return the field `name` of a named tuple; its arrays stay on the devices."""
        return getattr(tree, name)

    @for_devices
    def get(self, tree: Any) -> Any:
        """Gather arrays on every host, without padding, ordered by machine."""

        def whole(leaf):
            return self._in_machine_order(
                np.asarray(process_allgather(leaf, tiled=True))
            )

        return jax.tree.map(whole, tree)

    def get_to_save(self, tree: Any) -> Any:
        """Gather arrays as `get` does, but in a cluster gather them on every device.

        Each process then writes a part of the arrays with Orbax. A device needs enough
        memory for all models.
        """
        if jax.process_count() == 1:
            return self.get(tree)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        gather = jax.jit(self._in_machine_order, out_shardings=everywhere)
        return jax.tree.map(gather, tree)

    @for_devices
    def wait(self, *trees: Any) -> None:
        """Wait until these arrays are computed; raise the first error, if any."""
        jax.block_until_ready(trees)

    def close(self) -> None:
        """Do nothing: a running compiled program cannot be cancelled."""

    def over_models(
        self, function: Callable, kinds: Sequence[Kind], donate: Sequence[int] = ()
    ) -> Program:
        """Return a compiled program that runs `function`; see the base class."""
        kinds, donate = tuple(kinds), tuple(donate)
        return _Sharded(_sharded(function, kinds, self.mesh, self.batching, donate))

    def _in_machine_order(self, leaf: Any) -> Any:
        used = [machine for machine in self.machine_slots if machine is not None]
        slots = [self.machine_slots.index(machine) for machine in sorted(used)]
        return leaf[: self.n_members][:, np.array(slots)]

    def _pad(self, leaf: np.ndarray, kind: Kind) -> np.ndarray:
        member_axis, machine_axis = _AXES[kind]
        if machine_axis is not None:
            slots = [slot or 0 for slot in self.machine_slots]
            leaf = np.take(leaf, slots, axis=machine_axis)
            free = [slot is None for slot in self.machine_slots]
            leaf[(slice(None),) * machine_axis + (np.array(free),)] = 0
        if member_axis is not None:
            missing = -self.n_members % self.mesh.shape["member"]
            zeros = np.zeros_like(leaf, shape=(missing, *leaf.shape[1:]))
            leaf = np.concatenate([leaf, zeros])
        return leaf


@functools.lru_cache(PROGRAMS_KEPT)
def _sharded(
    function: Callable,
    kinds: tuple[Kind, ...],
    mesh: Mesh,
    batching: Batching,
    donate: tuple[int, ...],
) -> Any:
    """Compile a function for a mesh; equal functions share one compiled program."""
    member_axes, machine_axes = zip(*(_AXES[kind] for kind in kinds), strict=True)
    if batching == "map":
        # Once the member axis is removed, the machine axis comes first.
        axes = [None if axis is None else 0 for axis in machine_axes]
        over_both = _in_turn(_in_turn(function, axes), member_axes)
    else:
        over_members = jax.vmap(function, member_axes)
        # Removing the machine axis first moves the member axis to the front.
        over_both = jax.vmap(over_members, machine_axes, 1)
    sharded = jax.shard_map(
        over_both,
        mesh=mesh,
        in_specs=tuple(_SPECS[kind] for kind in kinds),
        out_specs=_SPECS["model"],
        check_vma=False,
    )
    return jax.jit(in_float32(sharded), donate_argnums=donate)


def _in_turn(function: Callable, axes: Sequence[int | None]) -> Callable:
    """Map a function over axes (0 or None) as `jax.vmap` does, but sequentially."""

    def mapped(*arguments):
        def one(parts):
            part = iter(parts)
            return function(*(a if axis is None else next(part) for a, axis in pairs))

        pairs = list(zip(arguments, axes, strict=True))
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
