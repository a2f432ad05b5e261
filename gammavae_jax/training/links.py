"""Finds links between training clips that are not independent of each other.

Linked clips contain the same audio, were cut from one recording, or belong to one
group that the user named. A new recording has no link to the training clips, so a
training clip must be held out together with the clips that it is linked to. Linked
clips are excluded from comparisons pair by pair, not by fold, because links need not
form separate groups: two clips may share a background, and one of them may share a
recording with a third.

Clips whose names state the same attributes were probably recorded in one session. They
are never compared with each other either, because thresholds would be too low if
held-out clips were compared with clips from their own session. However, they are not
linked and are treated as independent, because new sessions may have the same
attributes.

Clips that overlap, that were recorded by several microphones at once, or that were
mixed with the same background share the random fluctuations of their bands. The
cross-correlation of the fluctuations then has a sharp peak at the lag between the
clips, whereas independent recordings of one machine only share its rhythm.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float, Int

from gammavae_jax.data.arrays import ClipArrays

# A peak's height is in standard deviations of the correlation at other lags. Among a
# thousand lags of noise, the highest peak reaches about 3.5.
_LEAST_PEAK = 8.0
_LARGEST_PEAK = 50.0  # no two independent recordings have such a peak
_TIMES_MEDIAN = 4.0  # the rhythm of a machine raises the peaks of all pairs of clips
_NORMAL_MEDIAN = 0.6745  # median of |x| for a standard normal x
_FLOOR = 1e-3  # of a spectrum's mean magnitude: weaker components are not amplified
_SMALLEST_SPREAD = 1e-3  # dB; smaller variations, as in silence, are rounding errors
_ROWS = 32  # clips correlated with all others in one step
_FEWEST_FRAMES = 32  # shorter clips have too few lags to recognise a peak
_MOST_OF_COPIES = 0.05  # dB (root mean square): rounding changes a copy's samples


def find_shared_audio(
    log_mel: Float[np.ndarray, "clip frame mel"],
    n_frames: Int[np.ndarray, "clip"],
    n_edge: int = 1,
) -> Bool[np.ndarray, "clip clip"]:
    """Return which pairs of a machine's clips contain the same audio.

    A pair counts if the highest peak of its phase correlation (Knapp and Carter 1976),
    summed over bands, exceeds four times the median over all pairs; this limit is kept
    between 8 and 50 standard deviations. A clip of less than 32 frames is paired only
    with its copies, which may have a different gain. The relation is symmetric, and no
    clip is paired with itself.

    Args:
        log_mel: the clips in dB, padded at the end.
        n_frames: the length of each clip.
        n_edge: the number of frames at either end that are left out, because their
            transients are alike in all clips of a tonal machine.
    """
    peaks = correlation_peaks(log_mel, n_frames, n_edge)
    usual = _TIMES_MEDIAN * median_of_pairs(peaks)
    is_shared = peaks > np.clip(usual, _LEAST_PEAK, _LARGEST_PEAK)
    return is_shared | _copies(log_mel, n_frames)


def median_of_pairs(peaks: Float[np.ndarray, "clip clip"]) -> float:
    """Return the median of the positive peaks, counting each pair once, or 0."""
    rows = (row[index + 1 :] for index, row in enumerate(peaks))
    pairs = np.concatenate([row[row > 0] for row in rows] or [np.zeros(0)])
    # In float32, the mean of the two middle values would be rounded.
    pairs = pairs.astype(np.float64)
    return float(np.median(pairs, overwrite_input=True)) if len(pairs) else 0.0


def _copies(
    log_mel: Float[np.ndarray, "clip frame mel"], n_frames: Int[np.ndarray, "clip"]
) -> Bool[np.ndarray, "clip clip"]:
    """Return which pairs of short clips differ only in gain.

    Steady clips, such as silence, are ignored: any new steady clip would be a copy.
    """
    found = np.zeros((len(n_frames), len(n_frames)), bool)
    is_short = (n_frames > 0) & (n_frames < _FEWEST_FRAMES)
    for n in np.unique(n_frames[is_short]).tolist():
        clips = np.flatnonzero(n_frames == n)
        values = np.asarray(log_mel[clips, :n], np.float64)
        is_varied = values.std(1).max(-1, initial=0.0) > _SMALLEST_SPREAD
        clips, values = clips[is_varied], values[is_varied]
        values = values.reshape(len(clips), n * log_mel.shape[2])
        values -= values.mean(1, keepdims=True)
        size = (values**2).mean(1)
        apart = size[:, None] + size - 2 * (values @ values.T) / values.shape[1]
        found[np.ix_(clips, clips)] = apart <= _MOST_OF_COPIES**2
    return found & ~np.eye(len(n_frames), dtype=bool)


def correlation_peaks(
    log_mel: Float[np.ndarray, "clip frame mel"],
    n_frames: Int[np.ndarray, "clip"],
    n_edge: int = 1,
) -> Float[np.ndarray, "clip clip"]:
    """Return, for each pair of clips, the highest peak of their phase correlation.

    Peaks are in standard deviations of the correlation at the other lags. They are 0
    for a clip with itself and for clips that are too short.
    """
    n_clips, longest = log_mel.shape[:2]
    if not n_clips:
        return np.zeros((0, 0), np.float32)
    n_fft: Any = scipy.fft.next_fast_len(2 * longest, real=True)
    spectra = np.stack(
        [
            _whitened(log_mel[clip, n_edge : n - n_edge], n_fft)
            if n >= max(_FEWEST_FRAMES, 2 * n_edge + 2)
            else np.zeros((n_fft // 2 + 1, log_mel.shape[2]), np.complex64)
            for clip, n in enumerate(n_frames.tolist())
        ],
        axis=1,
    )  # frequency clip mel
    # Clips that overlap by less than half are not compared.
    most = longest // 2
    # With thousands of short clips, most of the memory is for this matrix.
    peaks = np.zeros((n_clips, n_clips), np.float32)
    for first in range(0, n_clips, _ROWS):
        rows = slice(first, min(first + _ROWS, n_clips))
        others = slice(first, n_clips)
        cross = spectra[:, rows].conj() @ spectra[:, others].transpose(0, 2, 1)
        lags: Any = scipy.fft.irfft(cross, n_fft, axis=0)
        lags = np.concatenate([lags[: most + 1], lags[n_fft - most :]])
        scale = np.median(np.abs(lags), axis=0) / _NORMAL_MEDIAN
        block = lags.max(0) / np.maximum(scale, 1e-30)
        within = np.triu(block[:, : len(block)], 1)
        block[:, : len(block)] = within + within.T
        peaks[rows, others], peaks[others, rows] = block, block.T
    is_short = n_frames < _FEWEST_FRAMES
    peaks[is_short] = peaks[:, is_short] = 0.0
    return peaks


def _whitened(
    log_mel: Float[np.ndarray, "frame mel"], n_fft: int
) -> np.ndarray:  # complex, `frequency mel`
    """Return the Fourier phases of each band's fluctuations over time."""
    centred = log_mel - log_mel.mean(0)
    centred = np.where(centred.std(0) > _SMALLEST_SPREAD, centred, 0.0)
    spectrum: Any = scipy.fft.rfft(centred, n_fft, axis=0)
    size = np.abs(spectrum)
    return (spectrum / (size + _FLOOR * size.mean() + 1e-30)).astype(np.complex64)


def link_clips(
    clips: ClipArrays,
    groups: Sequence[Int[np.ndarray, "_"]] | None = None,
    n_edge: int = 1,
) -> Bool[np.ndarray, "machine clip clip"]:
    """Mark, for each machine, the pairs of training clips that are linked.

    Every clip is linked to itself. Padding is not linked to any real clip.

    Args:
        clips: the training clips of all machines.
        groups: for each machine, each clip's recording number or group number;
            default: unknown.
        n_edge: the number of frames at each end to ignore; see `find_shared_audio`.
    """
    n_frames = np.asarray(clips.n_frames)
    linked = np.zeros((*n_frames.shape, n_frames.shape[1]), bool)
    for machine, lengths in enumerate(n_frames):
        used = np.flatnonzero(lengths)
        at = np.ix_(used, used)
        log_mel = np.asarray(clips.log_mel[machine])[used]
        linked[machine][at] = find_shared_audio(log_mel, lengths[used], n_edge)
    return link_groups(linked | np.eye(n_frames.shape[1], dtype=bool), groups)


def link_groups(
    is_linked: Bool[np.ndarray, "machine clip clip"],
    groups: Sequence[Int[np.ndarray, "_"]] | None,
) -> Bool[np.ndarray, "machine clip clip"]:
    """Return the links after linking all clips of each group to each other.

    Args:
        is_linked: the links between clips.
        groups: for each machine, each clip's group number; None: no groups.
    """
    linked = is_linked.copy()
    for machine, of_clip in enumerate(groups or ()):
        n_clips = len(of_clip)
        linked[machine, :n_clips, :n_clips] |= of_clip[:, None] == of_clip
    return linked


def independence(
    is_linked: Bool[np.ndarray, "machine clip clip"],
    is_clip: Bool[np.ndarray, "machine clip"],
) -> Float[np.ndarray, "machine clip"]:
    """Return each clip's weight, as a fraction of an independent recording.

    It is 1 for a clip without links, `1 / n` for each of `n` clips that are all linked
    to each other, and 0 for padding. If linked clips form separate groups, the sum over
    clips is the number of independent recordings. Otherwise, it is a lower bound for
    the number of clips that can be chosen without a link between them (Caro 1979, Wei
    1981).
    """
    count = (is_linked & is_clip[:, None, :]).sum(-1)
    return np.where(is_clip, 1.0 / np.maximum(count, 1), 0.0)
