"""What every layout offers: functions of one run, a machine's model, for all.

`parallel.make_placement` chooses between the two there are.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax

# A member is a seed, or a seed's fold: every machine has a model for each. An array
# says something of each run, of each machine for all members, or of each member for
# all machines. On the host it leads with `member machine`, `machine` or `member`.
Kind = Literal["model", "machine", "member"]
Batching = Literal["vmap", "map"]

PROGRAMS_KEPT = 32  # of one run there are six


class HashablePartial(NamedTuple):
    """A function with its first arguments, equal to another of the same ones.

    So a program that was made of it once is found again: waves of machines share it.
    """

    function: Callable
    settings: tuple[Any, ...]  # hashable

    def __call__(self, *arguments: Any) -> Any:
        """Call it with the arguments that are left."""
        return self.function(*self.settings, *arguments)

    @property
    def __name__(self) -> str:
        return self.function.__name__


class Program(ABC):
    """A function of one machine and member, made one of all of them."""

    @abstractmethod
    def compile(self, *arguments: Any) -> Callable:
        """Compile for arguments such as these; they are not used up."""

    @abstractmethod
    def __call__(self, *arguments: Any) -> Any:
        """Compile and run; to call it again and again, compile it first."""


class Placement(ABC):
    """Which device works on which runs, and how; to be used in a `with` statement.

    Arguments and results of programs are on the devices, in a form of the layout's
    own: they are made by `put`, passed from program to program, and read by `get`.
    """

    batching: Batching  # a device's runs at once, or one by one

    @abstractmethod
    def put(self, tree: Any, kind: Kind) -> Any:
        """Host arrays of a kind, placed on the devices; what is there stays."""

    @abstractmethod
    def part(self, tree: Any, name: str) -> Any:
        """The field `name` of a placed named tuple, without copying."""

    @abstractmethod
    def get(self, tree: Any) -> Any:
        """Results back on the host, `member machine ...`, once they are there."""

    def get_to_save(self, tree: Any) -> Any:
        """As `get`, but what several processes share may stay with them, as JAX's."""
        return self.get(tree)

    @abstractmethod
    def wait(self, *trees: Any) -> None:
        """Return when these results are there; if one failed, fail."""

    @abstractmethod
    def close(self) -> None:
        """Give up what has not been computed yet."""

    def __enter__(self) -> "Placement":
        """The layout itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it: an interrupted program should not go on computing."""
        self.close()

    @abstractmethod
    def over_models(
        self, function: Callable, kinds: Sequence[Kind], donate: Sequence[int] = ()
    ) -> Program:
        """`function` of one machine and member, for all of them.

        Args:
            function: of arrays without a `member` or a `machine` axis. A
                `HashablePartial` is traced and compiled once for arguments of the same
                shapes, in every placement of the same kind.
            kinds: of its arguments.
            donate: the arguments, of kind "model", whose memory the results may take.
        """


@functools.lru_cache(PROGRAMS_KEPT)
def jitted(function: Callable, donate: tuple[int, ...]) -> Any:
    """`jax.jit` with float32 products; the same again of an equal function."""
    return jax.jit(in_float32(function), donate_argnums=donate)


def in_float32(function: Callable) -> Callable:
    """`function` with float32 products, unless one names another precision.

    Accelerators would take less by themselves.
    """

    @functools.wraps(function)
    def wrapped(*arguments):
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return wrapped
