"""Where the mel bands lie, in Hz: Slaney's scale, as librosa's filters have it."""

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import FeatureConfig

_HZ_PER_MEL = 200.0 / 3.0  # below the corner
_CORNER_HZ, _CORNER_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27.0  # above it


def band_corners(config: FeatureConfig) -> Float[np.ndarray, "corner"]:
    """`n_mels + 2` frequencies in Hz: band `b` is a triangle over those from `b` on.

    It rises from corner `b` to its centre `b + 1` and falls to `b + 2`.
    Source: `librosa.mel_frequencies`.
    """
    highest = _mel_of(config.sample_rate / 2)
    return _hz_of(np.linspace(0.0, highest, config.n_mels + 2))


def _mel_of(hz: float) -> float:
    if hz < _CORNER_HZ:
        return hz / _HZ_PER_MEL
    return _CORNER_MEL + float(np.log(hz / _CORNER_HZ)) / _LOG_STEP


def _hz_of(mel: Float[np.ndarray, "point"]) -> Float[np.ndarray, "point"]:
    above = np.maximum(mel - _CORNER_MEL, 0.0)
    return np.where(
        mel < _CORNER_MEL, _HZ_PER_MEL * mel, _CORNER_HZ * np.exp(_LOG_STEP * above)
    )
