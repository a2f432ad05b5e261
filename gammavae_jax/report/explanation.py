"""Why a clip has its score: what each mel band adds to it, and when.

A seed's score is the mean over its members, and so is what bands add to it (see
`band_shares`). A fusion standardises each score by held-out clips. Their mean is taken
from all bands alike: features are standardised, and ordinary clips differ about as
much in each. A band that differs less than that adds less than nothing.

The bands of distances to training clips, of their fusions and of `mse` (the squared
residual itself) add up to the score but for rounding. Other scores (Mahalanobis
distances, those of the code or of the worst windows) mix the bands; they are spread by
squared residuals, and `is_exact` is false. Where in time a band's share is shown is a
convention, but for `mse`; a share below 0 is spread evenly.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gammavae_jax.config import FUSION_SCORES, Config
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.report.band_shares import (
    Share,
    nearest_clip,
    of_squares,
    where_departing,
    where_powerful,
)
from gammavae_jax.report.clip_view import ClipView, has_bands, view_clip
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.fusion import standard_of
from gammavae_jax.scoring.neighbours import Reference


class Part(NamedTuple):
    """What one of the scores that make up the explained one adds to it."""

    name: str
    value: float
    is_exact: bool  # whether its bands are its own, or those of the squared residual


class Explanation(NamedTuple):
    """Of one clip; means over a seed's members. The contribution adds up to the score.

    Reconstruction and residual are NaN where no window tells of a frame.
    """

    reconstruction: Float[np.ndarray, "frame mel"]  # dB
    residual: Float[np.ndarray, "frame mel"]  # dB, log-mel minus reconstruction
    contribution: Float[np.ndarray, "frame mel"]  # in the score's unit
    parts: tuple[Part, ...]

    @property
    def score(self) -> float:
        """The score that is explained."""
        return sum(part.value for part in self.parts)

    @property
    def is_exact(self) -> bool:
        """Whether the score is a sum over bands by itself."""
        return all(part.is_exact for part in self.parts)


class _Machine(NamedTuple):
    """One machine's members of one seed, and one clip."""

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
    """Why one clip has its score.

    Args:
        detector: of the machine.
        seed: its number, as in `Scores`: an explanation is of one seed's members.
        machine: its number.
        log_mel: of the clip, dB.
        score: its name; the headline score unless given.

    Raises:
        InputError: the detector has no such score, or the clip is no window long.
    """
    config = detector.config
    name = config.score if score is None else score
    if name not in config.scores:
        raise InputError(unknown_name("score", name, config.scores))
    if len(log_mel) < config.features.n_context:
        raise InputError(f"a clip of {len(log_mel)} frames is too short for a window")
    members = slice(seed * config.n_folds, (seed + 1) * config.n_folds)
    names = config.scoring.fused if name in FUSION_SCORES else (name,)
    view = view_clip(config, _of(detector.scorer, members, machine), log_mel, names)
    references = _of(dict(detector.references), members, machine)
    of_machine = _Machine(config, view, references, log_mel)
    calibration = {n: v[seed, machine] for n, v in detector.calibration.items()}
    summands = _summands(of_machine, calibration, name)
    is_covered = view.covered[0, :, None] > 0
    decibels = np.where(is_covered, view.decibels.mean(0), np.nan)
    return Explanation(
        (log_mel - decibels).astype(np.float32),
        decibels.astype(np.float32),
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
    """What adds up to the named score, each by name.

    A fusion that picks the largest or smallest has one summand: the one that it picks.
    """
    if name not in FUSION_SCORES:
        return [(name, _contribution(of_machine, name, 0.0))]
    found = []
    for part in of_machine.config.scoring.fused:
        location, unit = (float(x[0]) for x in standard_of(part, calibration[part]))
        found.append((part, _contribution(of_machine, part, location) / unit))
    if name == "fusion_mean":
        return [(part, added / len(found)) for part, added in found]
    pick = max if name == "fusion_max" else min
    return [pick(found, key=lambda summand: summand[1].sum())]


def _contribution(
    of_machine: _Machine, name: str, location: float
) -> Float[np.ndarray, "frame mel"]:
    """What a score less `location` is made of."""
    n_members = len(of_machine.view.covered)
    shares = [_share(of_machine, name, member) for member in range(n_members)]
    placed = np.mean([share.bands * share.in_time for share in shares], axis=0)
    bands = placed.sum(0)
    left = bands - location / len(bands)
    covered = of_machine.view.covered[0]
    evenly = (covered / covered.sum())[:, None]
    in_time = np.divide(placed, bands, out=np.zeros_like(placed), where=bands > 0)
    return left * np.where(left > 0, in_time, evenly)


def _share(of_machine: _Machine, name: str, member: int) -> Share:
    """What the bands add to a score of one member."""
    config, view = of_machine.config, _of(of_machine.view, member)
    is_covered = view.covered > 0
    statistic, _, rule = name.rpartition("_")
    if name in view.scores:
        return of_squares(view.squares, float(view.scores[name]), is_covered)
    nearest = nearest_clip(
        view.statistics[statistic],
        _of(of_machine.references[statistic], member),
        rule == "density",
        config.features.n_mels if has_bands(name) else 1,
    )
    if not has_bands(name):
        return of_squares(view.squares, float(nearest.bands.sum()), is_covered)
    if statistic == "peak":
        return Share(nearest.bands, where_powerful(view.residual, is_covered))
    mean, deviation = nearest.features[:2]
    if statistic == "residual":
        in_time = where_departing(view.residual, mean, deviation, is_covered)
    else:
        values = of_machine.log_mel - of_machine.log_mel.mean()
        is_frame = np.ones(len(values), bool)
        in_time = where_departing(values, mean, deviation, is_frame)
    return Share(nearest.bands, in_time)


def _of(tree: Any, *place: Any) -> Any:
    """A part of arrays, by their leading axes."""
    return jax.tree.map(lambda leaf: leaf[place], tree)
