"""A clip's pictures, sound and words, small enough for a page.

A picture has one byte for each frame and band, deflated; the page's script colours it.
A byte of 255 means no value. In long clips, several frames share a column.
"""

import base64
import io
import zlib
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float, Float32

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import band_corners
from gammavae_jax.report.explanation import Explanation
from gammavae_jax.report.words import describe_regions, find_regions

_NO_VALUE = 255
_MAX_COLUMNS = 800
_STEP = 0.5  # dB; smaller steps cannot be seen and take more bytes
_LOUDEST = 0.9  # the peak that every recording is scaled to for playing


class Sound(NamedTuple):
    """A recording, or a remark on why it cannot be played."""

    waveform: Float[np.ndarray, "sample"] | None
    sample_rate: int
    remark: str = ""


def picture_payload(
    explanation: Explanation,
    log_mel: Float[np.ndarray, "frame mel"],
    sound: Sound,
    config: FeatureConfig,
    score: str,
    seed: int,
) -> dict[str, Any]:
    """Return what `report.js` shows of a chosen clip."""
    n_pooled = -(-len(log_mel) // _MAX_COLUMNS)
    seconds = config.hop_length / config.sample_rate
    contribution = explanation.contribution
    low = float(np.quantile(log_mel, 0.002))
    high = float(log_mel.max())
    regions = find_regions(contribution)
    corners = band_corners(config)
    return {
        "score": score,
        "seed": seed,
        "value": _short(explanation.score),
        "isExact": explanation.is_exact,
        "parts": [[part.name, _short(part.value)] for part in explanation.parts],
        "columns": -(-len(log_mel) // n_pooled),
        "bands": log_mel.shape[1],
        "secondsPerColumn": seconds * n_pooled,
        "seconds": len(log_mel) * seconds,
        "spectrogram": _levels(_pooled(log_mel, n_pooled), low, high),
        "residual": _signed(_pooled(explanation.residual, n_pooled)),
        "contribution": _raising(_pooled(contribution, n_pooled)),
        "profile": [_short(float(v)) for v in contribution.sum(0)],
        "regions": [
            {
                "bands": [region.first_band, region.last_band],
                "moments": [
                    [a * seconds, (b + 1) * seconds] for a, b in region.moments
                ],
            }
            for region in regions
        ],
        "words": describe_regions(regions, corners, seconds),
        "sound": _sound(sound),
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _sound(sound: Sound) -> dict[str, Any]:
    if sound.waveform is None:
        return {"remark": sound.remark}
    loudest = float(np.abs(sound.waveform).max())
    factor = _LOUDEST / loudest if loudest > 0 else 1.0
    data, media_type = encode_clip(sound.waveform * factor, sound.sample_rate)
    return {
        "type": media_type,
        "data": base64.b64encode(data).decode(),
        "gain": float(20 * np.log10(factor)),
    }


def encode_clip(
    waveform: Float32[np.ndarray, "sample"], sample_rate: int
) -> tuple[bytes, str]:
    """Encode a waveform in [-1, 1] for a browser; returns bytes and media type.

    Mono MP3, about 50 KB for ten seconds at 16 kHz; 16-bit WAV if libsndfile is older
    than 1.1 or MP3 does not support the sample rate.
    """
    for kind, media_type in (("MP3", "audio/mpeg"), ("WAV", "audio/wav")):
        if kind not in soundfile.available_formats():
            continue
        data = io.BytesIO()
        try:
            soundfile.write(data, np.clip(waveform, -1, 1), sample_rate, format=kind)
        except soundfile.LibsndfileError:
            continue
        return data.getvalue(), media_type
    raise RuntimeError("libsndfile writes WAV files at any sample rate")


def _pooled(
    values: Float[np.ndarray, "frame mel"], n_pooled: int
) -> Float[np.ndarray, "column mel"]:
    """Means of groups of successive frames, the last one maybe smaller, without NaN."""
    starts = np.arange(0, len(values), n_pooled)
    is_known = np.isfinite(values)
    total = np.add.reduceat(np.where(is_known, values, 0.0), starts, axis=0)
    count = np.add.reduceat(is_known, starts, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _levels(
    decibels: Float[np.ndarray, "column mel"], low: float, high: float
) -> dict[str, Any]:
    """Levels in dB, encoded as `low + step * byte`."""
    step = max(_STEP, (high - low) / (_NO_VALUE - 1))
    codes = np.clip(np.round((decibels - low) / step), 0, _NO_VALUE - 1)
    return {"low": low, "step": step, "high": high, "data": _packed(codes)}


def _signed(decibels: Float[np.ndarray, "column mel"]) -> dict[str, Any]:
    """Differences in dB on a symmetric scale; the few largest are clipped."""
    finite = decibels[np.isfinite(decibels)]
    high = max(float(np.quantile(np.abs(finite), 0.995)), _STEP)
    return _levels(decibels, -high, high)


def _raising(contribution: Float[np.ndarray, "column mel"]) -> dict[str, Any]:
    """Positive contributions, as `high * (byte / 254) ** 2`: most of them are small."""
    raising = np.maximum(contribution, 0.0)
    high = float(raising.max()) or 1.0
    codes = np.round((_NO_VALUE - 1) * np.sqrt(raising / high))
    return {"high": high, "data": _packed(codes)}


def _packed(codes: Float[np.ndarray, "column mel"]) -> str:
    """The bytes of one column after the other, deflated, in base64."""
    values = np.where(np.isfinite(codes), codes, _NO_VALUE).astype(np.uint8)
    return base64.b64encode(zlib.compress(values.tobytes(), 6)).decode()
