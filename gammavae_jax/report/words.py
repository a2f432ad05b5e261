"""Where the contributions to a score lie, in bands and seconds and in words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_EDGE_OF_BANDS = 0.3  # a region ends below this part of its strongest band
_EDGE_OF_FRAMES = 0.3  # a moment ends below this part of the strongest frame
_MOMENTARY = 0.3  # moments must hold this much more than their share of frames
_MOMENTS_OF_A_CLIP = 25  # at most; closer ones are merged
_SMALLEST_SHARE = 0.1  # of all positive contributions, to count as another region
_MAIN = 0.5  # from this share on, one region explains the score
_MAX_MOMENTS = 3  # to list one by one
_BROAD = 0.6  # of all bands; a broader region is described without frequencies


class Region(NamedTuple):
    """Bands that raise a score, and when; ends are inclusive."""

    first_band: int
    last_band: int
    moments: tuple[tuple[int, int], ...]  # frames; empty: throughout the clip
    share: float  # of all positive contributions


def find_regions(
    contribution: Float[np.ndarray, "frame mel"], n_most: int = 3
) -> list[Region]:
    """Return up to `n_most` regions, strongest first; none if nothing raises the score.

    A region's bands are chosen by their sums over all frames, its moments by the sums
    over these bands, both smoothed a little.
    """
    bands = np.maximum(contribution.sum(0), 0.0)
    total = bands.sum()
    raising = np.maximum(contribution, 0.0)
    regions: list[Region] = []
    while total > 0 and len(regions) < n_most:
        smooth = _smoothed(bands, 5)
        first, last = _reach(smooth, int(smooth.argmax()), _EDGE_OF_BANDS)
        share = float(bands[first : last + 1].sum() / total)
        if share < (_SMALLEST_SHARE if regions else 1e-9):
            break
        moments = _moments(raising[:, first : last + 1].sum(1))
        regions.append(Region(first, last, moments, share))
        bands[first : last + 1] = 0.0
    return regions


def describe_regions(
    regions: Sequence[Region],
    corners: Float[np.ndarray, "corner"],
    seconds_per_frame: float,
) -> str:
    """Describe regions in a few sentences; `corners` come from `band_corners`."""
    if not regions:
        return "No band raises the score."
    n_bands = len(corners) - 2
    sentences = []
    for place, region in enumerate(regions):
        is_broad = region.last_band - region.first_band + 1 > _BROAD * n_bands
        low = 0.0 if region.first_band == 0 else corners[region.first_band]
        where = f"between {frequencies(low, corners[region.last_band + 2])}"
        where = "over nearly all frequencies" if is_broad else where
        when = _when(region, seconds_per_frame)
        share = f"{100 * region.share:.0f} %"
        if place:
            sentences.append(f"Next: {where}{when}, {share}.")
        elif region.share >= _MAIN:
            sentences.append(f"{share} of what raises the score lies {where}{when}.")
        else:
            sentences.append(
                f"Many bands raise the score, most of all {where}{when}: {share}."
            )
    return " ".join(sentences)


def frequencies(low: float, high: float) -> str:
    """Return `310 and 450 Hz` or `0.9 and 1.2 kHz`."""
    if high < 1000:
        return f"{10 * round(low / 10)} and {10 * round(high / 10)} Hz"
    return f"{low / 1000:.1f} and {high / 1000:.1f} kHz"


def _when(region: Region, seconds_per_frame: float) -> str:
    if not region.moments:
        return ", throughout"
    if len(region.moments) > _MAX_MOMENTS:
        return f", in {len(region.moments)} short moments"
    *others, last = (
        f"{start * seconds_per_frame:.1f} to {(end + 1) * seconds_per_frame:.1f} s"
        for start, end in region.moments
    )
    return f", from {', '.join(others)} and {last}" if others else f", from {last}"


def _moments(profile: Float[np.ndarray, "frame"]) -> tuple[tuple[int, int], ...]:
    """Spans of frames that hold far more than their share; empty if none do."""
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
    """The ends of the range around the top that stays above a part of it."""
    is_low = values < edge * values[top]
    below, above = np.flatnonzero(is_low[:top]), np.flatnonzero(is_low[top:])
    first = int(below[-1]) + 1 if len(below) else 0
    return first, top + int(above[0]) - 1 if len(above) else len(values) - 1


def _smoothed(
    values: Float[np.ndarray, "item"], width: int
) -> Float[np.ndarray, "item"]:
    """Running means, over fewer items at the ends."""
    kernel = np.ones(min(width, len(values)))
    total = np.convolve(values, kernel, "same")
    return total / np.convolve(np.ones(len(values)), kernel, "same")
