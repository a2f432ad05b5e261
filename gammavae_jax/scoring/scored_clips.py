"""Scores all clips and collects the results in one table per machine."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.data.arrays import Capacity, stack_clips
from gammavae_jax.data.clips import Clips, NamedClips
from gammavae_jax.data.domain_rule import domains_of
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.log import Log
from gammavae_jax.scoring.detector import Detector, clip_p_values, compile_scores
from gammavae_jax.scoring.domains import (
    p_values_by_domain,
    rate_by_domain,
    usable_rule,
)
from gammavae_jax.scoring.fusion import Scores


class ScoredClips(NamedTuple):
    """One machine's clips, with each seed's scores.

    If a clip's name does not state a label or domain, the value is "". Scores with an
    official threshold have no p-values.
    """

    machine: str
    section: str
    names: tuple[str, ...]
    labels: tuple[str, ...]  # "normal" or "anomaly"
    domains: tuple[str, ...]  # "source" or "target"
    scores: Mapping[str, Float[np.ndarray, "seed clip"]]
    thresholds: Mapping[str, Float[np.ndarray, "seed"]]
    p_values: Mapping[str, Float[np.ndarray, "seed clip"]]
    seeds: tuple[int, ...]
    # The false-alarm rate if each domain has its own threshold; otherwise None.
    rate_by_domain: float | None = None

    @property
    def is_anomaly(self) -> Bool[np.ndarray, "clip"] | None:
        """A mask of the clips labelled anomalous, or None if any clip has no label."""
        if not all(self.labels):
            return None
        return np.array([label == "anomaly" for label in self.labels])

    @property
    def is_target(self) -> Bool[np.ndarray, "clip"]:
        """A mask of the clips from the target domain; false for an unknown domain."""
        return np.array([domain == "target" for domain in self.domains])

    def decisions(self, score: str) -> Bool[np.ndarray, "seed clip"]:
        """Return, for each seed, whether each clip is judged anomalous."""
        if self.rate_by_domain is not None:
            return self.p_values[score] <= self.rate_by_domain
        return self.scores[score] > self.thresholds[score][:, None]


def score_clips(
    detector: Detector,
    test: NamedClips,
    log: Log | None = None,
    capacity: Capacity | None = None,
) -> list[ScoredClips]:
    """Compute every configured score of the given clips.

    Args:
        detector: the machines' detector.
        test: each machine's name and clips, in the detector's order.
        log: shows notes and timings; default: a log on standard error.
        capacity: the minimum size of one machine's arrays.

    Returns:
        One table per machine. Machines whose scores are not finite are left out, and
        named in a note.
    """
    log, config = log or Log(), detector.config
    clips = [of_machine for _, of_machine in test]
    arrays = stack_clips(clips, config.features.n_context, capacity)
    n_clips = [len(of_machine.files) for of_machine in clips]
    batching = config.train.batching
    placement = make_placement(n_clips, config.n_members, batching=batching)
    with placement, log.busy(f"scoring {sum(n_clips)} clips"):
        with log.timed("compile_s"):
            score = compile_scores(detector, placement, arrays)
        with log.timed("score_s"):
            scores = score()
    usable = finite_machines(scores, test, log)
    return [_table(detector, scores, clips[m], m) for m in usable]


def finite_machines(scores: Scores, test: NamedClips, log: Log) -> list[int]:
    """Return the indices of machines with finite scores; log notes about the others."""
    usable = []
    for m, (name, clips) in enumerate(test):
        n = len(clips.files)  # the rest is padding
        if all(np.isfinite(values[:, m, :n]).all() for values in scores.values()):
            usable.append(m)
        else:
            log.note(f"{name}: the scores are not finite, so the machine is left out.")
    return usable


def _table(detector: Detector, scores: Scores, clips: Clips, m: int) -> ScoredClips:
    """Return the table of the machine at index `m`."""
    files = clips.files
    of_machine = {name: values[:, m, : len(files)] for name, values in scores.items()}
    rule, of_scores = usable_rule(detector, m), clip_p_values
    if rule is not None:
        of_scores = partial(p_values_by_domain, is_target=domains_of(clips, rule))
    p_values = {
        name: np.array(
            [of_scores(detector, name, s, m, v) for s, v in enumerate(values)]
        )
        for name, values in of_machine.items()
        if name in detector.calibration
    }
    return ScoredClips(
        *detector.machines[m],
        tuple(file.path.name for file in files),
        tuple(file.name.label for file in files),
        tuple(file.name.domain for file in files),
        of_machine,
        {name: detector.thresholds[name][:, m] for name in of_machine},
        p_values,
        detector.config.seeds,
        rate_by_domain(detector, m),
    )
