"""Fits and scores batches of Gaussians repeatedly; a program that tests start.

Its arguments are the number of repetitions and the number of other processes that
compete for the cores.
"""

import multiprocessing
import sys
from typing import Any

import jax
import numpy as np

from gammavae_jax.config import ScoringConfig
from gammavae_jax.scoring import residuals


def spin() -> None:
    while True:
        pass


def scores_of(rows: Any) -> Any:
    """Return one clip's scores, from fits to its own rows and to other rows."""
    scatter = residuals.empty_scatter(rows.shape[1])
    fits = [
        residuals.fit_gaussian(
            residuals.add_batch(scatter, part, jax.numpy.ones(len(part))),
            5,
            ScoringConfig(),
        )
        for part in (rows, 2.0 * rows[::-1])
    ]
    windows = rows.reshape(-1, 5 * rows.shape[1])
    weight = jax.numpy.ones(len(windows))
    return residuals.mahalanobis_framewise(windows, weight, *fits)


def main() -> None:
    n_times, n_competing = map(int, sys.argv[1:])
    busy = [
        multiprocessing.Process(target=spin, daemon=True) for _ in range(n_competing)
    ]
    for process in busy:
        process.start()
    rows = np.random.default_rng(0).standard_normal((16, 640, 128)).astype(np.float32)
    scores = jax.jit(jax.vmap(scores_of))
    for _ in range(n_times):
        jax.block_until_ready(scores(rows))
    for process in busy:
        process.kill()


if __name__ == "__main__":
    main()
