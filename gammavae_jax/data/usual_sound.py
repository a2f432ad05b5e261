"""Summarises how a machine's training clips usually sound.

The summary is so small that a detector stores it as text. `data.states` compares new
clips with it.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.clips import Clips, recording_numbers

_PART_SECONDS = 0.5
# All but a tenth of a clip's bands exceed the first level, and a tenth the second one.
_LEAST, _MOST = 0.1, 0.9
# A new clip is outside the range of `n` recordings in about 2 of n cases, so ranges are
# widened by 5 / n of their width on either side. Measured: if only 2 to 40 clips of six
# real machines are used, at most 0.5 % of test clips are taken for a changed gain.
_WIDEN = 5.0


class UsualSound(NamedTuple):
    """A summary of the spectra and samples of a machine's training clips.

    A clip's spectrum is the median of its parts' mean log-mels. Levels are in dB,
    relative to `spectrum`; the level of a clip or part is the median over its bands.
    """

    spectrum: tuple[float, ...]  # dB in each band; the median over clips
    lowest: tuple[float, ...]  # the level of the quietest clip in each band
    quietest: float  # the level of the quietest clip
    quietest_part: float  # the level of the quietest part of any clip
    # A clip is louder than the training clips if nine tenths of its bands exceed
    # `loudest`, and quieter if nine tenths of its bands are below `softest`.
    softest: float
    loudest: float
    # In 5 % of the clips, the bands' levels differ by more than `spread`. The swing is
    # below the range in 10 % of the clips, and above it in 5 %; see `swing_of`.
    spread: float
    swing: tuple[float, float]
    silent: float = 0.99  # the largest value of `Signal.silent`; 0.99 if unknown
    clipped: float = 1.0  # the largest value of `Signal.clipped`; 1 if unknown


def usual_sound(clips: Clips, config: FeatureConfig) -> UsualSound:
    """Summarise a machine's training clips."""
    parts = [part_spectra(log_mel, config) for log_mel in clips.log_mels]
    spectra = np.stack([np.median(of_clip, 0) for of_clip in parts])
    spectrum = np.median(spectra, 0)
    levels = spectra - spectrum
    lowest, (least, most) = levels.min(0), level_range(levels)
    steadiest, unsteadiest = np.quantile(
        list(map(swing_of, clips.log_mels)), [0.1, 0.95]
    )
    wider = _WIDEN / len(np.unique(recording_numbers(clips)))
    known = {}
    if clips.signals:
        silent, clipped = (max(shares) for shares in zip(*clips.signals, strict=True))
        known = {"silent": round(silent, 4), "clipped": round(clipped, 4)}
    return UsualSound(
        spectrum=_rounded(spectrum),
        lowest=_rounded((1 + wider) * lowest),
        quietest=_round(np.median(levels, 1).min()),
        quietest_part=_round(np.median(np.concatenate(parts) - spectrum, 1).min()),
        softest=_round(most.min() - wider * np.ptp(most)),
        loudest=_round(least.max() + wider * np.ptp(least)),
        spread=_round(np.quantile(most - least, 0.95)),
        swing=(_round(steadiest), _round(unsteadiest)),
        **known,
    )


def swing_of(log_mel: Float[np.ndarray, "frame mel"]) -> float:
    """Return how much a clip's bands vary over time: their mean standard deviation.

    This swing does not depend on the gain. Steady noise that masks a machine lowers it,
    to about 2.8 dB in a power spectrum.
    """
    return float(log_mel.std(0).mean())


def part_spectra(
    log_mel: Float[np.ndarray, "frame mel"], config: FeatureConfig
) -> Float[np.ndarray, "part mel"]:
    """Return the mean log-mel of each part of a clip; a part is about half a second."""
    n_frames = max(1, round(_PART_SECONDS * config.sample_rate / config.hop_length))
    n_parts = max(1, round(len(log_mel) / n_frames))
    bounds = np.linspace(0, len(log_mel), n_parts + 1).astype(int)
    return np.add.reduceat(log_mel, bounds[:-1]) / np.diff(bounds)[:, None]


def level_range(
    levels: Float[np.ndarray, "*clip mel"],
) -> Float[np.ndarray, "2 *clip"]:
    """Return the levels between which the middle 80 % of a clip's bands lie."""
    return np.quantile(levels, [_LEAST, _MOST], axis=-1)


def _rounded(values: Float[np.ndarray, "mel"]) -> tuple[float, ...]:
    return tuple(round(float(value), 1) for value in values)


def _round(value: Any) -> float:
    return round(float(value), 2)
