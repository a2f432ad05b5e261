"""A machine's test clips with all that is known of them, from a run or its files."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class ScoredClips(NamedTuple):
    """The test clips of one machine under every score of every seed.

    What a clip's name does not say is "". There are no p-values of a score whose
    threshold is an official one.
    """

    machine: str
    section: str
    names: tuple[str, ...]
    labels: tuple[str, ...]  # "normal" or "anomaly"
    domains: tuple[str, ...]  # "source" or "target"
    scores: Mapping[str, Float[np.ndarray, "seed clip"]]
    thresholds: Mapping[str, Float[np.ndarray, "seed"]]
    p_values: Mapping[str, Float[np.ndarray, "seed clip"]]

    @property
    def is_anomaly(self) -> Bool[np.ndarray, "clip"] | None:
        """Labels; None where that of any clip is unknown."""
        if not all(self.labels):
            return None
        return np.array([label == "anomaly" for label in self.labels])

    @property
    def is_target(self) -> Bool[np.ndarray, "clip"]:
        """Domains; a clip of an unknown one counts as source, as in evaluation."""
        return np.array([domain == "target" for domain in self.domains])

    def decisions(self, score: str) -> Bool[np.ndarray, "seed clip"]:
        """True where a clip is called anomalous."""
        return self.scores[score] > self.thresholds[score][:, None]
