"""Explains a clip's score: how much each mel band adds to it, and when.

**The share of each band is exact** for `mse`, for distances to training clips, and for
fusions of such scores: the shares add up to the score, except for rounding. A distance
`d` to the nearest training clip is the square root of a sum of squares over features,
and every feature belongs to one band. So `d` is the sum over bands of `q / d`, where
`q` is the band's part of the sum of squares. Some scores divide `d` by a function of
the training clip's radius. The score of a seed is the mean over its members (one model
per fold), and so is each share.

A fusion standardises each score: it subtracts the mean score of the held-out clips and
divides by their standard deviation. The mean is subtracted from all bands in equal
parts, because ordinary clips deviate by about the same amount in each standardised
band. A band that deviates less than average gets a negative share.

**Other scores mix the bands**: Mahalanobis distances, and scores that use the latent
code or only the worst windows. Such a score is divided among bands and frames in
proportion to their squared residuals, and `is_exact` is false.

**The time at which a share is shown is a convention**: see `report.score_parts`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from gammavae_jax.config import FUSION_SCORES, Config
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.report.score_parts import (
    ClipView,
    by_excess,
    by_power,
    by_squares,
    has_bands,
    of_model_free,
    view_clip,
)
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.fusion import standard_of
from gammavae_jax.scoring.neighbours import Reference, divisor

DECIBELS, DEVIATIONS = "dB", "standard deviations"  # units of a residual


class Part(NamedTuple):
    """The contribution of one component score to the explained score."""

    name: str
    value: float
    is_exact: bool  # if false, divided among bands by their squared residuals


class Explanation(NamedTuple):
    """The explanation of one clip's score, averaged over the models of one seed.

    The contributions add up to the score. Reconstruction and residual are NaN for
    frames that no window covers. The residual is the log-mel minus the reconstruction,
    in dB; for a likelihood of power, it is the deviance residual, in standard
    deviations.
    """

    reconstruction: Float[np.ndarray, "frame mel"]  # dB
    residual: Float[np.ndarray, "frame mel"]  # in `residual_unit`
    residual_unit: str
    contribution: Float[np.ndarray, "frame mel"]  # in the score's unit
    parts: tuple[Part, ...]

    @property
    def score(self) -> float:
        """The explained score."""
        return sum(part.value for part in self.parts)

    @property
    def band_shares(self) -> Float[np.ndarray, "mel"]:
        """What each mel band adds to the score, over all frames."""
        return self.contribution.sum(0)

    def to_frame(self) -> Any:
        """Return a pandas table with a row for each frame and mel band.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise InputError("pandas is not installed: pip install pandas") from error
        frames, bands = np.indices(self.contribution.shape)
        columns = {
            "frame": frames,
            "band": bands,
            "contribution": self.contribution,
            "residual": self.residual,
        }
        return pandas.DataFrame({n: of.ravel() for n, of in columns.items()})

    @property
    def is_exact(self) -> bool:
        """Whether the score is exactly a sum over bands."""
        return all(part.is_exact for part in self.parts)


class _Machine(NamedTuple):
    """One clip, with the values that its machine's models computed for it."""

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
        seed: the index of the seed whose models are used.
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
        raise InputError(
            f"a clip of {len(log_mel)} frames is shorter than a window: use at least "
            f"{config.features.n_context} frames"
        )
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
        DEVIATIONS if has_deviances else DECIBELS,
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
    """Return the summands of a score: the name and contributions of each component.

    A fusion by maximum or minimum has one summand: the score that the fusion selects.
    """
    if name not in FUSION_SCORES:
        return [(name, _contribution(of_machine, name, 0.0))]
    summands = []
    for part in of_machine.config.scoring.fused:
        location, unit = (float(x[0]) for x in standard_of(part, calibration[part]))
        summands.append((part, _contribution(of_machine, part, location) / unit))
    if name == "fusion_mean":
        return [(part, added / len(summands)) for part, added in summands]
    if name == "fusion_smooth_max":
        return _weighted(summands)
    pick = {"fusion_max": max, "fusion_min": min}[name]
    return [pick(summands, key=lambda summand: summand[1].sum())]


def _weighted(
    summands: list[tuple[str, Float[np.ndarray, "frame mel"]]],
) -> list[tuple[str, Float[np.ndarray, "frame mel"]]]:
    """Weight the summands so that they add up to the score of `fusion.smooth_max`.

    With the weights `w = softmax(score)` of `n` scores, the fusion is the sum of
    `w * (score - log(n * w))`. The logarithm is subtracted in equal
    parts from all frames and bands.
    """
    scores = np.array([added.sum() for _, added in summands])
    weights = softmax(scores)
    constant = np.log(len(summands) * np.maximum(weights, 1e-300))
    return [
        (part, weight * (added - rest / added.size))
        for (part, added), weight, rest in zip(summands, weights, constant, strict=True)
    ]


def _contribution(
    of_machine: _Machine, name: str, location: float
) -> Float[np.ndarray, "frame mel"]:
    """Divide the named score minus `location` into contributions by frame and band."""
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
    """Return how much each band in each frame adds to one model's score."""
    config, view = of_machine.config, _at(of_machine.view, member)
    is_covered = view.covered > 0
    statistic, _, rule = name.rpartition("_")
    if name in view.scores:
        return by_squares(view.squares, float(view.scores[name]), is_covered)
    bands, features = _nearest_clip(
        view.statistics[statistic],
        _at(of_machine.references[statistic], member),
        rule,
        config.features.n_mels if has_bands(name) else 1,
    )
    if not has_bands(name):
        return by_squares(view.squares, float(bands.sum()), is_covered)
    if statistic == "peak":
        return bands * by_power(view.difference, is_covered)
    if statistic == "residual":
        return bands * by_excess(view.residual, features, is_covered)
    return bands * of_model_free(statistic, of_machine.log_mel, features, view)


def _nearest_clip(
    statistic: Float[np.ndarray, "feature"],
    reference: Reference,
    rule: str,
    n_mels: int,
) -> tuple[Float[np.ndarray, "mel"], Float[np.ndarray, "block mel"]]:
    """Return each band's share of the distance to the nearest training clip.

    The distance is divided as `rule` requires. The second return value is the nearest
    clip's statistic, in blocks of bands.
    """
    point = (statistic - reference.location) / reference.scale
    known = np.flatnonzero(reference.is_clip)
    squares = np.square(reference.clips[known] - point)
    radius = np.asarray(divisor(reference, rule))[known]
    distance = np.sqrt(squares.sum(-1))
    at = int(np.argmin(distance / radius))
    clip = reference.clips[known[at]] * reference.scale + reference.location
    # A training clip is nearest to itself: its distance and all shares are 0.
    bands = squares[at].reshape(-1, n_mels).sum(0) / max(float(distance[at]), 1e-12)
    return bands / radius[at], np.asarray(clip).reshape(-1, n_mels)


def _at(tree: Any, *index: Any) -> Any:
    """Apply an index to the leading axes of every array in a tree."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
