"""The part of a detector that scores one machine with one seed's models."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float32

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.data.features import samples_needed
from gammavae_jax.data.machines import unit_name
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.neighbours import Reference
from gammavae_jax.scoring.scorer import Scorer

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
        """Of the shortest clip."""
        return samples_needed(self.config.features)


def narrowed(
    detector: Detector,
    machines: Sequence[str] | None = None,
    seed: int | None = None,
    score: str | None = None,
) -> Detector:
    """A detector of these machines, one seed and one score.

    Args:
        detector: of any.
        machines: machine types; all unless given.
        seed: the first one unless given.
        score: the headline score unless given.

    Raises:
        InputError: the detector does not have one of them, or the score cannot be
            exported.
    """
    config = detector.config
    known = list(dict.fromkeys(machine for machine, _ in detector.machines))
    for name in machines or ():
        if name not in known:
            raise InputError(unknown_name("machine of the checkpoint", name, known))
    seed = config.seed if seed is None else seed
    if seed not in config.seeds:
        raise InputError(
            unknown_name("seed of the checkpoint", seed, map(str, config.seeds))
        )
    chosen = [
        number
        for number, (machine, _) in enumerate(detector.machines)
        if not machines or machine in machines
    ]
    s = config.seeds.index(seed)
    of_seed = slice(s * config.n_folds, (s + 1) * config.n_folds)
    scorer, references = jax.tree.map(
        lambda leaf: leaf[of_seed, chosen],
        (detector.scorer, dict(detector.references)),
    )
    calibration, thresholds = jax.tree.map(
        lambda leaf: leaf[s : s + 1, chosen],
        (detector.calibration, dict(detector.thresholds)),
    )
    return replace(
        detector,
        config=_of_one_score(replace(config, seed=seed, n_seeds=1), score),
        machines=tuple(detector.machines[number] for number in chosen),
        scorer=scorer,
        references=references,
        calibration=calibration,
        thresholds=thresholds,
    )


def _of_one_score(config: Config, score: str | None) -> Config:
    """The configuration with one score, if that can be exported."""
    if config.model.precision != "float32":
        raise InputError(
            f"models of model.precision={config.model.precision} cannot be exported: "
            "train with model.precision=float32"
        )
    score = score or config.score
    if score not in config.scores:
        raise InputError(unknown_name("score of the checkpoint", score, config.scores))
    narrow = replace(config, score=score, scores=(score,))
    lacking = [name for name in narrow.computed_scores if name in NOT_EXPORTED]
    if lacking:
        can = [name for name in config.scores if name not in NOT_EXPORTED]
        made_of = "" if score in NOT_EXPORTED else f", which is made of {lacking[0]!r},"
        raise InputError(
            f"score {score!r}{made_of} cannot be exported: give --score, one of "
            f"{', '.join(can)}"
        )
    return narrow


def of_machine(detector: Detector, machine: int) -> MachineDetector:
    """One machine's part of a detector that is `narrowed`.

    Args:
        detector: of one seed and one score.
        machine: its number in the detector.

    Raises:
        InputError: a model broke down in training.
    """
    config = detector.config
    members = tuple(
        jax.tree.map(
            lambda leaf, member=member: np.asarray(leaf[member, machine]),
            Member(detector.scorer, dict(detector.references)),
        )
        for member in range(config.n_folds)
    )
    known = {
        name: np.sort(values[0, machine][~np.isnan(values[0, machine])])
        for name, values in detector.calibration.items()
    }
    wanted = {config.score, *config.computed_scores} & known.keys()
    made = MachineDetector(
        config=config,
        machine=detector.machines[machine][0],
        section=detector.machines[machine][1],
        seed=config.seed,
        filterbank=detector.filterbank,
        members=members,
        calibration={name: known[name] for name in sorted(wanted)},
        threshold=float(detector.thresholds[config.score][0, machine]),
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
