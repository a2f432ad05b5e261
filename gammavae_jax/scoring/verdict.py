"""New recordings, now and then: scored by programs that are kept, and judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gammavae_jax.data.arrays import ClipArrays, stack_clips
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import unit_name
from gammavae_jax.data.recordings import LoadedRecordings
from gammavae_jax.devices.deal import make_placement
from gammavae_jax.errors import InputError
from gammavae_jax.scoring.detector import Detector, clip_p_values, compile_scores
from gammavae_jax.scoring.fusion import Scores

_FRAMES_IN_A_STEP = 64


class ScoredRecording(NamedTuple):
    """What a detector says of a recording."""

    name: str
    machine: str
    score: float  # higher is more anomalous
    p_value: float  # of a normal recording scoring as high; NaN where unknown
    threshold: float
    is_anomaly: bool  # the score is above the threshold


class ClipScorer:
    """A detector that is asked for the scores of a few clips at a time.

    Sizes are rounded up, the number of clips to a power of two and that of frames to
    a multiple of 64, so that few sizes have to be compiled. What is added is padding.
    """

    def __init__(self, detector: Detector):
        self.detector = detector
        self._programs: dict[Any, Callable[[ClipArrays], Scores]] = {}

    def score(self, clips: Mapping[int, Clips]) -> Scores:
        """Every score of the configuration.

        Args:
            clips: by the number of the machine.

        Returns:
            Arrays `seed machine clip`, of the machines in the order given; what is
            beyond a machine's clips is of no account.
        """
        n_context = self.detector.config.features.n_context
        arrays = _rounded_up(stack_clips(list(clips.values()), n_context))
        key = (*clips, arrays.log_mel.shape[1:3])
        if key not in self._programs:
            self._programs[key] = self._compile(tuple(clips), arrays)
        return self._programs[key](arrays)

    def _compile(
        self, machines: tuple[int, ...], arrays: ClipArrays
    ) -> Callable[[ClipArrays], Scores]:
        config = self.detector.config
        placement = make_placement(
            [1] * len(machines),
            config.n_members,
            jax.local_devices(),
            config.train.batching,
        )
        return compile_scores(
            select_machines(self.detector, machines), placement, arrays
        )


def select_machines(detector: Detector, machines: Sequence[int]) -> Detector:
    """The detector of some machines, by their numbers."""
    chosen = list(machines)

    def select(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[:, chosen], tree)

    return replace(
        detector,
        machines=tuple(detector.machines[m] for m in chosen),
        scorer=select(detector.scorer),
        references=select(dict(detector.references)),
        calibration=select(dict(detector.calibration)),
        thresholds=select(dict(detector.thresholds)),
    )


def machine_names(detector: Detector) -> tuple[str, ...]:
    """A name for each machine: its type, and its section where there are several."""
    types = [machine for machine, _ in detector.machines]
    return tuple(
        machine if types.count(machine) == 1 else unit_name(machine, section)
        for machine, section in detector.machines
    )


def judge(
    detector: Detector,
    number: int,
    found: LoadedRecordings,
    of_clip: Float[np.ndarray, "_"],
) -> list[ScoredRecording]:
    """What a detector says of recordings of a machine, by the scores of their clips.

    A recording that was cut into clips has the mean of their scores.

    Args:
        detector: whose first seed scored.
        number: of the machine.
        found: the recordings.
        of_clip: the score of each of their clips; what is beyond them is padding.

    Raises:
        InputError: a recording whose score is no number.
    """
    score, n_clips = detector.config.score, len(found.recording)
    machine = machine_names(detector)[number]
    total = np.bincount(found.recording, of_clip[:n_clips].astype(np.float64))
    scores = total / np.bincount(found.recording)
    if not np.isfinite(scores).all():
        name = found.names[int(np.isfinite(scores).argmin())]
        raise InputError(
            f"{name}: its score is no number: look at its samples, which may be far "
            "beyond 1, and leave it out"
        )
    threshold = float(detector.thresholds[score][0, number])
    chances = clip_p_values(detector, score, 0, number, scores)
    if chances is None:
        chances = np.full(len(scores), np.nan)
    return [
        ScoredRecording(
            name, machine, float(s), float(p), threshold, bool(s > threshold)
        )
        for name, s, p in zip(found.names, scores, chances, strict=True)
    ]


def _rounded_up(arrays: ClipArrays) -> ClipArrays:
    """With clips and frames added that are padding; windows are not scored by."""
    n_clips, n_frames = arrays.log_mel.shape[1:3]
    more_clips = (1 << (n_clips - 1).bit_length()) - n_clips
    more_frames = -n_frames % _FRAMES_IN_A_STEP
    clips = ((0, 0), (0, more_clips))
    return ClipArrays(
        log_mel=np.pad(arrays.log_mel, (*clips, (0, more_frames), (0, 0))),
        n_frames=np.pad(arrays.n_frames, clips),
    )
