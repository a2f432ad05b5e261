"""Corrects the scores of clips that are shorter than the training clips.

The statistics of a shorter clip vary more, so its score is higher even if the machine
is healthy. To correct this, held-out clips are cut to a few shorter lengths and scored
again. A short clip's score is ranked among the scores of held-out clips that were cut
to about its length. It is replaced by the score with the same rank among whole held-out
clips.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from gammavae_jax.data.arrays import ClipArrays, shortened
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.conditions import Conditions, n_frames_of
from gammavae_jax.devices.placement import Placement
from gammavae_jax.scoring.detector import (
    Detector,
    held_out_scores,
    machine_names,
    score_held_out,
)
from gammavae_jax.scoring.fusion import fuse
from gammavae_jax.training.split import Split

# Lengths relative to a machine's shortest training clip. A clip's length is rounded
# down to one of them.
SHARES = (0.85, 0.7, 0.5, 0.35, 0.25)
_WHOLE = 0.95


def calibrate_short_clips(
    detector: Detector, placement: Placement, clips: ClipArrays, split: Split
) -> Detector:
    """Add the scores of shortened held-out clips to the detector's calibration.

    Args:
        detector: the detector, calibrated on whole clips.
        placement: the placement of the detector's models.
        clips: the training clips, on the host.
        split: the split that determined which of these clips were held out.
    """
    config = detector.config
    if config.scoring.threshold == "official":
        return detector
    score = score_held_out(detector, placement, clips, split)
    calibration = dict(detector.calibration)
    for share in SHARES:
        most = [[_frames(detector, m, share)] for m in range(len(detector.machines))]
        n_frames = np.minimum(clips.n_frames, np.array(most, np.int32))
        shorter = shortened(clips, n_frames)
        whole, names = detector.calibration, (config.score,)
        cut = fuse(score(shorter), whole, names, config.scoring.fused)
        calibration[_key(detector, share)] = cut[config.score]
    conditions = {
        name: of._replace(shortest=SHARES[-1] * of.seconds[0])
        for name, of in detector.conditions.items()
    }
    return replace(detector, calibration=calibration, conditions=conditions)


def as_of_whole_clips(
    detector: Detector,
    machine: int,
    scores: Float[np.ndarray, "_"],
    clips: Clips,
) -> Float[np.ndarray, "_"]:
    """Convert the scores of short clips to the equivalent scores of whole clips.

    Args:
        detector: the detector; its first seed scored the clips.
        machine: the machine's index in the detector.
        scores: the clips' scores, which may be followed by padding.
        clips: the machine's clips.
    """
    comparable = np.array(scores, np.float64)
    is_known = machine_names(detector)[machine] in detector.conditions
    if not is_known or _key(detector, SHARES[-1]) not in detector.calibration:
        return comparable
    whole, _ = held_out_scores(detector, detector.config.score, 0, machine)
    least = _frames(detector, machine, _WHOLE)
    lengths = {share: _frames(detector, machine, share) for share in SHARES}
    for clip, n_frames in enumerate(map(len, clips.log_mels)):
        if n_frames >= least:
            continue
        share = next((s for s in SHARES if lengths[s] <= n_frames), SHARES[-1])
        cut, _ = held_out_scores(detector, _key(detector, share), 0, machine)
        if len(cut):
            # A score outside the range of `cut` keeps its distance to the range.
            nearest = np.clip(scores[clip], cut[0], cut[-1])
            comparable[clip] = np.interp(nearest, cut, whole) + scores[clip] - nearest
    return comparable


def _frames(detector: Detector, machine: int, share: float) -> int:
    """Return how many frames a given share of the shortest training clip has."""
    conditions: Conditions = detector.conditions[machine_names(detector)[machine]]
    features = detector.config.features
    whole = n_frames_of(conditions.seconds[0], features)
    return max(features.n_context, int(share * whole))


def _key(detector: Detector, share: float) -> str:
    return f"{detector.config.score} at {share:g}"
