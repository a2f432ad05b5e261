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
from gammavae_jax.scoring.detector import Detector, held_out_scores
from gammavae_jax.scoring.domains import require_one_threshold
from gammavae_jax.scoring.neighbours import Reference
from gammavae_jax.scoring.scorer import FittedModel

# The KL divergence between Gamma distributions needs functions that ONNX lacks.
NOT_EXPORTED = ("kl", "negative_elbo")


class ExportedModel(NamedTuple):
    """A model with its Gaussian fits of residuals and its reference statistics."""

    scorer: FittedModel
    references: dict[str, Reference]


class MachineDetector(NamedTuple):
    """Everything needed to score one machine's clips, as NumPy arrays.

    `config` has a single score. `calibration` holds the held-out clips' sorted values
    of that score and of each score that it fuses. With official thresholds,
    `calibration` is empty.
    """

    config: Config
    machine: str
    section: str
    seed: int
    filterbank: Float32[np.ndarray, "bin mel"]
    members: tuple[ExportedModel, ...]
    calibration: dict[str, Float[np.ndarray, "held_out"]]
    weights: Float[np.ndarray, "held_out"]  # sorted like the values of `config.score`
    threshold: float
    training_sha256: str  # of the configuration and of this machine's arrays

    @property
    def name(self) -> str:
        """The machine type and section, as in the challenge's file names."""
        return unit_name(self.machine, self.section)

    @property
    def min_samples(self) -> int:
        """The number of samples in the shortest clip that can be scored."""
        return samples_needed(self.config.features)


def narrowed(
    detector: Detector,
    machines: Sequence[str] | None = None,
    seed: int | None = None,
    score: str | None = None,
) -> Detector:
    """Restrict a detector to some machine types, one seed and one score.

    The defaults are all machines, the first seed and the headline score.

    Raises:
        InputError: a machine, seed or score is unknown or cannot be exported, or the
            thresholds are by domain.
    """
    config = detector.config
    require_one_threshold(config)
    names = list(dict.fromkeys(machine for machine, _ in detector.machines))
    for name in machines or ():
        _require("machine", name, names)
    seed = config.seed if seed is None else seed
    _require("seed", str(seed), [str(s) for s in config.seeds])
    wanted = machines or names
    chosen = [i for i, (name, _) in enumerate(detector.machines) if name in wanted]
    s = config.seeds.index(seed)
    of_seed = slice(s * config.n_folds, (s + 1) * config.n_folds)
    models = detector.scorer, dict(detector.references)
    scorer, references = jax.tree.map(lambda leaf: leaf[of_seed, chosen], models)
    held_out = detector.calibration, dict(detector.thresholds)
    calibration, thresholds = jax.tree.map(lambda x: x[s : s + 1, chosen], held_out)
    return replace(
        detector,
        config=_with_one_score(replace(config, seed=seed, n_seeds=1), score),
        machines=tuple(detector.machines[i] for i in chosen),
        scorer=scorer,
        references=references,
        calibration=calibration,
        weights=detector.weights[chosen],
        thresholds=thresholds,
    )


def _require(kind: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise InputError(unknown_name(f"{kind} of the checkpoint", name, names))


def _with_one_score(config: Config, score: str | None) -> Config:
    """Restrict the configuration to a single score that can be exported."""
    if config.model.precision != "float32":
        raise InputError(
            f"models with model.precision={config.model.precision} cannot be exported: "
            "train with model.precision=float32"
        )
    if config.features.reference_channel is not None:
        raise InputError(
            "detectors that use features.reference_channel cannot be exported, because "
            "an exported file takes one channel: score with gammavae score, watch or "
            "serve, or fit without features.reference_channel"
        )
    score = score or config.score
    _require("score", score, config.scores)
    narrow = replace(config, score=score, scores=(score,))
    missing = [name for name in narrow.computed_scores if name in NOT_EXPORTED]
    if missing:
        possible = [name for name in config.scores if name not in NOT_EXPORTED]
        fused = "" if score in NOT_EXPORTED else f", which fuses {missing[0]!r},"
        raise InputError(
            f"score {score!r}{fused} cannot be exported: set --score to one of "
            f"{', '.join(possible)}"
        )
    return narrow


def of_machine(detector: Detector, machine: int) -> MachineDetector:
    """Extract one machine's part from a detector that `narrowed` returned.

    Raises:
        InputError: a model has values that are not finite.
    """
    config = detector.config
    models = ExportedModel(detector.scorer, dict(detector.references))
    members = tuple(
        jax.tree.map(lambda leaf, fold=fold: np.asarray(leaf[fold, machine]), models)
        for fold in range(config.n_folds)
    )
    weights, held_out = np.zeros(0), {}
    for name in detector.calibration:
        held_out[name], of_score = held_out_scores(detector, name, 0, machine)
        weights = of_score if name == config.score else weights
    needed = {config.score, *config.computed_scores} & held_out.keys()
    part = MachineDetector(
        config,
        *detector.machines[machine],
        seed=config.seed,
        filterbank=detector.filterbank,
        members=members,
        calibration={name: held_out[name] for name in sorted(needed)},
        weights=weights,
        threshold=float(detector.thresholds[config.score][0, machine]),
        training_sha256=_digest(config, (members, held_out, detector.filterbank)),
    )
    numbers = *jax.tree.leaves(members), part.threshold
    if not all(np.isfinite(leaf).all() for leaf in numbers):
        raise InputError(
            f"{part.name} cannot be exported, because training failed for one of its "
            f"models (seed {part.seed}): select other machines with --machines"
        )
    return part


def _digest(config: Config, arrays: Any) -> str:
    """Return a hash of the trained models.

    The chosen score and the false-alarm rate do not affect it.
    """
    scoring = replace(config.scoring, false_alarm_rate=0.1)
    of_models = replace(config, scoring=scoring)
    settings = to_dict(of_models) | {"score": None, "scores": None}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path, leaf in jax.tree.leaves_with_path(arrays):
        array = np.ascontiguousarray(leaf)
        header = f"{jax.tree_util.keystr(path)} {array.dtype.str} {array.shape}"
        digest.update(header.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
