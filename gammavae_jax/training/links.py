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
linked and count as independent, because new sessions may have the same attributes.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from gammavae_jax.data.arrays import ClipArrays
from gammavae_jax.data.shared_audio import find_shared_audio


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
    """Return the fraction of an independent recording that each clip counts as.

    It is 1 for a clip without links, `1 / n` for each of `n` clips that are all linked
    to each other, and 0 for padding. If linked clips form separate groups, the sum over
    clips is the number of independent recordings. Otherwise, it is a lower bound for
    the number of clips that can be chosen without a link between them (Caro 1979, Wei
    1981).
    """
    count = (is_linked & is_clip[:, None, :]).sum(-1)
    return np.where(is_clip, 1.0 / np.maximum(count, 1), 0.0)
