"""Measures the rate of a large matrix product, as a reference for this computer.

The product is in float32, with each library's default precision.
"""

# pyright: reportMissingImports=false

import importlib.util

from benchmarks.contest import Contestant
from benchmarks.processes import Call, Member, Prepared

ROLES = {"jax": "matmul_jax", "torch": "matmul_torch"}
_SHAPE = (4096, 1024, 1024)
_N_PRODUCTS = 10
_FLOPS = 2.0 * _SHAPE[0] * _SHAPE[1] * _SHAPE[2] * _N_PRODUCTS


def matmul_contestants() -> list[Contestant]:
    """Return JAX and, if installed, PyTorch as contestants; their work is in FLOPs."""
    setup = Call("benchmarks.process_setup:all_cores", {})
    return [
        Contestant(
            role,
            role,
            (Member(setup, Call(f"benchmarks.matmul:prepare_{library}", {})),),
        )
        for library, role in ROLES.items()
        if library == "jax" or has_torch()
    ]


def has_torch() -> bool:
    """Return whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def prepare_jax() -> Prepared:
    import jax

    n_rows, n_inner, n_columns = _SHAPE
    left = jax.random.normal(jax.random.key(0), (n_rows, n_inner))
    right = jax.random.normal(jax.random.key(1), (n_inner, n_columns))
    matmul = jax.jit(lambda a, b: a @ b).lower(left, right).compile()

    def repeat() -> None:
        jax.block_until_ready([matmul(left, right) for _ in range(_N_PRODUCTS)])

    return Prepared(repeat, _FLOPS, {})


def prepare_torch() -> Prepared:
    import torch

    from benchmarks.peers.device import best_device, wait_for

    device = best_device()
    n_rows, n_inner, n_columns = _SHAPE
    left = torch.randn(n_rows, n_inner, device=device)
    right = torch.randn(n_inner, n_columns, device=device)

    def repeat() -> None:
        for _ in range(_N_PRODUCTS):
            torch.matmul(left, right)
        wait_for(device)

    return Prepared(repeat, _FLOPS, {})
