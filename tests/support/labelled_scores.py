"""Random scores of labelled clips, for tests of metrics."""

import numpy as np


def four_strata(seed, n_each=25):
    """Return scores with ties, labels and domains: `n_each` clips of each kind."""
    rng = np.random.default_rng(seed)
    is_anomaly = np.repeat([False, True, False, True], n_each)
    is_target = np.repeat([False, False, True, True], n_each)
    scores = rng.normal(size=4 * n_each) + is_anomaly + 0.5 * is_target
    return scores.round(1), is_anomaly, is_target


def assert_close(left, right):
    """Check that both are equal, except for rounding."""
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)
