"""The part of a detector that scores one machine with one seed's models."""

import hashlib
import json
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float32

from gammavae_jax.clip_files import unit_name
from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.detector import Detector
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.neighbours import Reference
from gammavae_jax.scorer import Scorer

# The divergences of a Gamma need functions that ONNX does not have.
NOT_EXPORTED = ("kl", "negative_elbo")


class Member(NamedTuple):
    """A model, the fits of its residuals, and what it compares a clip with."""

    scorer: Scorer
    references: dict[str, Reference]


class MachineDetector(NamedTuple):
    """What scores a clip of one machine, on the host.

    `config` asks for a single score. `calibration` holds, sorted, what that score and
    those it fuses were on clips held out; none where thresholds are the official ones.
    """

    config: Config
    machine: str
    section: str
    seed: int
    filterbank: Float32[np.ndarray, "bin mel"]
    members: tuple[Member, ...]
    calibration: dict[str, Float[np.ndarray, "held_out"]]
    threshold: float
    training_sha256: str  # of the configuration and of this machine's arrays

    @property
    def name(self) -> str:
        """Machine type and section, as the challenge's files write them."""
        return unit_name(self.machine, self.section)

    @property
    def min_samples(self) -> int:
        """Of the shortest clip: one window."""
        features = self.config.features
        return max(1, (features.n_context - 1) * features.hop_length)


def with_score(detector: Detector, score: str | None) -> Detector:
    """A detector of one score, the headline one unless another is named.

    Raises:
        InputError: the detector does not have it, or it cannot be exported.
    """
    config = detector.config
    score = score or config.score
    if score not in config.scores:
        raise InputError(unknown_name("score of the checkpoint", score, config.scores))
    config = replace(config, score=score, scores=(score,))
    for name in config.computed_scores:
        if name in NOT_EXPORTED:
            can = [s for s in detector.config.scores if s not in NOT_EXPORTED]
            raise InputError(
                f"score {name!r} cannot be exported: name another by --score, of "
                f"{', '.join(can) or 'a run that has others'}"
            )
    if config.model.precision != "float32":
        raise InputError(
            f"models of model.precision={config.model.precision} cannot be exported: "
            "train with model.precision=float32"
        )
    return replace(detector, config=config)


def of_machine(detector: Detector, machine: int, seed: int) -> MachineDetector:
    """One machine's part of a detector of one score.

    Args:
        detector: see `with_score`.
        machine: its number in the detector.
        seed: the seed's number in the configuration.

    Raises:
        InputError: a model broke down in training.
    """
    config = detector.config
    first = seed * config.n_folds
    members = [
        jax.tree.map(
            lambda leaf, member=member: np.asarray(leaf[member, machine]),
            Member(detector.scorer, dict(detector.references)),
        )
        for member in range(first, first + config.n_folds)
    ]
    known = {
        name: np.sort(values[seed, machine][~np.isnan(values[seed, machine])])
        for name, values in detector.calibration.items()
    }
    wanted = {config.score, *config.computed_scores} & known.keys()
    of_score = detector.thresholds[config.score][seed, machine]
    made = MachineDetector(
        config=config,
        machine=detector.machines[machine][0],
        section=detector.machines[machine][1],
        seed=config.seeds[seed],
        filterbank=detector.filterbank,
        members=tuple(members),
        calibration={name: known[name] for name in sorted(wanted)},
        threshold=float(of_score),
        training_sha256=_digest(config, (members, known, detector.filterbank)),
    )
    numbers = *jax.tree.leaves(members), made.threshold
    if not all(np.isfinite(leaf).all() for leaf in numbers):
        raise InputError(
            f"{made.name} cannot be exported, for a model of seed {made.seed} broke "
            "down in training: leave the machine out with --machines"
        )
    return made


def _digest(config: Config, arrays: Any) -> str:
    """Of a training and its scoring, the same for all scores that it has."""
    about = to_dict(config) | {"score": None, "scores": None}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path, leaf in jax.tree.leaves_with_path(arrays):
        array = np.ascontiguousarray(leaf)
        what = f"{jax.tree_util.keystr(path)} {array.dtype.str} {array.shape}"
        digest.update(what.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
