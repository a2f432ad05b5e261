"""Explains a clip's score: how much each mel band adds to it, and when.

**The share of each band is exact** for distances to training clips, their fusions and
`mse`: the shares add up to the score, except for rounding. A distance `d` to the
nearest training clip is the root of a sum of squares over features, and every feature
belongs to one band. So `d` is the sum over bands of `q / d`, where `q` is the band's
part of the sum of squares. The density score is `d` divided by the clip's radius. A
seed's score is the mean over its members, and so are the shares.

A fusion standardises each score by held-out clips. Their mean is subtracted in equal
parts from all bands, because ordinary clips differ about as much in each standardised
band. A band that differs less than average gets a negative share.

**Other scores mix the bands** (Mahalanobis distances, scores of the code or of the
worst windows). They are spread by squared residuals, and `is_exact` is false.

**Where in time a share is shown is a convention**, except for `mse`, because statistics
cover all frames. A band is shown where its frames are more than a deviation from the
mean of the nearest training clip, and `peak` where the residual has its power. A
negative share is spread evenly.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from gammavae_jax.config import FUSION_SCORES, Config
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.report.clip_view import ClipView, has_bands, view_clip
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.fusion import standard_of
from gammavae_jax.scoring.neighbours import Reference

DECIBELS = "dB"
_SMALLEST_DEVIATION = 0.5  # dB or standard deviations, for bands that hardly vary
_EVEN_WEIGHT = 0.1  # the least weight of a frame, in squared deviations
_NEPERS = np.log(10.0) / 10.0  # of power in a decibel


class Part(NamedTuple):
    """The contribution of one component to the score that is explained."""

    name: str
    value: float
    is_exact: bool  # false: spread over bands by the squared residual


class Explanation(NamedTuple):
    """The explanation of one clip's score, averaged over a seed's members.

    The contributions add up to the score. Reconstruction and residual are NaN for
    frames that no window covers. The residual is the log-mel minus the reconstruction
    in dB or, with a likelihood of power, the deviance residual in standard deviations.
    """

    reconstruction: Float[np.ndarray, "frame mel"]  # dB
    residual: Float[np.ndarray, "frame mel"]  # in `residual_unit`
    residual_unit: str
    contribution: Float[np.ndarray, "frame mel"]  # in the score's unit
    parts: tuple[Part, ...]

    @property
    def score(self) -> float:
        """The score that is explained."""
        return sum(part.value for part in self.parts)

    @property
    def is_exact(self) -> bool:
        """Whether the score itself is a sum over bands."""
        return all(part.is_exact for part in self.parts)


class _Machine(NamedTuple):
    """One clip, with what the members of its machine have computed for it."""

    config: Config
    view: ClipView
    references: Mapping[str, Reference]
    log_mel: Float[np.ndarray, "frame mel"]


def explain_clip(
    detector: Detector,
    seed: int,
    machine: int,
    log_mel: Float[np.ndarray, "frame mel"],
    score: str | None = None,
) -> Explanation:
    """Explain the score of one clip.

    Args:
        detector: the machine's detector.
        seed: the index of the seed whose members are used.
        machine: the machine's index.
        log_mel: the clip, in dB.
        score: the score's name; default: the headline score.

    Raises:
        InputError: the detector has no such score, or the clip is shorter than a
            window.
    """
    config = detector.config
    name = config.score if score is None else score
    if name not in config.scores:
        raise InputError(unknown_name("score", name, config.scores))
    if len(log_mel) < config.features.n_context:
        raise InputError(f"a clip of {len(log_mel)} frames is too short for a window")
    members = slice(seed * config.n_folds, (seed + 1) * config.n_folds)
    names = config.scoring.fused if name in FUSION_SCORES else (name,)
    view = view_clip(config, _at(detector.scorer, members, machine), log_mel, names)
    references = _at(dict(detector.references), members, machine)
    of_machine = _Machine(config, view, references, log_mel)
    calibration = {n: v[seed, machine] for n, v in detector.calibration.items()}
    summands = _summands(of_machine, calibration, name)
    is_covered = view.covered[0, :, None] > 0
    decibels = np.where(is_covered, view.decibels.mean(0), np.nan)
    has_deviances = config.model.has_power_likelihood
    deviances = np.where(is_covered, view.residual.mean(0), np.nan)
    return Explanation(
        (log_mel - decibels).astype(np.float32),
        (deviances if has_deviances else decibels).astype(np.float32),
        "standard deviations" if has_deviances else DECIBELS,
        np.sum([added for _, added in summands], axis=0).astype(np.float32),
        tuple(
            Part(part, float(added.sum()), has_bands(part)) for part, added in summands
        ),
    )


def _summands(
    of_machine: _Machine,
    calibration: Mapping[str, Float[np.ndarray, "held_out"]],
    name: str,
) -> list[tuple[str, Float[np.ndarray, "frame mel"]]]:
    """Return the contributions that add up to a score, by component score.

    A fusion that takes the largest or smallest score has only that score as a summand.
    """
    if name not in FUSION_SCORES:
        return [(name, _contribution(of_machine, name, 0.0))]
    summands = []
    for part in of_machine.config.scoring.fused:
        location, unit = (float(x[0]) for x in standard_of(part, calibration[part]))
        summands.append((part, _contribution(of_machine, part, location) / unit))
    if name == "fusion_mean":
        return [(part, added / len(summands)) for part, added in summands]
    pick = max if name == "fusion_max" else min
    return [pick(summands, key=lambda summand: summand[1].sum())]


def _contribution(
    of_machine: _Machine, name: str, location: float
) -> Float[np.ndarray, "frame mel"]:
    """Return the contributions that add up to a score minus `location`."""
    n_members = len(of_machine.view.covered)
    shares = [_share(of_machine, name, member) for member in range(n_members)]
    placed = np.mean(shares, axis=0)
    bands = placed.sum(0)
    rest = bands - location / len(bands)
    covered = of_machine.view.covered[0]
    evenly = (covered / covered.sum())[:, None]
    in_time = np.divide(placed, bands, out=np.zeros_like(placed), where=bands > 0)
    return rest * np.where(rest > 0, in_time, evenly)


def _share(
    of_machine: _Machine, name: str, member: int
) -> Float[np.ndarray, "frame mel"]:
    """Return how much each band and frame adds to one member's score."""
    config, view = of_machine.config, _at(of_machine.view, member)
    is_covered = view.covered > 0
    statistic, _, rule = name.rpartition("_")
    if name in view.scores:
        return _by_squares(view.squares, float(view.scores[name]), is_covered)
    bands, features = _nearest_clip(
        view.statistics[statistic],
        _at(of_machine.references[statistic], member),
        rule == "density",
        config.features.n_mels if has_bands(name) else 1,
    )
    if not has_bands(name):
        return _by_squares(view.squares, float(bands.sum()), is_covered)
    if statistic == "peak":
        values = view.difference
        level = values.max(axis=0, where=is_covered[:, None], initial=-np.inf)
        power = np.exp(_NEPERS * np.minimum(values - level, 0.0))
        return bands * _normalised(power, is_covered)
    mean, deviation = features[:2]
    if statistic == "residual":
        return bands * _by_excess(view.residual, mean, deviation, is_covered)
    values = of_machine.log_mel - of_machine.log_mel.mean()
    is_frame = np.ones(len(values), bool)
    return bands * _by_excess(values, mean, deviation, is_frame)


def _nearest_clip(
    statistic: Float[np.ndarray, "feature"],
    reference: Reference,
    by_radius: bool,
    n_mels: int,
) -> tuple[Float[np.ndarray, "mel"], Float[np.ndarray, "block mel"]]:
    """Return each band's share of the distance to the nearest clip, and that clip.

    With `by_radius`, the distance is that of the density score.
    """
    point = (statistic - reference.location) / reference.scale
    known = np.flatnonzero(reference.is_clip)
    squares = np.square(reference.clips[known] - point)
    radius = reference.radius[known] if by_radius else np.ones(len(known))
    distance = np.sqrt(squares.sum(-1))
    at = int(np.argmin(distance / radius))
    clip = reference.clips[known[at]] * reference.scale + reference.location
    # At distance 0 from itself, a training clip has no share in any band.
    bands = squares[at].reshape(-1, n_mels).sum(0) / max(float(distance[at]), 1e-12)
    return bands / radius[at], np.asarray(clip).reshape(-1, n_mels)


def _by_excess(
    values: Float[np.ndarray, "frame mel"],
    mean: Float[np.ndarray, "mel"],
    deviation: Float[np.ndarray, "mel"],
    is_frame: Bool[np.ndarray, "frame"],
) -> Float[np.ndarray, "frame mel"]:
    """Weight frames by their squared excess over one deviation from the mean."""
    unit = np.maximum(deviation, _SMALLEST_DEVIATION)
    excess = np.maximum(np.abs(values - mean) - unit, 0.0) / unit
    return _normalised(excess**2 + _EVEN_WEIGHT, is_frame)


def _by_squares(
    squares: Float[np.ndarray, "frame mel"],
    total: float,
    is_frame: Bool[np.ndarray, "frame"],
) -> Float[np.ndarray, "frame mel"]:
    """Spread `total` over bands and frames in proportion to squares."""
    bands = squares.sum(0) if squares.any() else np.ones(squares.shape[1])
    return total * bands / bands.sum() * _normalised(squares, is_frame)


def _normalised(
    weights: Float[np.ndarray, "frame mel"], is_frame: Bool[np.ndarray, "frame"]
) -> Float[np.ndarray, "frame mel"]:
    """Normalise each band's weights to a sum of 1; make them equal if all are 0."""
    weights = np.where(is_frame[:, None], weights, 0.0)
    weights = np.where(weights.sum(0) > 0, weights, is_frame[:, None] * 1.0)
    return weights / weights.sum(0)


def _at(tree: Any, *index: Any) -> Any:
    """Index the leading axes of every array in a tree."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
