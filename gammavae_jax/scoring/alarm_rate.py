"""Computes how often a healthy machine raises alarms, and how soon a fault raises one.

An alarm is raised when at least `k` of `n` segments count. A segment counts if its
p-value is at most `rank / (W + 1)`, where `W` is the number of independent held-out
recordings. In other words, fewer than `rank` of these score at least as high. If new
segments and held-out recordings are exchangeable, the share of new segments that count
has the distribution Beta(rank, W + 1 - rank), whatever the distribution of the scores
(Vovk 2012). The number of segments that count, out of `n`, is then beta-binomial. This
accounts for the uncertainty of the threshold.

Neighbouring segments resemble each other. The model is a Gaussian copula with one
factor: the normal scores (the Gaussian quantiles of the scores' ranks) are equally
correlated within a run of `n` segments. The correlation is estimated from the
held-out recordings.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse.linalg
import scipy.stats
from jaxtyping import Float
from scipy.special import betainc, ndtr, ndtri

_N_NODES = 48  # quadrature nodes for the share of segments that count
_FACTOR = np.linspace(-7.5, 7.5, 51)  # the common factor, in standard deviations
_TAIL = 1e-12  # the probability of each tail that the integral leaves out
_STANDARD_ERRORS = 1.0  # added to an estimated correlation
_MOST = 0.95  # the upper limit of a correlation


def chance_of_alarm(
    rank: int, n_recordings: float, correlation: float, k: int, n: int
) -> float:
    """Return the probability that at least `k` of `n` healthy segments count.

    Without correlation, it is the tail of a beta-binomial distribution.

    Args:
        rank: a segment counts if its p-value is at most `rank / (n_recordings + 1)`.
        n_recordings: the number of independent held-out recordings.
        correlation: the correlation of two segments' normal scores, in [0, 1).
        k: the number of segments that must count.
        n: the number of consecutive segments that are considered.
    """
    law = rank, n_recordings + 1 - rank
    ends = scipy.stats.beta.ppf([_TAIL, 1 - _TAIL], *law)
    low, high = ndtri(np.clip(ends, 1e-300, 1 - 1e-16))
    nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
    z = low + (nodes + 1) / 2 * (high - low)
    weights = weights * np.exp(scipy.stats.beta.logpdf(ndtr(z), *law) - z**2 / 2)
    chances = chance_given_share(ndtr(z), correlation, k, n)
    return float(weights @ chances / weights.sum())


def chance_given_share(
    shares: Float[np.ndarray, "_"], correlation: float, k: int, n: int
) -> Float[np.ndarray, "_"]:
    """Return, for each share, the probability that at least `k` of `n` segments count.

    A share is the probability that a single segment counts. For the other arguments,
    see `chance_of_alarm`.
    """
    if correlation == 0:
        return betainc(k, n - k + 1, shares)
    common = ndtri(shares)[:, None] + np.sqrt(correlation) * _FACTOR
    chances = betainc(k, n - k + 1, ndtr(common / np.sqrt(1 - correlation)))
    weights = np.exp(-(_FACTOR**2) / 2)
    return chances @ (weights / weights.sum())


def cautious_correlation(
    sequences: Sequence[Float[np.ndarray, "_"]], n_recordings: float, n: int
) -> float:
    """Return the estimated correlation of two segments, plus one standard error.

    The estimate averages over all pairs of normal scores in each run of `n` segments.
    The standard error is added because too low a correlation would predict too few
    false alarms.

    Args:
        sequences: the scores of held-out segments, one array per sequence.
        n_recordings: the number of independent held-out recordings.
        n: the number of consecutive segments that are considered, or all segments of a
            shorter sequence.
    """
    longest = max((len(sequence) for sequence in sequences), default=0)
    n = min(n, longest)
    if n < 2:
        return 0.0
    scores = np.concatenate(sequences)
    ranks = scipy.stats.rankdata(scores)
    normal = ndtri((ranks - 0.5) / len(ranks))
    if not normal.any():  # all scores are equal
        return 0.0
    normal /= normal.std()
    parts = np.split(normal, np.cumsum([len(sequence) for sequence in sequences])[:-1])
    found = [_of_windows(part, n) for part in parts if len(part) > 1]
    estimate = min(max(0.0, float(np.mean(np.concatenate(found)))), _MOST)
    is_one = len(sequences) == 1
    n_groups = max(1.0, n_recordings / n if is_one else min(n_recordings, len(found)))
    error = np.sqrt(2 / (n * (n - 1) * n_groups))
    error *= (1 - estimate) * (1 + (n - 1) * estimate)
    return min(estimate + _STANDARD_ERRORS * float(error), _MOST)


def _of_windows(normal: Float[np.ndarray, "_"], n: int) -> Float[np.ndarray, "_"]:
    """Return each run's mean product over all pairs of normal scores.

    A sequence of fewer than `n` segments is one run.
    """
    n = min(n, len(normal))
    windows = np.lib.stride_tricks.sliding_window_view(normal, n)
    return (windows.sum(1) ** 2 - (windows**2).sum(1)) / (n * (n - 1))


def expected_segments(k: int, n: int, chance: float) -> float:
    """Return how many segments it takes on average until `k` of the last `n` count.

    Args:
        k: the number of segments that must count.
        n: the number of most recent segments that are considered.
        chance: the probability that a segment counts, independently of the others.
    """
    if chance <= 0:
        return np.inf
    # A state says which of the last n - 1 segments count, the latest in the lowest bit.
    states = np.arange(2 ** (n - 1))
    n_counted = ((states[:, None] >> np.arange(n)) & 1).sum(1)
    one, none = ((2 * states + bit) % len(states) for bit in (1, 0))
    goes_on = n_counted + 1 < k  # no alarm, even if the next segment counts
    to_one = (np.where(goes_on, chance, 0.0), (states, one))
    to_none = (np.full(len(states), 1 - chance), (states, none))
    shape = len(states), len(states)
    moves = sum(scipy.sparse.coo_array(of, shape) for of in (to_one, to_none))
    equations = (scipy.sparse.eye_array(len(states)) - moves).tocsc()
    solution = scipy.sparse.linalg.spsolve(equations, np.ones(len(states)))
    return float(np.asarray(solution)[0])
