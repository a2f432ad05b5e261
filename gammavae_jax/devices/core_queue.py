"""Runs one model per core: each free core takes the next model from a queue.

Multiplying small matrices gains little from a second core, so each CPU core works on
its own model. Calls wait in a queue, in the order in which they were made. A core that
finishes a call takes the next one, which may already belong to the next epoch. A model
may therefore move to another core from epoch to epoch.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gammavae_jax.devices.placement import (
    Kind,
    Placement,
    Program,
    for_devices,
    jitted,
)
from gammavae_jax.process import deferred_signals

Model = tuple[int, int]  # the indices of its member and its machine


@dataclass(frozen=True)
class PerModel:
    """Each model's arrays on its device, as a tree or as a future of a tree."""

    trees: Mapping[Model, Any]


@dataclass(frozen=True)
class CoreQueue(Placement):
    """A placement that queues the calls for each device and runs them in threads."""

    devices: Mapping[Model, Any]  # in the order of the queue
    threads: dict[Any, ThreadPoolExecutor]  # by device; threads start when needed
    n_threads: int  # per device
    batching: Literal["map"] = "map"

    def put(self, tree: Any, kind: Kind) -> PerModel:
        """Split host arrays by model; copy each part to a device at most once."""
        if isinstance(tree, PerModel):
            return tree
        axes = {"model": slice(2), "machine": slice(1, 2), "member": slice(1)}[kind]

        @functools.cache
        def part(index: tuple[int, ...], device: Any) -> Any:
            cut = jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)
            return jax.device_put(cut, device)

        return PerModel({m: part(m[axes], d) for m, d in self.devices.items()})

    def part(self, tree: PerModel, name: str) -> PerModel:
        """Return one field of each model's named tuple."""
        return PerModel({m: getattr(_result(t), name) for m, t in tree.trees.items()})

    @for_devices
    def get(self, tree: PerModel) -> Any:
        """Wait for results; stack them on the host, with axes `member machine ...`."""
        n_members = 1 + max(self.devices)[0]

        def stack(*leaves):
            return np.stack(leaves).reshape(n_members, -1, *leaves[0].shape)

        in_order = sorted(self.devices)
        return jax.tree.map(stack, *(_result(tree.trees[model]) for model in in_order))

    @for_devices
    def wait(self, *trees: PerModel) -> None:
        """Wait until these results are computed; raise the first error, if any."""
        for tree in trees:
            for future in tree.trees.values():
                _result(future)

    @for_devices
    def close(self) -> None:
        """Cancel queued calls and wait for calls that have started.

        Later calls start new threads.
        """
        for device, threads in list(self.threads.items()):
            self.threads[device] = ThreadPoolExecutor(self.n_threads, "models")
            threads.shutdown(cancel_futures=True)

    def over_models(
        self, function: Callable, kinds: Sequence[Kind], donate: Sequence[int] = ()
    ) -> Program:
        """Return a compiled program that runs `function`; see the base class."""
        del kinds  # `put` has already split the arguments
        return _Queued(self, jitted(function, tuple(donate)))


@dataclass(frozen=True)
class _Queued(Program):
    placement: CoreQueue
    jitted: Any

    def compile(self, *arguments: PerModel) -> Callable[..., Any]:
        compiled, n_parts = {}, None
        for model, device in self.placement.devices.items():
            if device not in compiled:
                trees = [_result(argument.trees[model]) for argument in arguments]
                with deferred_signals():
                    lowered = self.jitted.lower(*trees)
                    compiled[device] = lowered.compile()
                is_tuple = type(lowered.out_info) is tuple
                n_parts = len(lowered.out_info) if is_tuple else None

        def call(*arguments: PerModel) -> Any:
            futures = {
                model: self.placement.threads[device].submit(
                    _work, compiled[device], [a.trees[model] for a in arguments]
                )
                for model, device in self.placement.devices.items()
            }
            if n_parts is None:
                return PerModel(futures)
            return tuple(
                PerModel({model: _Part(future, i) for model, future in futures.items()})
                for i in range(n_parts)
            )

        return call

    def __call__(self, *arguments: PerModel) -> Any:
        return self.compile(*arguments)(*arguments)


class _Part(NamedTuple):
    """One element of the tuple that a queued call will return."""

    whole: Future
    index: int


def _work(compiled: Callable, arguments: Sequence[Any]) -> Any:
    """Run one call in a thread once the results that the call needs are available."""
    return jax.block_until_ready(compiled(*(_result(a) for a in arguments)))


def _result(tree: Any) -> Any:
    """Wait until a tree of arrays is computed and return it."""
    if isinstance(tree, _Part):
        return tree.whole.result()[tree.index]
    return tree.result() if isinstance(tree, Future) else tree
