"""Decides about clips with one conformal threshold per domain.

With `scoring.by_domain`, a clip's p-value counts only the held-out clips of its own
domain. A linear rule on its spectrum (`data.domain_rule`) tells which domain this is,
because the name of a new clip does not. Thus, normal clips of either domain raise the
nominal rate of alarms, even if clips of the target domain score higher. A machine with
too few independent recordings in a domain keeps one threshold for both domains.

Source: Mondrian (category-conditional) conformal prediction, Vovk et al. 2005.
"""

import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.config import Config, ScoringConfig
from gammavae_jax.data.domain_rule import DomainRule
from gammavae_jax.errors import InputError, printable
from gammavae_jax.scoring.detector import Detector, machine_names
from gammavae_jax.scoring.sample_size import clips_needed
from gammavae_jax.scoring.threshold import conformal_threshold, p_values


def require_conformal(config: ScoringConfig) -> None:
    """Raise an InputError if thresholds by domain are wanted but not possible."""
    if config.by_domain and config.threshold != "conformal":
        raise InputError(
            "scoring.by_domain=true needs conformal thresholds, but scoring.threshold="
            f"{config.threshold}: change one of them"
        )


def require_one_threshold(config: Config) -> None:
    """Raise an InputError if the thresholds are by domain.

    Recordings of users have no domains, and exported programs do not tell them apart.
    """
    if config.scoring.by_domain:
        raise InputError(
            "scoring.by_domain=true works only for `gammavae run` and `gammavae "
            "rescore`: train a detector without it"
        )


def rate_by_domain(detector: Detector, machine: int) -> float | None:
    """Return the rate of a machine's thresholds by domain, or None if it has none."""
    rule = usable_rule(detector, machine)
    return None if rule is None else detector.config.scoring.false_alarm_rate


def usable_rule(detector: Detector, machine: int) -> DomainRule | None:
    """Return a machine's domain rule, or None if one threshold serves both domains."""
    conditions = detector.conditions.get(machine_names(detector)[machine])
    rule = conditions and conditions.domains
    if not rule:
        return None
    needed = clips_needed(detector.config.scoring.false_alarm_rate)
    counts = [_recordings(detector, machine, mask) for mask in _masks(detector, rule)]
    return rule if min(counts) >= needed else None


def p_values_by_domain(
    detector: Detector,
    score: str,
    seed: int,
    machine: int,
    scores: Float[np.ndarray, "clip"],
    is_target: Bool[np.ndarray, "clip"],
) -> Float[np.ndarray, "clip"]:
    """Return p-values that count only the held-out clips of each clip's domain.

    `seed` and `machine` are indices into the arrays of `Scores`; the machine must have
    a `usable_rule`.
    """
    source, target = (
        p_values(scores, *held_out)
        for held_out in _held_out(detector, score, seed, machine)
    )
    return np.where(is_target, target, source)


def domain_notes(detector: Detector) -> list[str]:
    """Return notes that state each machine's thresholds by domain, or why it has none.

    The thresholds are those of the headline score and the first seed.
    """
    if not detector.config.scoring.by_domain:
        return []
    needed = clips_needed(detector.config.scoring.false_alarm_rate)
    texts, others = [], []
    for machine, name in enumerate(machine_names(detector)):
        if usable_rule(detector, machine) is None:
            others.append(printable(name))
            continue
        score, rate = detector.config.score, detector.config.scoring.false_alarm_rate
        source, target = (
            conformal_threshold(scores, rate, weights)
            for scores, weights in _held_out(detector, score, 0, machine)
        )
        texts.append(f"{printable(name)} {source:.4g} (source), {target:.4g} (target)")
    notes = []
    if texts:
        notes.append(f"Each domain has its own threshold: {'; '.join(texts)}.")
    if others:
        notes.append(
            f"One threshold serves both domains of {', '.join(others)}: a threshold "
            f"per domain needs at least {needed} independent recordings of each."
        )
    return notes


def _held_out(
    detector: Detector, score: str, seed: int, machine: int
) -> list[tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]]]:
    """Return the scores and weights of held-out clips, for source and for target."""
    conditions = detector.conditions[machine_names(detector)[machine]]
    assert conditions.domains is not None
    scores = detector.calibration[score][seed, machine]
    masks = (mask & ~np.isnan(scores) for mask in _masks(detector, conditions.domains))
    return [(scores[mask], detector.weights[machine, mask]) for mask in masks]


def _masks(detector: Detector, rule: DomainRule) -> list[Bool[np.ndarray, "clip"]]:
    """Return masks of the training clips for source (and padding) and for target."""
    is_target = np.zeros(detector.weights.shape[-1], bool)
    is_target[: len(rule.is_target)] = rule.is_target
    return [~is_target, is_target]


def _recordings(
    detector: Detector, machine: int, mask: Bool[np.ndarray, "clip"]
) -> float:
    """Return the number of independent recordings among these held-out clips."""
    scores = detector.calibration[detector.config.score][0, machine]
    counted = mask & ~np.isnan(scores)
    return float(np.round(detector.weights[machine, counted].sum(), 6))
