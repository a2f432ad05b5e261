"""The cases in which training is timed on an accelerator.

This module does not import JAX, because processes read the cases before their setup.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class GridCase:
    """One case of the grid; the number of models is machines times seeds."""

    machines: int
    seeds: int
    batch_size: int
    precision: Precision


def grid_cases(
    sizes: Sequence[tuple[int, int]],
    batch_sizes: Sequence[int],
    precisions: Sequence[Precision],
    base: tuple[int, int],
) -> list[GridCase]:
    """Return all combinations; those that differ least from the base case come first.

    A measurement that ends early has then still varied each axis.

    Args:
        sizes: pairs of machines and seeds.
        batch_sizes: windows per batch; the base case has the first one.
        precisions: of the matrix products; the base case has the first one.
        base: the machines and seeds of the base case.
    """

    def differences(case: GridCase) -> int:
        return (
            ((case.machines, case.seeds) != base)
            + (case.batch_size != batch_sizes[0])
            + (case.precision != precisions[0])
        )

    cases = [
        GridCase(*size, batch_size, precision)
        for precision in precisions
        for batch_size in batch_sizes
        for size in sizes
    ]
    return sorted(cases, key=differences)
