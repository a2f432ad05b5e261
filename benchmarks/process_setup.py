"""Sets up a contestant's process before large libraries are imported."""

import os

from gammavae_jax.process import (
    available_cores,
    give_cores_to_models,
    limit_blas_threads,
)


def as_the_command_line(n_models: int) -> None:
    """Set up like `experiments/run.py`; `n_models` is machines times seeds."""
    limit_blas_threads()
    give_cores_to_models(n_models)


def all_cores() -> None:
    """Keep each library's default number of threads."""


def one_thread() -> None:
    """Use a single thread, on any core."""
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = "1"


def thread_count() -> int:
    """Return the number of threads that a library should use after this setup."""
    return int(os.environ.get("OMP_NUM_THREADS", available_cores()))
