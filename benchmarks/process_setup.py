"""How the process of a contestant is set up, before anything large is imported."""

import os

from gammavae_jax.process import (
    available_cores,
    give_cores_to_models,
    limit_blas_threads,
)


def as_the_command_line(n_models: int) -> None:
    """What `experiments/run.py` does for so many runs, machines times seeds."""
    limit_blas_threads()
    give_cores_to_models(n_models)


def all_cores() -> None:
    """As many threads as the libraries start by themselves."""


def one_thread() -> None:
    """A single thread, wherever the system puts it."""
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = "1"


def thread_count() -> int:
    """The threads that a library should use in a process that was so set up."""
    return int(os.environ.get("OMP_NUM_THREADS", available_cores()))
