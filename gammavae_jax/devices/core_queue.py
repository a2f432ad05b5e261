"""Runs in turn: one program of a single run, taken up by whichever core is free.

Small matrices gain little from a second core, so a CPU's cores work on a run each.
Calls are taken in the order in which they were made, and a core that is through with
one takes the next, of the same epoch or of the one after: an odd machine goes now to
this core, now to that one.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gammavae_jax.devices.placement import Kind, Placement, Program, jitted
from gammavae_jax.process import deferred_signals

Run = tuple[int, int]  # the numbers of its member and machine


@dataclass(frozen=True)
class PerRun:
    """A tree of arrays for each run, or the promise of one; on the run's device."""

    of: Mapping[Run, Any]


@dataclass(frozen=True)
class CoreQueue(Placement):
    """A queue of calls for each device, and the threads that take them from it."""

    devices: Mapping[Run, Any]  # in the order of the queue
    threads: Mapping[Any, ThreadPoolExecutor]  # of each device
    batching: Literal["map"] = "map"

    def put(self, tree: Any, kind: Kind) -> PerRun:
        """Host arrays of a kind, cut and placed; runs of a device share what is equal.

        What has been placed before stays as it is.
        """
        if isinstance(tree, PerRun):
            return tree
        placed = {}

        def part(run: Run) -> Any:
            index = {"model": run, "machine": run[1:], "member": run[:1]}[kind]
            at = index, self.devices[run]
            if at not in placed:
                cut = jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)
                placed[at] = jax.device_put(cut, self.devices[run])
            return placed[at]

        return PerRun({run: part(run) for run in self.devices})

    def part(self, tree: PerRun, name: str) -> PerRun:
        """The field of each run's named tuple."""
        return PerRun({r: getattr(_result(of), name) for r, of in tree.of.items()})

    def get(self, tree: PerRun) -> Any:
        """Results of all runs on the host, stacked as `member machine ...`."""
        runs = sorted(self.devices)
        n_members = 1 + runs[-1][0]

        def stack(*leaves):
            stacked = np.stack(leaves)
            return stacked.reshape(n_members, -1, *stacked.shape[1:])

        return jax.tree.map(stack, *(_result(tree.of[run]) for run in runs))

    def wait(self, *trees: PerRun) -> None:
        """Return when these results are there."""
        for tree in trees:
            for promised in tree.of.values():
                _result(promised)

    def close(self) -> None:
        """Drop the calls in the queues, and wait for those that have begun."""
        for threads in self.threads.values():
            threads.shutdown(cancel_futures=True)

    def over_models(
        self, function: Callable, kinds: Sequence[Kind], donate: Sequence[int] = ()
    ) -> Program:
        """`function` as it is, called for each run."""
        del kinds  # a run's arguments are its own already
        return _Queued(self, jitted(function, tuple(donate)))


@dataclass(frozen=True)
class _Queued(Program):
    placement: CoreQueue
    jitted: Any

    def compile(self, *arguments: PerRun) -> Callable[..., Any]:
        compiled, n_parts = {}, None
        for run, device in self.placement.devices.items():
            if device not in compiled:
                of_run = [_result(argument.of[run]) for argument in arguments]
                with deferred_signals():
                    lowered = self.jitted.lower(*of_run)
                    compiled[device] = lowered.compile()
                is_tuple = type(lowered.out_info) is tuple
                n_parts = len(lowered.out_info) if is_tuple else None

        def call(*arguments: PerRun) -> Any:
            futures = {
                run: self.placement.threads[device].submit(
                    _work, compiled[device], [a.of[run] for a in arguments]
                )
                for run, device in self.placement.devices.items()
            }
            if n_parts is None:
                return PerRun(futures)
            return tuple(
                PerRun({run: _Part(future, i) for run, future in futures.items()})
                for i in range(n_parts)
            )

        return call

    def __call__(self, *arguments: PerRun) -> Any:
        return self.compile(*arguments)(*arguments)


class _Part(NamedTuple):
    """One of the results that a call will return."""

    whole: Future
    index: int


def _work(compiled: Callable, arguments: Sequence[Any]) -> Any:
    """One call of a thread; what it waits for was queued before it."""
    return jax.block_until_ready(compiled(*(_result(a) for a in arguments)))


def _result(promised: Any) -> Any:
    if isinstance(promised, _Part):
        return promised.whole.result()[promised.index]
    return promised.result() if isinstance(promised, Future) else promised
