"""Scores a few clips at a time and caches the compiled programs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from gammavae_jax.data.arrays import ClipArrays, stack_clips
from gammavae_jax.data.clips import Clips
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.devices.local import local_devices
from gammavae_jax.scoring.detector import Detector, compile_scores
from gammavae_jax.scoring.fusion import Scores
from gammavae_jax.scoring.machine_axis import select_machines
from gammavae_jax.scoring.short_clips import as_of_whole_clips

# The number of frames is rounded up to a multiple of this, or of an eighth of the next
# power of two if that is larger.
_FRAMES_IN_A_STEP = 64
_PROGRAMS_KEPT = 32


class ClipScorer:
    """Scores a few clips at a time, with a cache of compiled programs.

    Arrays are padded so that only a few sizes need a compiled program. The number of
    clips is rounded up to a power of two, and the number of frames to one of four steps
    between powers of two. Only the most recently used compiled programs are kept.
    """

    def __init__(self, detector: Detector):
        self.detector = detector
        self._programs: dict[Any, Callable[[ClipArrays], Scores]] = {}

    def score(self, clips: Mapping[int, Clips]) -> Scores:
        """Compute every configured score of the given clips.

        Args:
            clips: the clips of each machine, by the machine's index in the detector.

        Returns:
            Each score's array `seed machine clip`, with the machines in the given
            order. The values of padding are undefined.
        """
        n_context = self.detector.config.features.n_context
        arrays = _rounded_up(stack_clips(list(clips.values()), n_context))
        key = (*clips, arrays.log_mel.shape[1:3])
        devices = local_devices()  # raises an error in a forked process
        program = self._programs.pop(key, None)
        program = program or self._compile(tuple(clips), arrays, devices)
        self._programs[key] = program  # now the most recently used
        if len(self._programs) > _PROGRAMS_KEPT:
            del self._programs[next(iter(self._programs))]
        return program(arrays)

    def _compile(
        self, machines: tuple[int, ...], arrays: ClipArrays, devices: Sequence[Any]
    ) -> Callable[[ClipArrays], Scores]:
        config = self.detector.config
        placement = make_placement(
            [1] * len(machines),
            config.n_members,
            devices,
            config.train.batching,
        )
        return compile_scores(
            select_machines(self.detector, machines), placement, arrays
        )


def score_of_clips(
    scorer: ClipScorer, clips: Mapping[int, Clips]
) -> list[Float64[np.ndarray, "_"]]:
    """Return the first seed's headline scores, corrected for short clips.

    Args:
        scorer: the scorer.
        clips: the clips of each machine, by the machine's index in the detector.

    Returns:
        For each machine, in the given order, the scores of its clips; see
        `short_clips`.
    """
    detector = scorer.detector
    of_seed = scorer.score(clips)[detector.config.score][0]
    return [
        as_of_whole_clips(detector, number, scores[: len(of.files)], of)
        for (number, of), scores in zip(clips.items(), of_seed, strict=True)
    ]


def _rounded_up(arrays: ClipArrays) -> ClipArrays:
    """Pad clips and frames, so that only a few sizes need a compiled program."""
    n_clips, n_frames = arrays.log_mel.shape[1:3]
    more_clips = (1 << (n_clips - 1).bit_length()) - n_clips
    step = max(_FRAMES_IN_A_STEP, (1 << (n_frames - 1).bit_length()) // 8)
    more_frames = -n_frames % step
    clips = ((0, 0), (0, more_clips))
    return ClipArrays(
        log_mel=np.pad(arrays.log_mel, (*clips, (0, more_frames), (0, 0))),
        n_frames=np.pad(arrays.n_frames, clips),
        level=np.pad(arrays.level, clips),
    )
