"""Defines the interface that runs a function on all models, spread over the devices.

A model belongs to one machine and one member. A member is a seed, or one fold of a
seed. `assignment.make_placement` chooses the implementation: `MeshPlacement` or
`CoreQueue`.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax

from gammavae_jax.log import waiting_for

# The kind of an array on the host determines its leading axes. "model" arrays have the
# axes `member machine`, "machine" arrays have `machine` (all members share the values),
# and "member" arrays have `member` (all machines share the values).
Kind = Literal["model", "machine", "member"]
Batching = Literal["vmap", "map"]

PROGRAMS_KEPT = 32  # the number of cached compiled programs; one run needs six

for_devices = waiting_for(
    "the devices",
    "the computation may be long, or a device may hang; to stop, press Ctrl-C twice",
)


class HashablePartial(NamedTuple):
    """A hashable `functools.partial` for positional arguments.

    Equal instances share one compiled program.
    """

    function: Callable
    settings: tuple[Any, ...]  # hashable

    def __call__(self, *arguments: Any) -> Any:
        """Call the function with the fixed arguments followed by `arguments`."""
        return self.function(*self.settings, *arguments)

    @property
    def __name__(self) -> str:
        return self.function.__name__


class Program(ABC):
    """A function of one model's arrays, compiled to run on all models."""

    @abstractmethod
    def compile(self, *arguments: Any) -> Callable:
        """Compile for arguments of these shapes.

        The function does not run, so donated arguments stay usable.
        """

    @abstractmethod
    def __call__(self, *arguments: Any) -> Any:
        """Compile the function and run it once; for repeated calls, use `compile`."""


class Placement(ABC):
    """An assignment of models to devices; use it in a `with` statement.

    `put` copies arrays to the devices, in a form that is private to the placement. A
    program takes and returns arrays in this form, and `get` copies them to the host.
    """

    batching: Batching  # whether a device computes its models together or one at a time

    @abstractmethod
    def put(self, tree: Any, kind: Kind) -> Any:
        """Copy host arrays to the devices; return arrays already there unchanged."""

    @abstractmethod
    def part(self, tree: Any, name: str) -> Any:
        """Return the field `name` of a named tuple; its arrays stay on the devices."""

    @abstractmethod
    def get(self, tree: Any) -> Any:
        """Wait for results; copy them to the host, with axes `member machine ...`."""

    def get_to_save(self, tree: Any) -> Any:
        """Get results as `get` does, but in a cluster leave them on the devices."""
        return self.get(tree)

    @abstractmethod
    def wait(self, *trees: Any) -> None:
        """Wait until these results are computed; raise the first error, if any."""

    @abstractmethod
    def close(self) -> None:
        """Cancel computations that have not started."""

    def __enter__(self) -> "Placement":
        """Return the placement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the placement, so that an interrupted process stops soon."""
        self.close()

    @abstractmethod
    def over_models(
        self, function: Callable, kinds: Sequence[Kind], donate: Sequence[int] = ()
    ) -> Program:
        """Return a compiled program that applies a one-model function to all models.

        Args:
            function: takes arrays without `member` and `machine` axes. Equal instances
                of `HashablePartial` are compiled only once for each combination of
                argument shapes, even by several placements of the same class.
            kinds: the kind of each argument.
            donate: the positions of arguments of kind "model" whose memory the results
                may reuse.
        """


@functools.lru_cache(PROGRAMS_KEPT)
def jitted(function: Callable, donate: tuple[int, ...]) -> Any:
    """Compile the function in float32; equal functions share one compiled program."""
    return jax.jit(in_float32(function), donate_argnums=donate)


def in_float32(function: Callable) -> Callable:
    """Wrap a function so that its matrix products use full float32 precision.

    Accelerators use a lower precision by default.
    """

    @functools.wraps(function)
    def wrapped(*arguments):
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return wrapped
