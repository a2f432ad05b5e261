"""Encodes a clip's pictures and sound compactly and describes its score in words.

A picture holds one byte for each frame and band, compressed with deflate. The page's
script colours it. The byte 255 marks a missing value. In long clips, a column is the
mean of several frames.
"""

import base64
import contextlib
import io
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float, Float32

from gammavae_jax.config import Config
from gammavae_jax.data.features import band_corners
from gammavae_jax.report.explanation import DECIBELS, DEVIATIONS, Explanation

_NO_VALUE = 255
_MAX_COLUMNS = 800
_STEP = 0.5  # dB; smaller steps cannot be seen and take more bytes
# A residual's smallest step and the largest end of its scale. A model may be wrong by
# hundreds of dB in unknown sounds, which must not hide everything else.
_SCALES = {DECIBELS: (_STEP, 40.0), DEVIATIONS: (0.05, 20.0)}
_LOUDEST = 0.9  # the peak to which every recording is scaled for playback

_EDGE_OF_BANDS = 0.3  # a region ends at a band below this fraction of the strongest
_EDGE_OF_FRAMES = 0.3  # a moment ends at a frame below this fraction of the strongest
# The moments' share of the score must exceed their share of frames by this much.
_MOMENTARY = 0.3
_MOMENTS_OF_A_CLIP = 25  # at most; moments that are closer together are merged
# The share of all positive contributions that each region after the first must have.
_SMALLEST_SHARE = 0.1
_MAIN = 0.5  # a region with this share explains most of the score
_MAX_REGIONS = 3
_MAX_MOMENTS = 3  # to list one by one; more are only counted
_BROAD = 0.6  # of all bands; a broader region is described without frequencies


class Sound(NamedTuple):
    """A recording, or the reason why it cannot be played."""

    waveform: Float[np.ndarray, "sample"] | None
    sample_rate: int
    remark: str = ""


def picture_payload(
    explanation: Explanation,
    log_mel: Float[np.ndarray, "frame mel"],
    sound: Sound,
    config: Config,
) -> dict[str, Any]:
    """Return the data from which `report.js` draws the explanation of a clip."""
    n_pooled = -(-len(log_mel) // _MAX_COLUMNS)
    seconds = config.features.hop_length / config.features.sample_rate
    contribution = explanation.contribution
    low = float(np.quantile(log_mel, 0.002))
    high = float(log_mel.max())
    regions = find_regions(contribution)
    corners = band_corners(config.features)
    return {
        "score": config.score,
        "seed": config.seed,
        "value": _short(explanation.score),
        "isExact": explanation.is_exact,
        "parts": [[part.name, _short(part.value)] for part in explanation.parts],
        "columns": -(-len(log_mel) // n_pooled),
        "bands": log_mel.shape[1],
        "secondsPerColumn": seconds * n_pooled,
        "seconds": len(log_mel) * seconds,
        "spectrogram": _levels(_pooled(log_mel, n_pooled), low, high, _STEP),
        **_model_pictures(explanation, n_pooled, low, high),
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


def _model_pictures(
    explanation: Explanation, n_pooled: int, low: float, high: float
) -> dict[str, Any]:
    """Encode the residual, and the reconstruction if the page cannot derive it."""
    residual, unit = _pooled(explanation.residual, n_pooled), explanation.residual_unit
    pictures = {"residual": {"unit": unit, **_signed(residual, *_SCALES[unit])}}
    if unit != DECIBELS:
        rebuilt = _pooled(explanation.reconstruction, n_pooled)
        pictures["reconstruction"] = _levels(rebuilt, low, high, _STEP)
    return pictures


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
    """Encode a waveform in [-1, 1] for a browser; return the bytes and media type.

    The format is mono MP3, which takes about 50 KB for ten seconds at 16 kHz. It is
    16-bit WAV if libsndfile is older than 1.1, or if MP3 does not support the sample
    rate.
    """
    for kind, media_type in (("MP3", "audio/mpeg"), ("WAV", "audio/wav")):
        data = io.BytesIO()
        with contextlib.suppress(ValueError, soundfile.LibsndfileError):
            soundfile.write(data, np.clip(waveform, -1, 1), sample_rate, format=kind)
            return data.getvalue(), media_type
    raise RuntimeError("libsndfile failed to encode a clip as MP3 or WAV")


def _pooled(
    values: Float[np.ndarray, "frame mel"], n_pooled: int
) -> Float[np.ndarray, "column mel"]:
    """Average groups of frames, ignoring NaN; the last group may be smaller."""
    starts = np.arange(0, len(values), n_pooled)
    is_known = np.isfinite(values)
    total = np.add.reduceat(np.where(is_known, values, 0.0), starts, axis=0)
    count = np.add.reduceat(is_known, starts, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _levels(
    values: Float[np.ndarray, "column mel"],
    low: float,
    high: float,
    smallest_step: float,
) -> dict[str, Any]:
    """Encode values up to `high` as bytes that mean `low + step * byte`."""
    step = max(smallest_step, (high - low) / (_NO_VALUE - 1))
    codes = np.clip(np.round((values - low) / step), 0, _NO_VALUE - 1)
    return {"low": low, "step": step, "high": high, "data": _packed(codes)}


def _signed(
    values: Float[np.ndarray, "column mel"], smallest_step: float, largest: float
) -> dict[str, Any]:
    """Encode residuals on a symmetric scale that covers nearly all of them."""
    usual = float(np.quantile(np.abs(values[np.isfinite(values)]), 0.995))
    high = max(min(usual, largest), smallest_step)
    return _levels(values, -high, high, smallest_step)


def _raising(contribution: Float[np.ndarray, "column mel"]) -> dict[str, Any]:
    """Encode positive contributions as bytes that mean `high * (byte / 254) ** 2`."""
    raising = np.maximum(contribution, 0.0)
    high = float(raising.max()) or 1.0
    codes = np.round((_NO_VALUE - 1) * np.sqrt(raising / high))
    return {"high": high, "data": _packed(codes)}


def _packed(codes: Float[np.ndarray, "column mel"]) -> str:
    """Deflate a two-dimensional byte array and encode it in base64."""
    values = np.where(np.isfinite(codes), codes, _NO_VALUE).astype(np.uint8)
    return base64.b64encode(zlib.compress(values.tobytes(), 6)).decode()


class Region(NamedTuple):
    """A range of bands, ends included, that raises a score at certain moments."""

    first_band: int
    last_band: int
    moments: tuple[tuple[int, int], ...]  # in frames; empty if continuous
    share: float  # of all positive contributions


def find_regions(contribution: Float[np.ndarray, "frame mel"]) -> list[Region]:
    """Return up to three regions, strongest first; none if nothing raises the score.

    The bands of a region are found from the contributions summed over all frames, and
    its moments from the contributions summed over these bands. Both sums are smoothed.
    """
    bands = np.maximum(contribution.sum(0), 0.0)
    total = bands.sum()
    raising = np.maximum(contribution, 0.0)
    regions: list[Region] = []
    while total > 0 and len(regions) < _MAX_REGIONS:
        smooth = _smoothed(bands, 5)
        first, last = _reach(smooth, int(smooth.argmax()), _EDGE_OF_BANDS)
        share = float(bands[first : last + 1].sum() / total)
        if share < (_SMALLEST_SHARE if regions else 1e-9):
            break
        moments = _moments(raising[:, first : last + 1].sum(1))
        regions.append(Region(first, last, moments, share))
        bands[first : last + 1] = 0.0
    return sorted(regions, key=lambda region: -region.share)


def describe_regions(
    regions: Sequence[Region],
    corners: Float[np.ndarray, "corner"],
    seconds_per_frame: float,
) -> str:
    """Describe regions in a few sentences.

    `corners` are the frequencies that `band_corners` returns.
    """
    if not regions:
        return "No band raises the score."
    n_bands = len(corners) - 2
    sentences = []
    for place, region in enumerate(regions):
        is_broad = region.last_band - region.first_band + 1 > _BROAD * n_bands
        low = 0.0 if region.first_band == 0 else corners[region.first_band]
        where = f"between {frequencies(low, corners[region.last_band + 2])}"
        where = "at nearly all frequencies" if is_broad else where
        when = _when(region, seconds_per_frame)
        share = f"{100 * region.share:.0f} %"
        if place:
            sentences.append(f"Another {share} lies {where}{when}.")
        elif region.share >= _MAIN:
            sentences.append(f"{share} of what raises the score lies {where}{when}.")
        else:
            many = "Many bands raise the score; the largest part"
            sentences.append(f"{many}, {share}, lies {where}{when}.")
    return " ".join(sentences)


def frequencies(low: float, high: float) -> str:
    """Format two frequencies as `310 and 450 Hz` or `0.9 and 1.2 kHz`."""
    if high < 1000:
        return f"{10 * round(low / 10)} and {10 * round(high / 10)} Hz"
    return f"{low / 1000:.1f} and {high / 1000:.1f} kHz"


def _interval(start: float, end: float) -> str:
    """Format an interval with just enough digits to distinguish its ends."""
    digits = 1 if f"{start:.1f}" != f"{end:.1f}" else 2
    return f"{start:.{digits}f} to {end:.{digits}f} s"


def _when(region: Region, seconds_per_frame: float) -> str:
    if not region.moments:
        return ", throughout the clip"
    if len(region.moments) > _MAX_MOMENTS:
        return f", at {len(region.moments)} short moments"
    scale = seconds_per_frame
    *others, last = (_interval(a * scale, (b + 1) * scale) for a, b in region.moments)
    return f", from {', '.join(others)} and {last}" if others else f", from {last}"


def _moments(profile: Float[np.ndarray, "frame"]) -> tuple[tuple[int, int], ...]:
    """Find short spans of frames that make up a disproportionate part of a profile."""
    smooth = _smoothed(profile, max(3, len(profile) // _MOMENTS_OF_A_CLIP))
    is_strong = smooth >= _EDGE_OF_FRAMES * smooth.max()
    share = profile[is_strong].sum() / max(profile.sum(), 1e-30)
    if share - is_strong.mean() < _MOMENTARY:
        return ()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_strong, [0]])))
    return tuple(
        (int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)
    )


def _reach(values: Float[np.ndarray, "band"], top: int, edge: float) -> tuple[int, int]:
    """Return the first and last index of the range around the peak at `top`.

    All values in this range are at least `edge` times the peak.
    """
    is_low = values < edge * values[top]
    below, above = np.flatnonzero(is_low[:top]), np.flatnonzero(is_low[top:])
    first = int(below[-1]) + 1 if len(below) else 0
    return first, top + int(above[0]) - 1 if len(above) else len(values) - 1


def _smoothed(
    values: Float[np.ndarray, "item"], width: int
) -> Float[np.ndarray, "item"]:
    """Return running means, which are taken over fewer items at the ends."""
    kernel = np.ones(min(width, len(values)))
    total = np.convolve(values, kernel, "same")
    return total / np.convolve(np.ones(len(values)), kernel, "same")
