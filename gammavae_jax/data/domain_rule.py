"""Tells the two domains of a machine apart by the mean spectra of its clips."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float
from threadpoolctl import threadpool_limits

from gammavae_jax.data.clips import Clips

_SHRINKAGE = 0.1  # the share of the covariance that is replaced by its mean variance
_LEAST_VARIANCE = 1e-6  # in dB²; equal clips have none
_DIGITS = 6


class DomainRule(NamedTuple):
    """A linear rule: a clip belongs to the target domain if its value is above 0.

    The value is the product of `direction` and the clip's spectrum, plus `offset`. The
    spectrum is the mean log-mel in dB, minus its mean over bands, so a gain has no
    effect.
    """

    direction: tuple[float, ...]  # one number per band
    offset: float
    # The domain of each training clip (1: target) according to a rule that was fitted
    # without the clip and the clips linked to it.
    is_target: tuple[int, ...]


def domains_of(clips: Clips, rule: DomainRule) -> Bool[np.ndarray, "clip"]:
    """Return which clips belong to the target domain, according to the rule."""
    return _is_target(_spectra(clips), np.array(rule.direction), rule.offset)


def fit_domain_rule(
    clips: Clips, is_linked: Bool[np.ndarray, "clip clip"]
) -> DomainRule | None:
    """Fit a linear discriminant to clips whose names state their domains.

    Both domains have the same prior probability. A clip's own domain is found without
    the clips linked to it, as for a new recording.

    Args:
        clips: the training clips; those without a domain in their names are not used.
        is_linked: which pairs of clips are not independent; each clip is linked to
            itself. It may be padded.

    Returns:
        The rule, or None if a domain is missing or all its clips are linked.
    """
    spectra = _spectra(clips)
    domains = np.array([file.name.domain for file in clips.files])
    is_target, is_known = domains == "target", np.isin(domains, ["source", "target"])
    judged = []
    with threadpool_limits(1, "blas"):  # threads slow down small matrices
        for clip in range(len(spectra)):
            is_used = is_known & ~is_linked[clip, : len(spectra)]
            found = _discriminant(spectra, is_target, is_used)
            if found is None:
                return None
            judged.append(int(_is_target(spectra[[clip]], *found)[0]))
        found = _discriminant(spectra, is_target, is_known)
    if found is None:
        return None
    direction, offset = found
    return DomainRule(tuple(direction.tolist()), offset, tuple(judged))


def _spectra(clips: Clips) -> Float[np.ndarray, "clip mel"]:
    means = np.stack([np.mean(m, 0, dtype=np.float64) for m in clips.log_mels])
    return means - means.mean(1, keepdims=True)


def _is_target(
    spectra: Float[np.ndarray, "clip mel"],
    direction: Float[np.ndarray, "mel"],
    offset: float,
) -> Bool[np.ndarray, "clip"]:
    return spectra @ direction + offset > 0


def _discriminant(
    spectra: Float[np.ndarray, "clip mel"],
    is_target: Bool[np.ndarray, "clip"],
    is_used: Bool[np.ndarray, "clip"],
) -> tuple[Float[np.ndarray, "mel"], float] | None:
    """Return a linear discriminant's direction and offset, or None without a domain.

    The covariance is the mean of both domains' covariances.
    """
    parts = [spectra[is_used & (is_target == wanted)] for wanted in (False, True)]
    if not all(map(len, parts)):
        return None
    source, target = (part.mean(0) for part in parts)
    covariance = np.mean([np.cov(part.T, bias=True) for part in parts], 0)
    variance = max(float(np.diag(covariance).mean()), _LEAST_VARIANCE)
    shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * variance * np.eye(len(source))
    factor = scipy.linalg.cho_factor(shrunk)
    direction = scipy.linalg.cho_solve(factor, target - source).round(_DIGITS)
    offset = -float(direction @ (source + target)) / 2
    return direction, round(offset, _DIGITS)
